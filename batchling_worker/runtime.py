"""One event loop a worker process, on a thread of its own: all steps of the process run on it, side by side."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import os
import threading
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from . import slot
from .engine import Engine

LEAVE_S: Final = 15.0
"""How long a leaving worker gives its running steps to hand back what they hold."""

T = TypeVar("T")


class Runtime:
    """Starts its loop on first use in each process, so that a forked pool child gets its own."""

    def __init__(self, make_engine: Callable[[], Engine]) -> None:
        self._make_engine = make_engine
        self._starting = threading.Lock()
        self._pid = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._engine: Engine | None = None
        self._running: set[concurrent.futures.Future[None]] = set()

    def run(self, step: Callable[[Engine], Awaitable[None]]) -> None:
        """Runs a step to its end, or until it lets its slot go; called from a Celery task, whose thread it blocks."""
        free = threading.Event()
        future = self.start(step, let_go=free.set)
        future.add_done_callback(lambda _: free.set())
        free.wait()
        if future.done():
            with contextlib.suppress(concurrent.futures.CancelledError):
                future.result()

    def start(
        self, step: Callable[[Engine], Awaitable[None]], *, let_go: Callable[[], None] = lambda: None
    ) -> concurrent.futures.Future[None]:
        """Runs a step without waiting for it."""
        loop, engine = self._ready()

        async def stepping() -> None:
            slot.take(let_go)
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

    def _ready(self) -> tuple[asyncio.AbstractEventLoop, Engine]:
        with self._starting:
            if self._pid != os.getpid() or self._loop is None or self._engine is None:
                self._pid = os.getpid()
                self._running = set()
                self._loop = asyncio.new_event_loop()
                threading.Thread(target=self._loop.run_forever, name="batchling-steps", daemon=True).start()
                self._engine = asyncio.run_coroutine_threadsafe(self._make(), self._loop).result()
            return self._loop, self._engine

    async def _make(self) -> Engine:
        return self._make_engine()
