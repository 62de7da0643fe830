"""Ends tasks that talk to Redis, and carries through what must be done when something ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Coroutine
from typing import Any, Final, TypeVar

T = TypeVar("T")

AGAIN_AFTER_S: Final = 0.05
BROKEN_OFF_S: Final = 15.0
"""How long `carry_through` begins again what is broken off again and again."""


async def end(tasks: Collection[asyncio.Task[Any]]) -> None:
    """Cancel tasks until each has ended, and discard what they raise.

    One cancellation is not enough: `asyncio.wait_for` of Python 3.11, which redis-py uses to send, loses a cancellation
    that arrives together with the result (python/cpython#86296), and redis-py turns others into a ConnectionError.
    If it is cancelled itself, it ends the tasks first: a closing event loop cancels everything at once.
    """
    cancelled: asyncio.CancelledError | None = None
    pending = {task for task in tasks if not task.done()}
    while pending:
        for task in pending:
            task.cancel()
        try:
            _, pending = await asyncio.wait(pending, timeout=AGAIN_AFTER_S)
        except asyncio.CancelledError as error:
            cancelled = error
            pending = {task for task in pending if not task.done()}
    for task in tasks:
        if not task.cancelled():
            task.exception()
    if cancelled is not None:
        raise cancelled


def is_cancelled() -> bool:
    """Return whether the running task was cancelled; redis-py may turn a cancellation into a ConnectionError."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


async def carry_through(make: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run `make()` to its end, however often the caller is cancelled meanwhile, and only then let it be cancelled.

    `make` must return a coroutine that may be broken off at any await and begun again. It runs in a task of its own,
    which cancel scopes of anyio, that cancel at each await again, do not reach. An event loop that is closing cancels
    that task too, and a second Ctrl-C may end either task at any line: a third task between the two begins again what
    was broken off.
    """
    cancelled: list[asyncio.CancelledError] = []
    result = await _to_the_end(lambda: _to_the_end(make, []), cancelled)
    if cancelled:
        raise cancelled[-1]
    return result


async def _to_the_end(
    make: Callable[[], Coroutine[Any, Any, T]], cancelled: list[asyncio.CancelledError]
) -> T:
    loop = asyncio.get_running_loop()
    give_up_at = loop.time() + BROKEN_OFF_S
    while True:
        task = loop.create_task(make())
        while not task.done():
            try:
                await asyncio.wait([task])
            except asyncio.CancelledError as error:
                # Only the last one: a cancel scope of anyio sends a cancellation on each turn of the loop.
                cancelled[:] = [error]
        if not _was_broken_off(task) or loop.time() > give_up_at:
            return task.result()


def _was_broken_off(task: asyncio.Task[Any]) -> bool:
    return task.cancelled() or isinstance(task.exception(), (KeyboardInterrupt, SystemExit))
