"""The tick: one thread a worker that claims what is due, seals ripe batches and sends ids to the pool."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Final

from celery import bootsteps
from celery.signals import worker_ready
from celery.worker import state
from redis.exceptions import ResponseError

from batchling_client.wire.deployment.connection import UNREACHABLE
from batchling_client.wire.records.row_and_result import WorkerPresence
from batchling_client.wire.scripts import DueBatch
from batchling_client.wire.states import BatchState

from ..errors import UnfitWorker
from ..pipeline.seal import seal
from ..store import Store
from ..telemetry import Telemetry
from .backlog import Backlog
from .dispatch import Dispatch
from .fork_safety import still_at_forks
from .redis_health import Fitness

logger = logging.getLogger("batchling.worker")

CLAIM_AT_ONCE: Final = 200
CLAIMS_A_TICK: Final = 1_000
"""Looks that fall due together are claimed together, so that few messages hold them."""
HEARTBEAT_S: Final = 5.0
CONNECTING_S: Final = 5.0
"""How long the first heartbeat waits for Celery's own connections; requests need not wait for them."""
FAILED_TICK_S: Final = 1.0
OLDER_TICK_S: Final = 0.5
"""How often the tick looks at an older wire version in which nothing is due."""
DELETE_S: Final = 1.0
"""How often a worker looks for files to delete, in seconds."""
MISSED_BEFORE_INLINE: Final = 2
"""After this many claims without a begun step, messages are being lost: the tick's own process runs the step."""
JOIN_S: Final = 5.0
PAUSE_S: Final = 0.5
STEADY_S: Final = 60.0
"""A loop that lived this long starts a new count of deaths in a row."""
DEATHS_ALLOWED: Final = 3
USAGE: Final = 2


@dataclass(slots=True, kw_only=True)
class _Version:
    """One wire version as the tick sees it."""

    store: Store
    backlog: Backlog
    older: bool
    look_at: float = 0.0
    failing: str = ""


class Ticker:
    """The loop of the tick; `stop` ends it within one tick.

    `known` = Redis was checked before; a Redis that answers only later is checked then, which may end the worker.
    """

    def __init__(
        self,
        *,
        make_stores: Callable[[], Sequence[Store]],
        presence: WorkerPresence,
        dispatch: Dispatch,
        telemetry: Telemetry,
        fitness: Fitness,
        tick_s: float,
        known: bool,
        give_up: Callable[[], None],
    ) -> None:
        self._give_up = give_up
        self._make_stores = make_stores
        self._presence = presence
        self._dispatch = dispatch
        self._telemetry = telemetry
        self._fitness = fitness
        self._known = known
        self._tick_s = tick_s
        self._deleting: Future[None] | None = None
        self._delete_at = 0.0
        self._stopping = threading.Event()
        self._connected = threading.Event()
        self._opened = False
        self._thread = threading.Thread(target=self._main, name="batchling-tick", daemon=True)

    def start(self) -> None:
        """Start ticking on a thread of its own: the broker's reconnect loop must not hold it up."""
        self._thread.start()

    def connected(self) -> None:
        """Note that Celery reads the queue now."""
        self._connected.set()

    def stop(self) -> None:
        """Stop claiming."""
        self._stopping.set()

    def join(self) -> None:
        """Wait for the thread to end: it sends what it has claimed before the worker shuts down."""
        self._thread.join(JOIN_S)

    def _main(self) -> None:
        """Tick until `stop`; restart a loop that ends by itself, and in the end stop the whole worker.

        A worker that claims nothing and seals nothing must not look alive: its presence ends with the tick.
        """
        n_deaths = 0
        while not self._stopping.is_set():
            started = time.monotonic()
            try:
                asyncio.run(self._loop())
            except BaseException as error:
                n_deaths = n_deaths + 1 if time.monotonic() - started < STEADY_S else 1
                self._telemetry.warn("tick_died", error=type(error).__name__, n_deaths=n_deaths)
                logger.debug("tick_died", exc_info=True)
            if n_deaths >= DEATHS_ALLOWED:
                logger.critical("The tick of this worker cannot be kept alive: the worker stops.")
                self._give_up()
                return
            self._stopping.wait(PAUSE_S)

    async def _loop(self) -> None:
        still_at_forks(asyncio.get_running_loop())
        versions = [
            _Version(store=store, backlog=_backlog_of(store), older=i > 0)
            for i, store in enumerate(self._make_stores())
        ]
        away = False
        beat_at = 0.0
        connected_by = time.monotonic() + CONNECTING_S
        while not self._stopping.is_set():
            again = False
            try:
                if (away or not self._known) and not await self._fit(versions[0].store):
                    break
                if time.monotonic() >= beat_at and self._is_connected(connected_by):
                    beat_at = time.monotonic() + HEARTBEAT_S
                    for version in versions:
                        # A full or damaged list must not hold up batches.
                        with contextlib.suppress(ResponseError):
                            await version.store.announce(self._presence)
                for version in versions:
                    again = await self._tick(version) or again
                if away:
                    away = False
                    self._telemetry.log("store_back")
            except UNREACHABLE as error:
                if not away:
                    self._telemetry.warn("store_away", error=type(error).__name__)
                away = True
            if not again:
                await asyncio.sleep(self._tick_s * random.uniform(0.8, 1.2))  # noqa: S311 - jitter, not a secret
        with contextlib.suppress(*UNREACHABLE, ResponseError):
            for version in versions:
                await version.store.depart(self._presence)
                await version.store.redis.aclose()

    def _is_connected(self, by: float) -> bool:
        """Return whether Celery reads the queue, or `by` has passed.

        The first time, open the connection for messages too, so that the first batch need not wait for it.
        """
        if self._opened:
            return True
        if not self._connected.is_set() and time.monotonic() < by:
            return False
        self._opened = True
        self._dispatch.open()
        return True

    async def _tick(self, version: _Version) -> bool:
        """Run a tick of one wire version, if it is due; log a failure once, so that it holds up no other version.

        Return whether the next tick is due at once.
        """
        if time.monotonic() < version.look_at:
            return False
        try:
            is_full = await version.backlog.is_full()
            n_claimed, sealed = (0, False) if is_full else await self.once(version.store)
        except UNREACHABLE:
            raise
        except Exception as error:
            version.look_at = time.monotonic() + FAILED_TICK_S
            if version.failing != str(error):
                version.failing = str(error)
                wire_version = version.store.keys.version
                self._telemetry.warn("tick_failed", error=type(error).__name__, wire_version=wire_version)
                logger.debug("tick_failed", exc_info=True)
            return False
        version.failing = ""
        if not version.older:
            # A list of files that Redis refuses must not hold up batches.
            with contextlib.suppress(ResponseError):
                await self._delete_files(version.store)
        if version.older and not n_claimed:
            version.look_at = time.monotonic() + OLDER_TICK_S
        return sealed or n_claimed >= CLAIMS_A_TICK

    async def _delete_files(self, store: Store) -> None:
        """Claim files that batches no longer need, once a second, unless the last files are still being deleted."""
        if time.monotonic() < self._delete_at or (self._deleting is not None and not self._deleting.done()):
            return
        self._delete_at = time.monotonic() + DELETE_S
        members = await store.claim_spent()
        if members:
            self._deleting = self._dispatch.delete_files(members, store.keys.version)

    async def _fit(self, store: Store) -> bool:
        """Check Redis: after an outage it may be another one; warn about it, or refuse it if it was never checked."""
        refusal = await self._fitness.look(store)
        if refusal is None:
            self._known = True
            return True
        if self._known:
            self._telemetry.warn("redis_unsound", says=refusal)
            return True
        _say(refusal)
        self._stopping.set()
        # Celery's own way to end a worker with an exit code, in its main thread.
        celery_state: Any = state
        celery_state.should_stop = USAGE
        return False

    async def once(self, store: Store) -> tuple[int, bool]:
        """Run one tick of one wire version; return how many batches were claimed, and whether a batch was sealed."""
        claims = some = await store.claim_due(CLAIM_AT_ONCE)
        while len(some) == CLAIM_AT_ONCE and len(claims) < CLAIMS_A_TICK:
            some = await store.claim_due(CLAIM_AT_ONCE)
            claims = [*claims, *some]
        sealed = False
        rest = []
        for claim in claims:
            if claim.state is BatchState.OPEN:
                sealed = await self._seal(store, claim) or sealed
            elif not claim.token:
                self._telemetry.warn("batch_unreadable", batch_id=claim.batch_id)
            else:
                rest.append(claim)
        stuck = [claim for claim in rest if claim.n_missed > MISSED_BEFORE_INLINE]
        for claim in stuck:
            self._telemetry.warn("claim_stuck", batch_id=claim.batch_id, n_missed=claim.n_missed)
        inline = stuck + [claim for claim in rest if claim.state is None and claim not in stuck]
        self._send(inline, rest, store.keys.version)
        return len(claims), sealed

    async def _seal(self, store: Store, due: DueBatch) -> bool:
        """Seal a ripe batch; a record that makes Redis refuse must not hold up other batches."""
        try:
            return await seal(store, due, self._telemetry)
        except UNREACHABLE:
            raise
        except (ResponseError, ValueError) as error:
            self._telemetry.warn("step_failed", batch_id=due.batch_id, error=type(error).__name__)
            return False

    def _send(self, inline: Sequence[DueBatch], claims: Sequence[DueBatch], version: int) -> None:
        stuck = {claim.batch_id for claim in inline}
        self._dispatch.inline(inline, version)
        sent = [claim for claim in claims if claim.batch_id not in stuck]
        try:
            self._dispatch.send(sent, version)
        except Exception as error:  # noqa: BLE001 - whatever the broker lacks, claimed steps are to be run
            # A full Redis accepts no message. Messages that went out all the same find their token spent.
            self._telemetry.warn("messages_not_sent", n=len(sent), error=type(error).__name__)
            self._dispatch.inline(sent, version)


class TickStep(bootsteps.StartStopStep):
    """Runs the tick in each worker, beside its pool; stops before the pool drains."""

    requires = ("celery.worker.components:Pool",)
    make_ticker: Callable[[Any], Ticker]
    leave: Callable[[Any], None]

    def __init__(self, parent: Any, **kwargs: Any) -> None:
        super().__init__(parent, **kwargs)
        self.ticker: Ticker | None = None

    def start(self, parent: Any) -> None:
        try:
            self.ticker = type(self).make_ticker(parent)
        except UnfitWorker as error:
            _say(str(error))
            raise SystemExit(USAGE) from None
        worker_ready.connect(self._connected)
        self.ticker.start()

    def _connected(self, **_: Any) -> None:
        if self.ticker is not None:
            self.ticker.connected()

    def close(self, parent: Any) -> None:
        if self.ticker is not None:
            self.ticker.stop()
            self.ticker.join()
        type(self).leave(parent)


def _backlog_of(store: Store) -> Backlog:
    keys = store.keys
    return Backlog(store.redis, keys.namespace, keys.version, patience_s=store.terms.lease_ms / 1000)


def _say(sentence: str) -> None:
    """Print to the terminal itself: by now Celery has replaced stderr by its log."""
    stderr = sys.__stderr__ or sys.stderr
    stderr.write(f"{sentence}\n")
