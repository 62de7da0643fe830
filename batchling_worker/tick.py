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
from celery.worker import state

from batchling_client.wire.connection import UNREACHABLE
from batchling_client.wire.records import WorkerPresence
from batchling_client.wire.scripts import Claim
from batchling_client.wire.states import BatchState

from .dispatch import Dispatch
from .errors import UnfitWorker
from .fitness import Fitness
from .pipeline.seal import seal
from .store import Store
from .telemetry import Telemetry

logger = logging.getLogger("batchling.worker")

CLAIM_AT_ONCE: Final = 200
HEARTBEAT_S: Final = 5.0
MISSED_BEFORE_INLINE: Final = 2
"""After this many claims that nobody began, messages are being lost: the tick's own process runs the step."""
JOIN_S: Final = 5.0
USAGE: Final = 2


class Ticker:
    """The loop of the tick; `stop` ends it within one tick.

    `known` = Redis was looked at before; one that comes later is looked at then, and may end the worker.
    """

    def __init__(
        self,
        *,
        make_store: Callable[[], Store],
        presence: WorkerPresence,
        dispatch: Dispatch,
        telemetry: Telemetry,
        fitness: Fitness,
        tick_s: float,
        known: bool,
    ) -> None:
        self._make_store = make_store
        self._presence = presence
        self._dispatch = dispatch
        self._telemetry = telemetry
        self._fitness = fitness
        self._known = known
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
        """Waits for the thread to have ended."""
        self._thread.join(JOIN_S)

    def _main(self) -> None:
        asyncio.run(self._loop())

    async def _loop(self) -> None:
        store = self._make_store()
        away = False
        beat_at = 0.0
        while not self._stopping.is_set():
            again = False
            try:
                if (away or not self._known) and not await self._fit(store):
                    break
                if time.monotonic() >= beat_at:
                    beat_at = time.monotonic() + HEARTBEAT_S
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

    async def _fit(self, store: Store) -> bool:
        """After an outage it may be another Redis: what it is, is told; one never seen before may be refused."""
        refusal = await self._fitness.look(store)
        if refusal is None:
            self._known = True
            return True
        if self._known:
            self._telemetry.warn("redis_unsound", says=refusal)
            return True
        _say(refusal)
        # Celery's own way to end a worker with an exit code, in its main thread.
        celery_state: Any = state
        celery_state.should_stop = USAGE
        return False

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
        sent = [claim for claim in claims if claim.batch_id not in stuck]
        try:
            self._dispatch.send(sent)
        except Exception as error:  # noqa: BLE001 - whatever ails the broker, what is claimed is to be done
            # A full Redis takes no message. Those that went out all the same find their token spent.
            self._telemetry.warn("messages_not_sent", n=len(sent), error=type(error).__name__)
            self._dispatch.inline(sent)


class TickStep(bootsteps.StartStopStep):
    """Runs the tick in each worker, beside its pool; leaves before the pool drains."""

    requires = ("celery.worker.components:Pool",)
    make_ticker: Callable[[Any], Ticker]
    leave: Callable[[], None]

    def __init__(self, parent: Any, **kwargs: Any) -> None:
        super().__init__(parent, **kwargs)
        self.ticker: Ticker | None = None

    def start(self, parent: Any) -> None:
        try:
            self.ticker = type(self).make_ticker(parent)
        except UnfitWorker as error:
            _say(str(error))
            raise SystemExit(USAGE) from None
        self.ticker.start()

    def close(self, parent: Any) -> None:
        if self.ticker is not None:
            self.ticker.stop()
        type(self).leave()

    def stop(self, parent: Any) -> None:
        if self.ticker is not None:
            self.ticker.join()

    terminate = stop


def _say(sentence: str) -> None:
    """To the terminal itself: by now Celery has put its log in the place of stderr."""
    stderr = sys.__stderr__ or sys.stderr
    stderr.write(f"{sentence}\n")
