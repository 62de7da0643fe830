"""The loop of a worker that ticks each wire version, announces the worker and checks Redis after an outage."""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

from redis.exceptions import ResponseError

from batchling_client.wire.deployment import redis_errors
from batchling_client.wire.deployment.connection import UNREACHABLE

from ..telemetry import Telemetry
from . import shutdown
from .dispatch import Dispatch
from .fork_safety import still_at_forks
from .presence import Presence
from .redis_health import Fitness
from .tick import Tick

HEARTBEAT_S: Final = 5.0
CONNECTING_S: Final = 5.0
"""How long the first heartbeat waits for Celery's own connections; requests need not wait for them."""


class Ticker:
    """The loop; `stopping` ends it within one tick, `connected` = Celery reads the queue."""

    def __init__(
        self,
        *,
        make_ticks: Callable[[], Sequence[Tick]],
        presence: Presence,
        dispatch: Dispatch,
        telemetry: Telemetry,
        fitness: Fitness,
        tick_s: float,
    ) -> None:
        self.stopping = threading.Event()
        self.connected = threading.Event()
        self._make_ticks = make_ticks
        self._presence = presence
        self._dispatch = dispatch
        self._telemetry = telemetry
        self._fitness = fitness
        self._tick_s = tick_s
        self._opened = False

    async def run(self) -> None:
        """Tick until `stopping`; a Redis that was never checked and is unfit ends the worker."""
        still_at_forks(asyncio.get_running_loop())
        ticks = self._make_ticks()
        away = False
        beat_at = 0.0
        connected_by = time.monotonic() + CONNECTING_S
        while not self.stopping.is_set():
            again = False
            try:
                if away or not self._fitness.known:
                    refusal = await self._fitness.look_again(ticks[0].store)
                    if refusal is not None:
                        self.stopping.set()
                        shutdown.refuse(refusal)
                        break
                if time.monotonic() >= beat_at and self._is_connected(connected_by):
                    beat_at = time.monotonic() + HEARTBEAT_S
                    await self._announce(ticks)
                for tick in ticks:
                    again = await tick.run() or again
                if away:
                    away = False
                    self._telemetry.log("store_back")
            except UNREACHABLE as error:
                if not away:
                    said = redis_errors.mistake_of(error)
                    says = "" if said is None else f"Redis {said}."
                    self._telemetry.warn("store_away", error=type(error).__name__, says=says)
                away = True
            if not again:
                await asyncio.sleep(self._tick_s * random.uniform(0.8, 1.2))  # noqa: S311 - jitter, not a secret
        with contextlib.suppress(*UNREACHABLE, ResponseError):
            for tick in ticks:
                await tick.store.depart(self._presence.last)
                await tick.store.redis.aclose()

    async def _announce(self, ticks: Sequence[Tick]) -> None:
        presence = self._presence.now()
        for tick in ticks:
            # A full or damaged list must not hold up batches.
            with contextlib.suppress(ResponseError):
                await tick.store.announce(presence)

    def _is_connected(self, by: float) -> bool:
        """Return whether Celery reads the queue, or `by` has passed.

        The first time, open the connection for messages too, so that the first batch need not wait for it.
        """
        if self._opened:
            return True
        if not self.connected.is_set() and time.monotonic() < by:
            return False
        self._opened = True
        self._dispatch.open()
        return True
