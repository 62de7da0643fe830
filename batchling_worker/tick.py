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
from dataclasses import dataclass
from typing import Any, Final

from celery import bootsteps
from redis.exceptions import ResponseError

from batchling_client.wire.connection import UNREACHABLE
from batchling_client.wire.records import WorkerPresence
from batchling_client.wire.scripts import Claim
from batchling_client.wire.states import BatchState

from .dispatch import Dispatch
from .errors import UnfitWorker
from .forking import still_at_forks
from .pipeline.seal import seal
from .store import Store
from .telemetry import Telemetry

logger = logging.getLogger("batchling.worker")

CLAIM_AT_ONCE: Final = 200
HEARTBEAT_S: Final = 5.0
FAILED_TICK_S: Final = 1.0
OLDER_TICK_S: Final = 0.5
"""How often an older wire version in which nothing is due is looked at."""
MISSED_BEFORE_INLINE: Final = 2
"""After this many claims that nobody began, messages are being lost: the tick's own process runs the step."""
JOIN_S: Final = 5.0
USAGE: Final = 2


@dataclass(slots=True, kw_only=True)
class _Version:
    """One wire version as the tick sees it."""

    store: Store
    older: bool
    look_at: float = 0.0
    failing: str = ""


class Ticker:
    """The loop of the tick; `stop` ends it within one tick."""

    def __init__(
        self,
        *,
        make_stores: Callable[[], Sequence[Store]],
        presence: WorkerPresence,
        dispatch: Dispatch,
        telemetry: Telemetry,
        tick_s: float,
    ) -> None:
        self._make_stores = make_stores
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
        """Waits for the thread to have ended."""
        self._thread.join(JOIN_S)

    def _main(self) -> None:
        asyncio.run(self._loop())

    async def _loop(self) -> None:
        still_at_forks(asyncio.get_running_loop())
        versions = [_Version(store=store, older=i > 0) for i, store in enumerate(self._make_stores())]
        away = False
        beat_at = 0.0
        while not self._stopping.is_set():
            again = False
            try:
                if time.monotonic() >= beat_at:
                    beat_at = time.monotonic() + HEARTBEAT_S
                    for version in versions:
                        # A list that is full or damaged keeps no batch waiting.
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

    async def _tick(self, version: _Version) -> bool:
        """A tick of one wire version, if it is time; one that fails is told once and holds up no other."""
        if time.monotonic() < version.look_at:
            return False
        try:
            n_claimed, sealed = await self.once(version.store)
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
        if version.older and not n_claimed:
            version.look_at = time.monotonic() + OLDER_TICK_S
        return sealed

    async def once(self, store: Store) -> tuple[int, bool]:
        """One tick of one wire version: how many batches were claimed, and whether one was sealed and so is due."""
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
        self._send(inline, rest, store.keys.version)
        return len(claims), sealed

    def _send(self, inline: Sequence[Claim], claims: Sequence[Claim], version: int) -> None:
        stuck = {claim.batch_id for claim in inline}
        self._dispatch.inline(inline, version)
        self._dispatch.send([claim for claim in claims if claim.batch_id not in stuck], version)


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
            sys.stderr.write(f"{error}\n")
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
