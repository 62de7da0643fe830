"""Calls that are made on another event loop than their run's own: their requests wait on the background loop.

A loop may be closed at any moment, as libraries do that start one for each call. So nothing of ours lives on it but a
future of the call itself: no task, no connection, no file.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

from ..wire.deployment.cancellation import end
from . import background_loop

T = TypeVar("T")


class Relays:
    """The calls of one run that wait for the background loop; touched from any thread, one step of a dict at a time."""

    def __init__(self) -> None:
        self._waiting: dict[_Relay[Any], None] = {}

    async def wait(self, make: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run `make()` on the background loop and return its result to the running one; a cancel cancels it there.

        Raises `QueueUnreachable` where no background loop can be started.
        """
        relay = _Relay(background_loop.hold(), make, self._forget)
        # Before it begins: the background loop may have finished it before this thread runs again.
        self._waiting[relay] = None
        relay.begin()
        return await relay.result()

    def n_unreceived(self) -> int:
        """Return how many calls wait for loops that do not run, and so cannot receive an answer."""
        return sum(not relay.loop.is_running() for relay in list(self._waiting))

    def n_received(self) -> int:
        """Return how many calls wait for loops that run, begun on the background loop or not."""
        return sum(relay.loop.is_running() for relay in list(self._waiting))

    async def gone(self) -> None:
        """Cancel the calls of loops that are closed; return once their work on the running loop has ended."""
        tasks = [relay.task for relay in list(self._waiting) if relay.loop.is_closed()]
        await end([one for one in tasks if one is not None and one.get_loop() is asyncio.get_running_loop()])

    async def ended_here(self) -> None:
        """Return once the calls of the running loop have ended."""
        here = asyncio.get_running_loop()
        while waiting := [relay.ended for relay in list(self._waiting) if relay.loop is here]:
            await asyncio.wait(waiting)

    def waits_on(self, loop: asyncio.AbstractEventLoop) -> bool:
        """Say whether a call of that loop waits."""
        return any(relay.loop is loop for relay in list(self._waiting))

    def _forget(self, relay: _Relay[Any]) -> None:
        self._waiting.pop(relay, None)


class _Relay(Generic[T]):
    """One call between two loops; holds the bridge until its work there has ended."""

    def __init__(
        self,
        shared: background_loop.Bridge,
        make: Callable[[], Coroutine[Any, Any, T]],
        forget: Callable[[_Relay[Any]], None],
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.task: asyncio.Task[T] | None = None
        self._there = shared.loop
        self._make = make
        self._forget = forget
        self.ended: asyncio.Future[None] = self.loop.create_future()

    def begin(self) -> None:
        """Start the work; where the background loop takes none, the call is forgotten and the error raised."""
        try:
            self._there.call_soon_threadsafe(self._begin)
        except BaseException:
            self._forget(self)
            background_loop.let_go()
            raise

    async def result(self) -> T:
        """Return what the work returned; a cancelled caller is cancelled once the work has ended, too."""
        cancelled: asyncio.CancelledError | None = None
        try:
            while not self.ended.done():
                try:
                    # The future itself stays: a caller that was cancelled still has to wait for it.
                    await asyncio.shield(self.ended)
                except asyncio.CancelledError as error:
                    cancelled = error
                    self.cancel()
        finally:
            if not self.ended.done():
                self.cancel()
        if cancelled is not None:
            raise cancelled
        if self.task is None:
            raise RuntimeError("a relayed call ends after it has begun")
        return self.task.result()

    def cancel(self) -> None:
        """Cancel the work; takes no lock of ours, so that the garbage collector may call it in any thread."""
        with contextlib.suppress(RuntimeError):
            self._there.call_soon_threadsafe(self._cancel)

    def _begin(self) -> None:
        self.task = self._there.create_task(self._make())
        self.task.add_done_callback(self._end)

    def _cancel(self) -> None:
        if self.task is not None:
            self.task.cancel()

    def _end(self, task: asyncio.Task[T]) -> None:
        if not task.cancelled():
            # If the caller's loop is closed, nobody else retrieves it, and asyncio would warn.
            task.exception()
        self._forget(self)
        with contextlib.suppress(RuntimeError):
            self.loop.call_soon_threadsafe(self._wake)
        background_loop.let_go()

    def _wake(self) -> None:
        if not self.ended.done():
            self.ended.set_result(None)
