"""Which run answers a call: the innermost open block around the code that makes it.

``async with`` covers a task and what it starts (a context variable); plain ``with`` covers every thread of
the process. Nothing here takes a lock: a fork at any moment leaves a child that can open blocks of its own.
"""

import asyncio
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Final, final

from .interceptor import PASS_THROUGH, Handler, HttpCall, PassThrough, warn_once

_FORKED: Final = (
    "This process was forked inside a batchify block, which does not reach into it: its calls go straight "
    "to the provider at full price. Open a batchify block of its own in the child process."
)
_UNREACHED: Final = (
    "A call that could be batched is made in a thread that no batchify block reaches, though one is open: it goes "
    "straight to the provider at full price. A pool's threads, those of run_in_executor too, know nothing of the task "
    "that asks them: use asyncio.to_thread, or a plain `with batchify():`, which reaches into every thread."
)


@final
class Token:
    """One open block; its handler is None once it is closed, wherever it is still referred to."""

    __slots__ = ("handler", "outer", "pid")

    def __init__(self, handler: Handler | None, outer: "Token | None") -> None:
        self.handler = handler
        self.outer = outer
        self.pid = os.getpid()


_OUTSIDE: Final = Token(None, None)
"""In the place of a block: none is open here."""

_task: ContextVar[Token | None] = ContextVar("batchling_block", default=None)
# Appended to, removed from and copied, each one atomic; read through a copy.
_process: list[Token] = []
# The open blocks of tasks, for threads that are in none of them; kept as the other list is.
_of_tasks: list[Token] = []


def enter_task(handler: Handler) -> Token:
    """Open a block for the current task and whatever it starts from now on."""
    block = Token(handler, _nearest_open(_task.get()))
    _task.set(block)
    _of_tasks.append(block)
    return block


def leave_task(token: Token) -> None:
    """Close a block for all who are in it, tasks that outlive it too; closing twice is harmless."""
    token.handler = None
    with suppress(ValueError):
        _of_tasks.remove(token)
    # Out of order, or from another context, the variable is not ours to set: a closed block is skipped.
    if _task.get() is token:
        _task.set(token.outer)


def enter_process(handler: Handler) -> None:
    """Open a block for every thread of this process."""
    _process.append(Token(handler, _nearest_open(_task.get())))


def leave_process(handler: Handler) -> None:
    """Close the newest process-wide block of this handler; without one nothing happens."""
    for block in reversed(_process.copy()):
        if block.handler is handler:
            block.handler = None
            _process.remove(block)
            return


@contextmanager
def outside() -> Iterator[None]:
    """No block is open for what the body does: a call that was let pass is not asked about again further down."""
    before = _task.set(_OUTSIDE)
    try:
        yield
    finally:
        # A coroutine that is thrown away ends in a context that was never changed.
        with suppress(ValueError):
            _task.reset(before)


def running_loop() -> asyncio.AbstractEventLoop | None:
    """Return the event loop that runs in this thread, or None where none of asyncio's does."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def current() -> Handler | None:
    """Return the handler of the innermost open block, or None; tens of nanoseconds where no block is open.

    Where none reaches though one should be expected to, what is returned warns of calls and lets them pass.
    """
    block = _task.get()
    if block is None and not _process and not _of_tasks:
        return None
    if block is _OUTSIDE:
        return None
    task = _nearest_open(block)
    pid = os.getpid()
    if task is None and not _process:
        return _beside(pid)
    if task is not None and task.pid == pid and not _process:
        return task.handler
    return _innermost(task, _process.copy(), pid)


def _beside(pid: int) -> Handler | None:
    # A task outside of the blocks beside it is so on purpose; a thread of a pool is mostly asked by a task in one.
    if not _of_tasks or running_loop() is not None:
        return None
    handlers = [
        handler for block in _of_tasks.copy() if block.pid == pid and (handler := block.handler) is not None
    ]
    return _OutOfReach(handlers, _UNREACHED) if handlers else None


def _innermost(task: Token | None, process: list[Token], pid: int) -> Handler | None:
    # A task's own block wins over the process-wide ones, except over one that was opened inside it.
    own = [block for block in reversed(process) if block.pid == pid]
    if task is not None and task.pid == pid:
        return next((block.handler for block in own if block.outer is task), task.handler)
    if own:
        return own[0].handler
    inherited = task or (process[-1] if process else None)
    if inherited is None or inherited.handler is None:
        return None
    return _OutOfReach([inherited.handler], _FORKED)


def _nearest_open(block: Token | None) -> Token | None:
    while block is not None and block.handler is None:
        block = block.outer
    return block


class _OutOfReach:
    """Stands where blocks do not reach: says so once of what one would take, and lets every call pass."""

    def __init__(self, handlers: Sequence[Handler], sentence: str) -> None:
        self._handlers = handlers
        self._sentence = sentence

    def wants(self, method: str, host: str, path: str) -> bool:
        if any(handler.wants(method, host, path) for handler in self._handlers):
            warn_once(self._sentence, os.getpid())
        return False

    async def answer(self, call: HttpCall) -> PassThrough:
        return PASS_THROUGH

    def answer_blocking(self, call: HttpCall) -> PassThrough:
        return PASS_THROUGH
