"""Runs coroutines for blocking code: one background event loop per process, while it is needed."""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import contextlib
import os
import threading
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Final, TypeVar

from ..errors import QueueUnreachable
from ..intercept import green_threads, scope
from ..session.own_context import own_context
from ..wire.deployment.cancellation import carry_through
from ..wire.deployment.redis_errors import shortage_of

T = TypeVar("T")

SILENCE_S: Final = 2.0
"""A loop of another thread that has not turned for this long is blocked, and is not waited for."""
_LOOK_EVERY_S: Final = 0.1


START_S: Final = 10.0
"""How long the background thread may take to have an event loop."""


class Bridge:
    """A thread with an event loop; runs until it is stopped. Raises `QueueUnreachable` where it cannot begin."""

    def __init__(self) -> None:
        self._ready = threading.Event()
        self._failure: BaseException | None = None
        # The thread has a context of its own, so that its work is not traced as part of the span that started it.
        target = partial(own_context().run, self._serve)
        self._thread = green_threads.real_thread(target, scope.BACKGROUND)
        self._number = 0
        try:
            self._thread.start()
        except RuntimeError as error:
            raise _cannot_begin(error) from None
        if not self._wait_until_ready():
            raise _cannot_begin(TimeoutError(f"no event loop after {START_S:g} seconds"))
        if self._failure is not None:
            raise _cannot_begin(self._failure) from None

    @property
    def lives(self) -> bool:
        """Whether its thread still runs."""
        return self._thread.is_alive()

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        return self._loop

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the background loop and block the calling thread; Ctrl-C cancels the coroutine."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            if green_threads.replaced():
                green_threads.wait(future.done)
            return future.result()
        except concurrent.futures.CancelledError:
            # This is an Exception, which an SDK would take for a broken connection and retry.
            raise asyncio.CancelledError from None
        finally:
            future.cancel()

    def finish(self, make: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run what must be done to its end, as `carry_through` does; an interrupt of the calling thread comes after."""
        future = asyncio.run_coroutine_threadsafe(carry_through(make), self._loop)
        interrupted: KeyboardInterrupt | None = None
        while not future.done():
            try:
                if green_threads.replaced():
                    green_threads.wait(future.done)
                else:
                    concurrent.futures.wait([future])
            except KeyboardInterrupt as error:
                interrupted = error
        if interrupted is not None:
            raise interrupted
        return future.result()

    def stop(self) -> None:
        """End the loop and its thread, and cancel the tasks that still run there."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._stopped.set)
        self.join(None)

    def join(self, patience_s: float | None) -> None:
        """Return once the thread has ended, or at once in that thread itself."""
        if threading.get_native_id() != self._number:
            self._thread.join(patience_s)

    def _wait_until_ready(self) -> bool:
        if green_threads.replaced():
            green_threads.wait_at_standstill(self._ready.is_set, START_S)
            return self._ready.is_set()
        return self._ready.wait(START_S)

    def _serve(self) -> None:
        self._number = threading.get_native_id()
        waiting = self._wait()
        try:
            # Not asyncio.run, which nest_asyncio replaces by a function that leaves its loop open.
            with asyncio.Runner() as runner:
                runner.run(waiting)
        except BaseException as error:
            # Raised in the thread, it would only be printed, and the caller waiting for the loop would hang.
            self._failure = error
            if self._ready.is_set():
                raise
        finally:
            waiting.close()
            self._ready.set()

    async def _wait(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopped = asyncio.Event()
        self._ready.set()
        await self._stopped.wait()


def _cannot_begin(error: BaseException) -> QueueUnreachable:
    """Return the error for a process that has no thread, file or event loop left."""
    shortage = shortage_of(error)
    if shortage is not None:
        return QueueUnreachable(shortage)
    return QueueUnreachable(
        f"batchling cannot start the background thread that a plain block needs ({type(error).__name__}: {error}). "
        "Free threads or files, raise the limits of the process, or use `async with batchify()`."
    )


async def on(loop: asyncio.AbstractEventLoop, make: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a coroutine on another thread's event loop; return once it has ended, or that loop has stopped.

    It is made there: a loop that stops before it begins leaves none behind that nobody awaits.
    """
    here = asyncio.get_running_loop()
    ended = asyncio.Event()
    begun: list[asyncio.Task[None]] = []
    turned_at = here.time()

    def end(_: object) -> None:
        with contextlib.suppress(RuntimeError):
            here.call_soon_threadsafe(ended.set)

    def begin() -> None:
        begun.append(loop.create_task(make()))
        begun[0].add_done_callback(end)

    def turn() -> None:
        nonlocal turned_at
        turned_at = here.time()

    call_there: Callable[[], None] = begin
    while not ended.is_set() and loop.is_running() and here.time() - turned_at < SILENCE_S:
        # Its own thread may close it between the check and the call.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(call_there)
        call_there = turn
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LOOK_EVERY_S):
                await ended.wait()
    if ended.is_set() and not begun[0].cancelled():
        begun[0].result()


class Blocked:
    """The calls of one run for which threads wait in the bridge, so that these can be released together."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()
        self._released = False

    async def wait(self, work: Coroutine[Any, Any, T]) -> T:
        """Return the result of the work, or raise CancelledError once the threads are released."""
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a call waits in a task")
        # Before the check of `_released`: a release between the two must see the task.
        self._tasks.add(task)
        try:
            if self._released:
                work.close()
                raise asyncio.CancelledError
            return await work
        finally:
            self._tasks.discard(task)

    def release(self) -> None:
        """Make every waiting and later call raise CancelledError.

        Takes no lock, so that a signal handler may call it.
        """
        self._released = True
        for task in list(self._tasks):
            with contextlib.suppress(RuntimeError):
                task.get_loop().call_soon_threadsafe(task.cancel)

    async def gone(self) -> None:
        """Return once the released calls of the running loop have ended."""
        here = asyncio.get_running_loop()
        tasks = [task for task in self._tasks if task.get_loop() is here]
        if tasks and self._released:
            await asyncio.wait(tasks)


class _Shared:
    def __init__(self) -> None:
        self.renew()
        atexit.register(self.join)
        # A thread of the parent does not exist in a forked child, and may have held the lock.
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self.renew)

    def renew(self) -> None:
        self.lock = threading.Lock()
        self.bridge: Bridge | None = None
        self.ending: Bridge | None = None
        self.n_users = 0

    def join(self) -> None:
        """Wait at the end of the program for a loop that still withdraws requests."""
        if self.ending is not None:
            self.ending.join(SILENCE_S)


_shared: Final = _Shared()


def hold() -> Bridge:
    """Return this process's background loop for one more user; the first user starts it."""
    with _shared.lock:
        if _shared.bridge is None or not _shared.bridge.lives:
            _shared.bridge = Bridge()
        _shared.n_users += 1
        return _shared.bridge


def let_go() -> None:
    """Release the background loop for one user; the last user stops it."""
    with _shared.lock:
        if _shared.bridge is None:
            return
        _shared.n_users -= 1
        if _shared.n_users > 0:
            return
        bridge, _shared.bridge = _shared.bridge, None
        _shared.ending = bridge
    bridge.stop()
