"""One open block, as its calls find it, and the event loop of the code that opens it."""

from __future__ import annotations

import asyncio
import os
from concurrent.futures import Future
from typing import Any, final

from . import green_threads
from .interceptor import Handler


@final
class OpenBlock:
    """One open block; its handler is None once it is closed, wherever it is still referred to."""

    __slots__ = ("__weakref__", "before", "handler", "is_outside", "items", "loop", "outer", "passed", "pid")

    def __init__(self, handler: Handler | None, outer: OpenBlock | None) -> None:
        self.handler = handler
        self.outer = outer
        # A token without a handler from the start: blocks around it do not apply to calls inside it.
        self.is_outside = handler is None
        self.pid = os.getpid()
        self.loop = None if handler is None else running_loop()
        # Kept when the block is closed: tasks that outlive it are still counted.
        self.passed = None if handler is None else handler.passed
        # For plain blocks only: the block in which this one was opened, and the work that pools have not done yet.
        self.before: OpenBlock | None = None
        self.items: set[Future[Any]] = set()


def running_loop() -> asyncio.AbstractEventLoop | None:
    """Return the event loop that runs in this thread, or None where none of asyncio's does."""
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        return None
    # asyncio does not tell the green threads of one real thread apart; a loop remembers which of them runs it.
    return loop if not green_threads.replaced() or green_threads.is_run_here(loop) else None
