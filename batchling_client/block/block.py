"""The block that `batchify` returns: how it is entered and left, as `async with` and as `with`."""

from __future__ import annotations

import asyncio
import atexit
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import Final, Literal

from ..intercept import child_processes, own_transports, scope, switch
from ..intercept.open_block import OpenBlock, running_loop
from ..progress import display
from ..session.lanes import Terms
from ..settings import ClientSettings
from ..wire.deployment.cancellation import carry_through
from ..wire.routes import Routes
from . import background_loop, sigint, sigterm
from . import in_flight as in_flight_of
from .background_loop import Bridge
from .opened import Opened, end_of_dry_run
from .parameters import BlockOptions
from .run import Run
from .run_handler import RunHandler

SAY_WAITING_AFTER_S: Final = 2.0
"""How long a block waits for its calls at its end before it says so."""
_STILL_WORKING: Final = (
    "The batchify block has ended and stays open for up to {:g} s: a thread that may still make calls imports a module "
    "or does the work of a thread pool. Ctrl-C stops waiting. Await such work inside the block."
)
_NO_ASYNCIO: Final = (
    "`async with batchify()` needs asyncio, and no event loop of asyncio runs here (under trio none does). "
    "Use asyncio, or a synchronous client in a plain `with batchify():`."
)
_NO_NETWORK: Final = (
    "{0} replaces the network of this program, so the batchify block that opens now is off: it catches no call and "
    "reaches no Redis. Open the block before {0} if calls that {0} does not answer are to be batched."
)


class Block:
    """What `batchify` returns; it is entered once, and yields its `Run`."""

    def __init__(self, used: ClientSettings, terms: Terms, options: BlockOptions, routes: Routes) -> None:
        self._settings = used
        self._terms = terms
        self._options = options
        self._routes = routes
        self._run: RunHandler | None = None
        self._opened: Opened | None = None
        self._token: OpenBlock | None = None
        self._bridge: Bridge | None = None
        self._threads: in_flight_of.Threads | None = None
        self._left = False
        self._says_waiting = False
        self._says_working = False

    async def __aenter__(self) -> Run:
        if running_loop() is None:
            raise RuntimeError(_NO_ASYNCIO)
        opened = self._enter()
        if not self._options.enabled:
            return self._open_disabled()
        run = await self._open(opened)
        if run.rehearsal is not None:
            run.rehearsal.owned_by(asyncio.current_task())
        sigterm.watch(self._terminated)
        self._token = scope.enter_task(run)
        return Run(run)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Literal[False]:
        if error is None and self._token is not None and not self._left:
            try:
                await self._wait_for_calls(self._token)
            except BaseException as broken_off:
                await self._leave_task(broken_off)
                raise
        return await self._leave_task(error)

    async def _wait_for_calls(self, token: OpenBlock) -> None:
        """Return once no call is in flight, with display and scope open meanwhile; a cancel breaks it off."""
        in_flight = self._in_flight(in_flight_of.tasks_of(token))
        while in_flight is not None and (pause_s := self._pause_s(in_flight)) is not None:  # noqa: ASYNC110
            # Calls of other threads and loops count too, but do not set this loop's event.
            await asyncio.sleep(pause_s)
        self._detach()

    async def _leave_task(self, error: BaseException | None) -> Literal[False]:
        self._leave_scope()
        run, opened = self._run, self._opened
        if run is None or opened is None or self._is_left_already() or _is_left_by_child(opened):
            return False
        dry_end = run.rehearsal is not None and run.rehearsal.is_ended_by(error)
        _let_calls_go(run)
        if isinstance(error, GeneratorExit) or running_loop() is None:
            # A discarded coroutine or generator must not await, and its loop may have stopped.
            opened.close_from_afar(run)
            return False
        try:
            await carry_through(partial(opened.close, run, interrupted=error is not None and not dry_end))
        except asyncio.CancelledError:
            if isinstance(error, asyncio.CancelledError) and not dry_end:
                return False
            raise
        end_of_dry_run(run, dry_end=dry_end)
        return False

    def _leave_scope(self) -> None:
        token, self._token = self._token, None
        if token is None:
            return
        scope.leave_task(token)
        # Watch tasks that outlive the block until the last has ended.
        switch.install()
        scope.when_forgotten(token, switch.let_go)

    def __enter__(self) -> Run:
        opened = self._enter()
        if not self._options.enabled:
            return self._open_disabled()
        shared = background_loop.hold()
        try:
            run = shared.call(self._open(opened, awaits_worker=not self._settings.redis_url))
        except BaseException:
            with sigint.deferred():
                if self._run is not None and not self._is_left_already():
                    # The interrupt came between the last step of the entry and this thread's return from it.
                    _let_calls_go(self._run)
                    shared.finish(partial(opened.close, self._run, interrupted=False))
                background_loop.let_go()
            raise
        self._bridge = shared
        sigint.watch(run.end.release)
        sigterm.watch(self._terminated)
        self._threads = in_flight_of.Threads(scope.enter_process(run).items)
        return Run(run)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Literal[False]:
        # An event loop of this thread must not be held up: its own calls could never be answered.
        if error is None and self._threads is not None and not self._left and running_loop() is None:
            try:
                self._wait_for_calls_of_threads(self._threads)
            except BaseException as interrupted:
                self._leave_threads(interrupted)
                raise
        return self._leave_threads(error)

    def _wait_for_calls_of_threads(self, threads: in_flight_of.Threads) -> None:
        """Do in the exiting thread what `_wait_for_calls` does; Ctrl-C breaks it off."""
        in_flight = self._in_flight(threads.may_ask)
        while in_flight is not None and (pause_s := self._pause_s(in_flight)) is not None:
            time.sleep(pause_s)
        self._detach()

    def _leave_threads(self, error: BaseException | None) -> Literal[False]:
        run, opened, shared = self._run, self._opened, self._bridge
        if shared is None or run is None or opened is None or self._is_left_already():
            return False
        with sigint.deferred():
            _leave_process(run)
            sigint.let_go(run.end.release)
            if _is_left_by_child(opened):
                return False
            dry_end = run.rehearsal is not None and run.rehearsal.is_ended_by(error)
            interrupted = error is not None and not dry_end
            _let_calls_go(run)
            say_late = interrupted and run.end.holds_up()
            if say_late:
                run.end.report_late()
            try:
                shared.finish(partial(opened.close, run, interrupted=interrupted, say=not say_late))
            finally:
                background_loop.let_go()
        end_of_dry_run(run, dry_end=dry_end)
        return False

    def _enter(self) -> Opened:
        """Prepare the run, in the context of the code that enters the block."""
        if self._run is not None:
            raise RuntimeError("A batchify() block is entered once: call batchify() again for another one.")
        outer = scope.current()
        opened = Opened(
            self._settings,
            self._terms,
            self._options,
            self._routes,
            outer if isinstance(outer, RunHandler) else None,
        )
        double = own_transports.double_of_network()
        if double is not None and self._options.enabled and not opened.is_dry:
            display.warn(_NO_NETWORK.format(double))
            self._options = replace(self._options, enabled=False)
        return opened

    async def _open(self, opened: Opened, *, awaits_worker: bool = False) -> RunHandler:
        self._opened = opened
        self._run = await opened.open(awaits_worker=awaits_worker)
        atexit.register(self._leave_at_exit)
        return self._run

    def _open_disabled(self) -> Run:
        """Yield a run that catches nothing; leaving the block does nothing either."""
        self._run, self._left = RunHandler(self._terms, self._options, self._routes, None), True
        return Run(self._run)

    def _in_flight(self, may_ask: Callable[[float], bool]) -> in_flight_of.InFlight | None:
        """Return what this process waits for before it leaves the block."""
        if self._run is None or self._opened is None or self._opened.is_in_child:
            return None
        counted = in_flight_of.Unsent(self._run) if self._options.detach else self._run
        return in_flight_of.InFlight(counted, may_ask)

    def _pause_s(self, in_flight: in_flight_of.InFlight) -> float | None:
        run = self._run
        pause_s = in_flight.pause_s()
        if run is None or pause_s is None or self._left:
            return None
        is_long = in_flight.waited_s > SAY_WAITING_AFTER_S
        if is_long and not self._says_waiting and run.n_in_flight() and not self._options.detach:
            self._says_waiting = True
            display.say(run.end.words_of_in_flight(run.n_in_flight()))
        if is_long and not self._says_working and in_flight.waits_for_work:
            self._says_working = True
            display.say(_STILL_WORKING.format(in_flight_of.WORKING_S))
        return pause_s

    def _detach(self) -> None:
        is_here = self._opened is not None and not self._opened.is_in_child
        if self._options.detach and self._run is not None and not self._left and is_here:
            self._run.end.detach()

    def _is_left_already(self) -> bool:
        left, self._left = self._left, True
        sigterm.let_go(self._terminated)
        atexit.unregister(self._leave_at_exit)
        return left

    def _terminated(self) -> None:
        """Say what continues without the program: it is being ended, and leaves no block."""
        if self._run is None or self._opened is None or self._opened.is_in_child or self._run.is_dry:
            return
        display.close_screens()
        words = self._run.end.words_of_terminated(self._run.n_unsent())
        if words:
            display.say(words)

    def _leave_at_exit(self) -> None:
        """Leave a block that the program forgot, or whose event loop was closed around it."""
        run, opened = self._run, self._opened
        if run is None or opened is None or opened.is_in_child:
            return
        if self._bridge is not None:
            self.__exit__(SystemExit, SystemExit(), None)
        elif not self._is_left_already():
            _let_calls_go(run)
            opened.close_from_afar(run)


def _is_left_by_child(opened: Opened) -> bool:
    if not opened.is_in_child:
        return False
    switch.uninstall()
    return True


def _leave_process(run: RunHandler) -> None:
    token = scope.leave_process(run)
    if token is not None:
        # Watch threads that outlive the block until the last has ended.
        switch.install()
        scope.when_forgotten(token, switch.let_go)


def _let_calls_go(run: RunHandler) -> None:
    """Undo what the entry of a block did to this process' HTTP libraries and to its children."""
    child_processes.block_closed(run.passed)
    switch.uninstall()
