"""The thread of a worker's ticker, and the step of Celery's start and stop that runs it."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from typing import Any, Final, Protocol

from celery import bootsteps
from celery.signals import worker_ready

from ..errors import UnfitWorker
from ..log_lines import emit
from ..telemetry import Telemetry
from . import shutdown
from .ticker import Ticker
from .waking_pool import wake_at_ends

logger = logging.getLogger("batchling.worker")

JOIN_S: Final = 5.0
PAUSE_S: Final = 0.5
STEADY_S: Final = 60.0
"""A loop that lived this long starts a new count of deaths in a row."""
DEATHS_ALLOWED: Final = 3


class TickThread:
    """Ticks on a thread of its own: the broker's reconnect loop must not hold it up."""

    def __init__(self, ticker: Ticker, telemetry: Telemetry) -> None:
        self.ticker = ticker
        self._telemetry = telemetry
        self._thread = threading.Thread(target=self._main, name="batchling-tick", daemon=True)

    def start(self) -> None:
        """Start ticking."""
        self._thread.start()

    def stop(self) -> None:
        """Stop claiming, and wait for the thread to end: it sends what it has claimed before the worker shuts down."""
        self.ticker.stopping.set()
        self._thread.join(JOIN_S)

    def _main(self) -> None:
        """Tick until `stop`; restart a loop that ends by itself, and in the end stop the whole worker.

        A worker that claims nothing and seals nothing must not look alive: its presence ends with the tick.
        """
        n_deaths = 0
        while not self.ticker.stopping.is_set():
            started = time.monotonic()
            try:
                asyncio.run(self.ticker.run())
            except BaseException as error:
                n_deaths = n_deaths + 1 if time.monotonic() - started < STEADY_S else 1
                self._telemetry.warn("tick_died", error=type(error).__name__, n_deaths=n_deaths)
                logger.debug("tick_died", exc_info=True)
            if n_deaths >= DEATHS_ALLOWED:
                emit(logger, logging.CRITICAL, "worker_stops", {"n_deaths": n_deaths})
                shutdown.stop_worker(shutdown.FAILURE)
                return
            self.ticker.stopping.wait(PAUSE_S)


class Parts(Protocol):
    """What the step takes from the app of its worker, as `app.parts`."""

    def tick_thread(self, worker: Any) -> TickThread:
        """Return the thread of a worker's tick; raises `UnfitWorker`."""

    def leave(self, worker: Any) -> None:
        """Hand back every batch that the worker's processes hold."""


class TickStep(bootsteps.StartStopStep):
    """Runs the tick in each worker, beside its pool; stops before the pool drains."""

    requires = ("celery.worker.components:Pool",)

    def __init__(self, parent: Any, **kwargs: Any) -> None:
        super().__init__(parent, **kwargs)
        self._parts: Parts = parent.app.parts
        self._thread: TickThread | None = None

    def start(self, parent: Any) -> None:
        try:
            self._thread = self._parts.tick_thread(parent)
        except UnfitWorker as error:
            shutdown.say(str(error))
            raise SystemExit(shutdown.USAGE) from None
        wake_at_ends(parent)
        worker_ready.connect(self._connected)
        self._thread.start()

    def _connected(self, **_: Any) -> None:
        if self._thread is not None:
            self._thread.ticker.connected.set()

    def close(self, parent: Any) -> None:
        if self._thread is not None:
            self._thread.stop()
        self._parts.leave(parent)
