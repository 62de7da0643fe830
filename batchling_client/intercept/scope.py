"""Which run answers a call: the innermost open block around the code that makes it.

``async with`` covers a task and what it starts (a context variable); plain ``with`` covers every thread of
the process. Nothing here takes a lock: a fork at any moment leaves a child that can open blocks of its own.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import Context, ContextVar
from typing import Final

from .interceptor import Handler
from .open_block import OpenBlock
from .out_of_reach import FORKED, Beside, Foreign, Left
from .passed import Passed

BACKGROUND: Final = "batchling"
"""The name of the thread in which calls of blocking code wait."""

_task: ContextVar[OpenBlock | None] = ContextVar("batchling_block", default=None)
# The block in which a thread, a pool's work item or the code of a plain block was started.
_started_in: ContextVar[OpenBlock | None] = ContextVar("batchling_started_in", default=None)
# Append, remove and copy are atomic; read a copy only.
_process: list[OpenBlock] = []
# The open blocks of tasks, for threads and tasks that are in none of them; kept as the other list is.
_of_tasks: list[OpenBlock] = []
# Handles calls outside every block of this process; in a child process of a block, it warns about full price.
_around: list[Handler] = []


def enter_task(handler: Handler) -> OpenBlock:
    """Open a block for the current task and whatever it starts from now on."""
    block = OpenBlock(handler, _nearest_open(_task.get()))
    # In a process that opens blocks of its own, calls outside them are so on purpose.
    _around.clear()
    _task.set(block)
    _of_tasks.append(block)
    return block


def leave_task(token: OpenBlock) -> None:
    """Close a block for all who are in it, tasks that outlive it too; closing twice is harmless."""
    token.handler = token.loop = None
    with suppress(ValueError):
        _of_tasks.remove(token)
    # Out of order, or from another context, the variable must not be set: readers skip a closed block.
    if _task.get() is token:
        _task.set(_nearest_open(token.outer))


def is_within(context: Context, token: OpenBlock) -> bool:
    """Return whether code of that context is in the block, or in a block opened inside it."""
    block = context.get(_task)
    while block is not None and block is not token:
        block = block.outer
    return block is not None


def when_forgotten(token: OpenBlock, done: Callable[[], None]) -> None:
    """Call `done` once nothing that was started in a block holds it any more: no task, thread or callback."""
    weakref.finalize(token, done).atexit = False


def enter_process(handler: Handler) -> OpenBlock:
    """Open a block for every thread of this process, and return it."""
    _around.clear()
    block = OpenBlock(handler, _nearest_open(_task.get()))
    if block.loop is not None:
        # For tasks started here. The context of blocking code may live as long as the process.
        block.before = _started_in.get()
        _started_in.set(block)
    _process.append(block)
    return block


def leave_process(handler: Handler) -> OpenBlock | None:
    """Close the newest process-wide block of this handler and return it; without one nothing happens."""
    for block in reversed(_process.copy()):
        if block.handler is handler:
            block.handler = None
            _process.remove(block)
            _forget(block)
            return block
    return None


def _forget(block: OpenBlock) -> None:
    """Take the block off the chain of blocks that started this code; left in another context, change nothing."""
    newer = _started_in.get()
    if newer is block:
        _started_in.set(block.before)
        return
    while newer is not None:
        if newer.before is block:
            newer.before = block.before
        newer = newer.before


def starting_block() -> OpenBlock | None:
    """Return the block of a thread that is started here: an open block, else the ended block that started this code."""
    pid = os.getpid()
    block = _task.get()
    task = _nearest_open(block)
    if task is not None and task.is_outside:
        return _opened_in(task, pid)
    plain = next((one for one in reversed(_process.copy()) if one.pid == pid), None)
    found = plain or task or block or _started_in.get()
    return found if found is not None and found.pid == pid else None


def ended(passed: Passed) -> OpenBlock:
    """Return a block that has ended and whose calls are counted here."""
    block = OpenBlock(None, None)
    block.is_outside = False
    block.passed = passed
    return block


@contextmanager
def started_in(block: OpenBlock) -> Iterator[None]:
    """Run the body as code that was started in a block."""
    before = _started_in.set(block)
    try:
        yield
    finally:
        # A coroutine that is thrown away ends in a context that was never changed.
        with suppress(ValueError):
            _started_in.reset(before)


def surround(handler: Handler) -> None:
    """Ask this handler from now on about calls outside every block of this process."""
    _around[:] = [handler]


@contextmanager
def outside() -> Iterator[None]:
    """Take what the body does, and the tasks that it starts, out of every open block: its calls are not batched.

    Such calls go to their providers at full price, without a warning. Threads that the body starts are outside of a
    plain block only where they open `outside()` themselves, or are started with `asyncio.to_thread`.
    """
    before = _task.set(OpenBlock(None, None))
    try:
        yield
    finally:
        # A coroutine that is thrown away ends in a context that was never changed.
        with suppress(ValueError):
            _task.reset(before)


def current() -> Handler | None:
    """Return the handler of the innermost open block, or None; tens of nanoseconds where no block is open.

    Where none reaches though one should be expected to, what is returned warns of calls and lets them pass.
    """
    block = _task.get()
    if block is None and not _process and not _of_tasks:
        left = None if _started_in.get() is None else _left(os.getpid())
        return left or (_around[0] if _around else None)
    pid = os.getpid()
    if block is not None and block.is_outside:
        return _handler(_opened_in(block, pid))
    task = _nearest_open(block)
    if task is not None and task.is_outside:
        return _handler(_opened_in(task, pid)) or Left(block or task, _of_tasks)
    if task is not None and task.pid == pid and not _process:
        return task.handler
    if task is not None or _process:
        return _innermost(task, _process.copy(), pid)
    if block is not None and block.pid == pid:
        return Left(block, _of_tasks)
    return _left(pid) or _foreign(_of_tasks.copy(), pid) or Beside(_of_tasks, pid)


def _left(pid: int) -> Left | Foreign | None:
    """Return the ended block in which the code that runs here was started."""
    block = _started_in.get()
    if block is None or (block.handler is not None and block.pid == pid):
        return None
    return Left(block, _of_tasks) if block.pid == pid else Foreign(FORKED, block.passed)


def _foreign(blocks: list[OpenBlock], pid: int) -> Foreign | None:
    """Return the newest of blocks that are all those of the process from which this one was forked."""
    if not blocks or any(block.pid == pid for block in blocks):
        return None
    return Foreign(FORKED, blocks[-1].passed)


def _innermost(task: OpenBlock | None, process: list[OpenBlock], pid: int) -> Handler | None:
    # A task's own block takes precedence over process-wide blocks, unless they were opened inside it.
    own = [block for block in reversed(process) if block.pid == pid]
    if task is not None and task.pid == pid:
        return next((block.handler for block in own if block.outer is task), task.handler)
    if own:
        return own[0].handler
    inherited = task or (process[-1] if process else None)
    if inherited is None or inherited.handler is None:
        return None
    return Foreign(FORKED, inherited.passed)


def _opened_in(outside: OpenBlock, pid: int) -> OpenBlock | None:
    """Return the newest plain block that was opened inside an `outside()`."""
    found = (block for block in reversed(_process.copy()) if block.outer is outside)
    return next(found, None) if outside.pid == pid else None


def _handler(block: OpenBlock | None) -> Handler | None:
    return None if block is None else block.handler


def _nearest_open(block: OpenBlock | None) -> OpenBlock | None:
    while block is not None and block.handler is None and not block.is_outside:
        block = block.outer
    return block
