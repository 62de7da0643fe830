"""Ends tasks that talk to Redis."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Any, Final

AGAIN_AFTER_S: Final = 0.05


async def end(tasks: Collection[asyncio.Task[Any]]) -> None:
    """Cancels tasks until each has ended; what they raised on the way out is nobody's any more.

    One cancellation is not enough: `asyncio.wait_for` of Python 3.11, on which redis-py sends, forgets one that
    arrives together with the result (python/cpython#86296), and redis-py answers one with a ConnectionError.
    Cancelled itself, it ends the tasks first: a loop at its end cancels everything at once.
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
