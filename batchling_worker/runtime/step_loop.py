"""One event loop per worker process, on a thread of its own: all steps of the process run on it, side by side."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import logging
import os
import threading
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from ..engine import pool_slot
from ..engine.engine import Engine
from ..log_lines import emit
from .fork_safety import still_at_forks

logger = logging.getLogger("batchling.worker")

LEAVE_S: Final = 15.0
"""How long a worker that shuts down gives its running steps to hand their batches back."""

T = TypeVar("T")


class Runtime:
    """Starts its loop on first use in each process, so that a forked pool child gets its own."""

    def __init__(self, make_engine: Callable[[int], Engine]) -> None:
        self._make_engine = make_engine
        self._starting = threading.Lock()
        self._pid = 0
        self._left_pid = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._engines: dict[int, Engine] = {}
        """By wire version; touched on the loop only."""
        self._running: set[concurrent.futures.Future[None]] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    def run(self, step: Callable[[Engine], Awaitable[None]], version: int) -> None:
        """Run a step to its end, or until it frees its slot; blocks the thread of the calling Celery task."""
        free = threading.Event()
        future = self.start(step, version, let_go=free.set)
        future.add_done_callback(lambda _: free.set())
        free.wait()
        if future.done():
            with contextlib.suppress(concurrent.futures.CancelledError):
                future.result()

    def start(
        self,
        step: Callable[[Engine], Awaitable[None]],
        version: int,
        *,
        let_go: Callable[[], None] = lambda: None,
    ) -> concurrent.futures.Future[None]:
        """Start a step on a batch of that wire version without waiting for it."""
        loop = self._ready()

        async def stepping() -> None:
            pool_slot.take(let_go)
            task = asyncio.current_task()
            if task is not None:
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            engine = self._engines.get(version)
            if engine is None:
                engine = self._engines[version] = self._make_engine(version)
                if self._left_pid == self._pid:
                    engine.leave()
            await step(engine)

        future = asyncio.run_coroutine_threadsafe(stepping(), loop)
        self._running.add(future)
        future.add_done_callback(self._running.discard)
        if self._loop is not loop:
            # The loop died in between and would never run it.
            future.cancel()
        return future

    def hand_back(self) -> None:
        """Make every step of this process hand its batch back, later ones too; safe in a signal handler."""
        self._left_pid = os.getpid()
        if self._pid == self._left_pid and self._loop is not None:
            self._loop.call_soon_threadsafe(self._end_steps)

    def leave(self) -> None:
        """Hand every batch back, due at once, and wait until that is done."""
        self.hand_back()
        if self._pid == os.getpid():
            concurrent.futures.wait(list(self._running), timeout=LEAVE_S)

    def born(self) -> None:
        """Drop what a forked pool child has from its parent: another thread may have held the lock at the fork."""
        self._starting = threading.Lock()

    def _end_steps(self) -> None:
        for engine in self._engines.values():
            engine.leave()
        for task in list(self._tasks):
            task.cancel()

    def _ready(self) -> asyncio.AbstractEventLoop:
        with self._starting:
            if self._pid != os.getpid() or self._loop is None:
                self._running, self._tasks, self._engines = set(), set(), {}
                loop = asyncio.new_event_loop()
                still_at_forks(loop)
                threading.Thread(
                    target=self._turn, args=(loop, self._running), name="batchling-steps", daemon=True
                ).start()
                self._loop = loop
                self._pid = os.getpid()
            return self._loop

    def _turn(self, loop: asyncio.AbstractEventLoop, running: set[concurrent.futures.Future[None]]) -> None:
        """Run the loop for ever; if it ends all the same, cancel its steps, and let the next step make a new loop."""
        try:
            loop.run_forever()
        except BaseException as error:  # noqa: BLE001 - a thread that ends silently would block its pool for ever
            emit(logger, logging.ERROR, "steps_died", {"error": type(error).__name__})
        with self._starting:
            if self._loop is loop:
                self._loop = None
        for future in list(running):
            future.cancel()
