"""One event loop a worker process, on a thread of its own: all steps of the process run on it, side by side."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import os
import threading
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from .engine import Engine
from .forking import still_at_forks

LEAVE_S: Final = 15.0
"""How long a leaving worker gives its running steps to hand back what they hold."""

T = TypeVar("T")


class Runtime:
    """Starts its loop on first use in each process, so that a forked pool child gets its own."""

    def __init__(self, make_engine: Callable[[int], Engine]) -> None:
        self._make_engine = make_engine
        self._starting = threading.Lock()
        self._pid = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._engines: dict[int, Engine] = {}
        """By wire version; touched on the loop only."""
        self._running: set[concurrent.futures.Future[None]] = set()

    def run(self, step: Callable[[Engine], Awaitable[None]], version: int) -> None:
        """Runs a step to its end; called from a Celery task, whose thread it blocks."""
        with contextlib.suppress(concurrent.futures.CancelledError):
            self.start(step, version).result()

    def start(
        self, step: Callable[[Engine], Awaitable[None]], version: int
    ) -> concurrent.futures.Future[None]:
        """Runs a step on a batch of that wire version without waiting for it."""
        loop = self._ready()

        async def stepping() -> None:
            engine = self._engines.get(version)
            if engine is None:
                engine = self._engines[version] = self._make_engine(version)
            await step(engine)

        future = asyncio.run_coroutine_threadsafe(stepping(), loop)
        self._running.add(future)
        future.add_done_callback(self._running.discard)
        return future

    def leave(self) -> None:
        """Ends every running step of this process: each hands its batch back to be taken up at once."""
        if self._pid != os.getpid():
            return
        running = list(self._running)
        for future in running:
            future.cancel()
        concurrent.futures.wait(running, timeout=LEAVE_S)

    def _ready(self) -> asyncio.AbstractEventLoop:
        with self._starting:
            if self._pid != os.getpid() or self._loop is None:
                self._pid = os.getpid()
                self._running = set()
                self._loop = asyncio.new_event_loop()
                still_at_forks(self._loop)
                threading.Thread(target=self._loop.run_forever, name="batchling-steps", daemon=True).start()
                self._engines = {}
            return self._loop
