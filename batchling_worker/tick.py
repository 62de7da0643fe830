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
from typing import Any, Final

from celery import bootsteps
from redis.exceptions import OutOfMemoryError

from batchling_client.wire.connection import UNREACHABLE
from batchling_client.wire.records import WorkerPresence
from batchling_client.wire.scripts import Claim
from batchling_client.wire.states import BatchState

from .dispatch import Dispatch
from .errors import UnfitWorker
from .pipeline.seal import seal
from .store import Store
from .telemetry import Telemetry

logger = logging.getLogger("batchling.worker")

CLAIM_AT_ONCE: Final = 200
HEARTBEAT_S: Final = 5.0
MISSED_BEFORE_INLINE: Final = 2
"""After this many claims that nobody began, messages are being lost: the tick's own process runs the step."""
JOIN_S: Final = 5.0
PAUSE_S: Final = 0.5
STEADY_S: Final = 60.0
"""A loop that lived this long has not died in a row with the one before."""
DEATHS_ALLOWED: Final = 3
USAGE: Final = 2


class Ticker:
    """The loop of the tick; `stop` ends it within one tick."""

    def __init__(
        self,
        *,
        make_store: Callable[[], Store],
        presence: WorkerPresence,
        dispatch: Dispatch,
        telemetry: Telemetry,
        tick_s: float,
        give_up: Callable[[], None],
    ) -> None:
        self._give_up = give_up
        self._make_store = make_store
        self._presence = presence
        self._dispatch = dispatch
        self._telemetry = telemetry
        self._tick_s = tick_s
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._main, name="batchling-tick", daemon=True)

    def start(self) -> None:
        """Starts ticking on a thread of its own: the broker's reconnect loop must not hold it up."""
        self._thread.start()

    def stop(self) -> None:
        """Claims nothing more."""
        self._stopping.set()

    def join(self) -> None:
        """Waits for the thread to have ended: what it claims is sent before the worker leaves."""
        self._thread.join(JOIN_S)

    def _main(self) -> None:
        """Ticks until told to stop; a loop that ends by itself is begun again, and at last the whole worker ends.

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
        store = self._make_store()
        away = False
        beat_at = 0.0
        while not self._stopping.is_set():
            again = False
            try:
                if time.monotonic() >= beat_at:
                    beat_at = time.monotonic() + HEARTBEAT_S
                    with contextlib.suppress(OutOfMemoryError):
                        await store.announce(self._presence)
                again = await self.once(store)
                if away:
                    away = False
                    self._telemetry.log("store_back")
            except UNREACHABLE as error:
                if not away:
                    self._telemetry.warn("store_away", error=type(error).__name__)
                away = True
            except Exception as error:
                self._telemetry.warn("tick_failed", error=type(error).__name__)
                logger.debug("tick_failed", exc_info=True)
            if not again:
                await asyncio.sleep(self._tick_s * random.uniform(0.8, 1.2))  # noqa: S311 - jitter, not a secret
        with contextlib.suppress(*UNREACHABLE):
            await store.depart(self._presence)
            await store.redis.aclose()

    async def once(self, store: Store) -> bool:
        """One tick; True when a batch was sealed, which makes it due at once."""
        claims = await store.claim_due(CLAIM_AT_ONCE)
        sealed = False
        rest = []
        for claim in claims:
            if claim.state is BatchState.OPEN:
                sealed = await seal(store, claim, self._telemetry) or sealed
            else:
                rest.append(claim)
        inline = [claim for claim in rest if claim.n_missed > MISSED_BEFORE_INLINE]
        for claim in inline:
            self._telemetry.warn("claim_stuck", batch_id=claim.batch_id, n_missed=claim.n_missed)
        self._send(inline, rest)
        return sealed

    def _send(self, inline: Sequence[Claim], claims: Sequence[Claim]) -> None:
        stuck = {claim.batch_id for claim in inline}
        self._dispatch.inline(inline)
        self._dispatch.send([claim for claim in claims if claim.batch_id not in stuck])


class TickStep(bootsteps.StartStopStep):
    """Runs the tick in each worker, beside its pool; leaves before the pool drains."""

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
            sys.stderr.write(f"{error}\n")
            raise SystemExit(USAGE) from None
        self.ticker.start()

    def close(self, parent: Any) -> None:
        if self.ticker is not None:
            self.ticker.stop()
            self.ticker.join()
        type(self).leave(parent)
