"""A run that is open in this process: its deployment and its display, from the entry of a block to its end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import warnings
from functools import partial
from typing import Final

from redis.exceptions import NoPermissionError

from ..errors import DryRunOver, QueueUnreachable
from ..intercept import child_processes, gate, probe, switch
from ..operate import embedded_stack, worker_presence
from ..operate.connect import unreachable
from ..operate.deployment import check_reachable, deployment_of, read_salt
from ..progress import display
from ..session import Deployment
from ..session.lanes import Terms
from ..session.own_context import apart, droppable
from ..settings import ClientSettings
from ..views.inspection import Inspection
from ..wire.deployment.cancellation import carry_through, end
from ..wire.deployment.connection import UNREACHABLE
from ..wire.routes import Routes
from .dry_run import look_up, prepare
from .parameters import BlockOptions
from .run_handler import RunHandler

_FIRST_STACK: Final = (
    "A Redis and a worker now run in the background and outlive this program, so that answers are collected while "
    "nobody waits: `batchling status` shows them, `batchling down` stops them and keeps everything. Batches take "
    "minutes to hours. Ctrl-C is safe: run the program again to get the answers without paying twice."
)


class Opened:
    """Opens and closes the run of one block; the same for both colours of blocks."""

    def __init__(
        self,
        used: ClientSettings,
        terms: Terms,
        options: BlockOptions,
        routes: Routes,
        outer: RunHandler | None,
    ) -> None:
        """Prepare a run that opens inside another block, `outer`, or inside none."""
        self._settings = used
        self._terms = terms
        self._options = options
        self._routes = routes
        self._outer = outer
        self.is_dry: Final = options.dry_run or (outer is not None and outer.is_dry)
        """Whether this block, or a block around it such as `batchling run --dry-run`, only counts."""
        self._companions: list[asyncio.Task[None]] = []
        self._pid: Final = os.getpid()

    @property
    def is_in_child(self) -> bool:
        """Whether this process was forked inside the block: run, threads and connections are its parent's."""
        return os.getpid() != self._pid

    async def open(self, *, awaits_worker: bool = False) -> RunHandler:
        """Return a run whose calls can be caught from now on; raise what entering a block raises."""
        is_first_stack = self._starts_first_stack()
        deployment = None if self.is_dry else await apart(deployment_of(self._settings))
        if is_first_stack:
            display.say(_FIRST_STACK)
        run = RunHandler(self._terms, self._options, self._routes, deployment)
        switch.install()
        try:
            await apart(self._start(run, deployment, awaits_worker=awaits_worker))
        except BaseException as error:
            switch.uninstall()
            if not isinstance(error, GeneratorExit):
                await carry_through(partial(run.end.close, interrupted=False))
            raise
        child_processes.block_opened(run.passed)
        return run

    def _starts_first_stack(self) -> bool:
        """Return whether this block starts the background stack of its home for the first time."""
        used = self._settings
        if self.is_dry or used.redis_url or gate.of_process() is not None:
            return False
        return not embedded_stack.was_used(used.home)

    async def close(self, run: RunHandler, *, interrupted: bool, say: bool = True) -> None:
        """End the run and its display, and report it."""
        for companion in self._companions:
            companion.cancel()
        if self._companions:
            # The display reads the batches a last time, which a second cancel would interrupt.
            await asyncio.wait(self._companions, timeout=display.LAST_LOOK_S)
        await end(self._companions)
        await run.end.close(interrupted=interrupted, say=say)
        if run.rehearsal is not None:
            run.rehearsal.unhush()
        if run.rehearsal is not None and run.rehearsal.n_requests and self._terms.cache:
            await look_up(run.rehearsal, self._settings)
        if self._outer is not None:
            self._outer.has_inner_block = True
        now = run.progress
        if now.n_requests:
            display.report(run)
        elif run.has_inner_block and not now.passed:
            # The dry run has reported already.
            pass
        elif run.passed.n_left_alone and not now.passed:
            if not run.is_dry:
                display.say(run.summary())
        elif not interrupted or now.passed:
            display.warn(run.summary())

    def close_from_afar(self, run: RunHandler) -> None:
        """Do what `close` does on the background loop, without the block's own loop."""
        for companion in self._companions:
            with contextlib.suppress(RuntimeError):
                companion.get_loop().call_soon_threadsafe(companion.cancel)
        with contextlib.suppress(QueueUnreachable):
            run.end.close_from_afar()
        if self._outer is not None:
            self._outer.has_inner_block = True
        if run.rehearsal is not None:
            run.rehearsal.unhush()
        if run.progress.n_requests:
            display.report(run)

    async def _start(self, run: RunHandler, deployment: Deployment | None, *, awaits_worker: bool) -> None:
        await probe.check()
        if deployment is None:
            if run.rehearsal is not None:
                await prepare(run.rehearsal, self._terms.roots, self._settings)
            return
        await check_reachable(run.redis, deployment.redis_url)
        await read_salt(self._terms.roots, run.redis, run.keys, deployment.redis_url)
        inspection = Inspection(run.redis, run.keys)
        if awaits_worker:
            await worker_presence.first_worker(inspection, worker_presence.STARTING_S)
        with contextlib.suppress(*UNREACHABLE):
            # From here on an outage of Redis is waited for; the companion checks for a worker again.
            try:
                await worker_presence.fit_worker_lives(inspection, deployment.seal_public_key)
            except NoPermissionError as error:
                raise unreachable(deployment.redis_url, error) from None
        companions = [
            display.show(run, self._options.live_display),
            worker_presence.watch(
                inspection,
                deployment.seal_public_key,
                asked=lambda: run.progress.n_waiting > 0,
                missing=worker_presence.missing_worker(self._settings.redis_url),
            ),
        ]
        self._companions = [droppable(asyncio.create_task(companion)) for companion in companions]


def end_of_dry_run(run: RunHandler, *, dry_end: bool) -> None:
    """End the program: what follows the block would work on answers that are not there.

    A block whose calls test doubles answered has withheld nothing, and ends with a warning.
    """
    if dry_end:
        n = run.progress.n_requests
        counted = "1 request was" if n == 1 else f"{n:,} requests were"
        raise DryRunOver(
            f"The dry run ends here: {counted} counted, and nothing after the block runs."
        ) from None
    if run.is_dry and run.passed.n_left_alone and not run.progress.n_requests:
        # A Python warning, so that a test that counts requests shows it in its report.
        warnings.warn(f"The dry run counted nothing. {run.summary()}", stacklevel=3)
