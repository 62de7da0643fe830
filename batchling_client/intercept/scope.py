"""Which run answers a call: the innermost open block around the code that makes it.

``async with`` covers a task and what it starts (a context variable); plain ``with`` covers every thread of
the process. Nothing here takes a lock: a fork at any moment leaves a child that can open blocks of its own.
"""

import asyncio
import os
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from contextvars import Context, ContextVar
from typing import Any, Final, Protocol, final

from . import green_threads
from .interceptor import PASS_THROUGH, Handler, HttpCall, PassThrough, warn_once
from .passed import Passed, Why, costs

_FORKED: Final = (
    "This process was forked inside a batchify block, which does not reach into it: its calls go straight "
    "to the provider at full price. Open a batchify block of its own in the child process."
)
_THREAD: Final = (
    "A call to {} was made in a thread outside the open batchify block and sent at full price. Thread pools and "
    "run_in_executor do not inherit the block: use asyncio.to_thread, or open the block with plain `with batchify():`."
)
_OTHER_LOOP: Final = (
    "A call to {} was made on an event loop of another thread, outside the open batchify block, and sent at full "
    "price. Open the block on that loop, or with plain `with batchify():`, which covers every thread."
)
_OTHER_TASK: Final = (
    "A call to {} was made in a task outside the open batchify block and sent at full price. `async with batchify()` "
    "covers the task that enters it and the tasks that are started inside it: start workers, request handlers and "
    "TaskGroups inside the block, do not enter it in wait_for or in another notebook cell, or open it with plain "
    "`with batchify():`."
)
_LEFT: Final = (
    "A call to {} was made in a task whose batchify block had ended before and sent at full price. Await such tasks "
    "inside the block: open a TaskGroup inside it, not around it."
)


_LEFT_BY_THREAD: Final = (
    "A call to {} was made after its batchify block had ended, by a thread, a pool or an exit handler that was started "
    "inside the block, and sent at full price. Join such threads, and shut their pool down, inside the block."
)


@final
class Token:
    """One open block; its handler is None once it is closed, wherever it is still referred to."""

    __slots__ = ("__weakref__", "before", "handler", "is_outside", "items", "loop", "outer", "passed", "pid")

    def __init__(self, handler: Handler | None, outer: "Token | None") -> None:
        self.handler = handler
        self.outer = outer
        # A token without a handler from the start: blocks around it do not apply to calls inside it.
        self.is_outside = handler is None
        self.pid = os.getpid()
        self.loop = None if handler is None else running_loop()
        # Kept when the block is closed: tasks that outlive it are still counted.
        self.passed = None if handler is None else handler.passed
        # For plain blocks only: the block in which this one was opened, and the work that pools have not done yet.
        self.before: Token | None = None
        self.items: set[Future[Any]] = set()


def running_loop() -> asyncio.AbstractEventLoop | None:
    """Return the event loop that runs in this thread, or None where none of asyncio's does."""
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        return None
    # asyncio does not tell the green threads of one real thread apart; a loop remembers which of them runs it.
    return loop if not green_threads.replaced() or green_threads.is_run_here(loop) else None


BACKGROUND: Final = "batchling"
"""The name of the thread in which calls of blocking code wait."""

_task: ContextVar[Token | None] = ContextVar("batchling_block", default=None)
# The block in which a thread, a pool's work item or the code of a plain block was started.
_started_in: ContextVar[Token | None] = ContextVar("batchling_started_in", default=None)
# Append, remove and copy are atomic; read a copy only.
_process: list[Token] = []
# The open blocks of tasks, for threads and tasks that are in none of them; kept as the other list is.
_of_tasks: list[Token] = []
# Handles calls outside every block of this process; in a child process of a block, it warns about full price.
_around: list[Handler] = []


def enter_task(handler: Handler) -> Token:
    """Open a block for the current task and whatever it starts from now on."""
    block = Token(handler, _nearest_open(_task.get()))
    # In a process that opens blocks of its own, calls outside them are so on purpose.
    _around.clear()
    _task.set(block)
    _of_tasks.append(block)
    return block


def leave_task(token: Token) -> None:
    """Close a block for all who are in it, tasks that outlive it too; closing twice is harmless."""
    token.handler = token.loop = None
    with suppress(ValueError):
        _of_tasks.remove(token)
    # Out of order, or from another context, the variable must not be set: readers skip a closed block.
    if _task.get() is token:
        _task.set(_nearest_open(token.outer))


def is_within(context: Context, token: Token) -> bool:
    """Return whether code of that context is in the block, or in a block opened inside it."""
    block = context.get(_task)
    while block is not None and block is not token:
        block = block.outer
    return block is not None


def when_forgotten(token: Token, done: Callable[[], None]) -> None:
    """Call `done` once nothing that was started in a block holds it any more: no task, thread or callback."""
    weakref.finalize(token, done).atexit = False


def enter_process(handler: Handler) -> Token:
    """Open a block for every thread of this process, and return it."""
    _around.clear()
    block = Token(handler, _nearest_open(_task.get()))
    if block.loop is not None:
        # For tasks started here. The context of blocking code may live as long as the process.
        block.before = _started_in.get()
        _started_in.set(block)
    _process.append(block)
    return block


def leave_process(handler: Handler) -> Token | None:
    """Close the newest process-wide block of this handler and return it; without one nothing happens."""
    for block in reversed(_process.copy()):
        if block.handler is handler:
            block.handler = None
            _process.remove(block)
            _forget(block)
            return block
    return None


def _forget(block: Token) -> None:
    """Take the block off the chain of blocks that started this code; left in another context, change nothing."""
    newer = _started_in.get()
    if newer is block:
        _started_in.set(block.before)
        return
    while newer is not None:
        if newer.before is block:
            newer.before = block.before
        newer = newer.before


def starting_block() -> Token | None:
    """Return the block of a thread that is started here: an open block, else the ended block that started this code."""
    pid = os.getpid()
    block = _task.get()
    task = _nearest_open(block)
    if task is not None and task.is_outside:
        return _opened_in(task, pid)
    plain = next((one for one in reversed(_process.copy()) if one.pid == pid), None)
    found = plain or task or block or _started_in.get()
    return found if found is not None and found.pid == pid else None


def ended(passed: Passed) -> Token:
    """Return a block that has ended and whose calls are counted here."""
    block = Token(None, None)
    block.is_outside = False
    block.passed = passed
    return block


@contextmanager
def started_in(block: Token) -> Iterator[None]:
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
    before = _task.set(Token(None, None))
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
        return _handler(_opened_in(task, pid)) or _Left(block or task)
    if task is not None and task.pid == pid and not _process:
        return task.handler
    if task is not None or _process:
        return _innermost(task, _process.copy(), pid)
    if block is not None and block.pid == pid:
        return _Left(block)
    return _left(pid) or _foreign(_of_tasks.copy(), pid) or _Beside(pid)


def _left(pid: int) -> "_Left | Foreign | None":
    """Return the ended block in which the code that runs here was started."""
    block = _started_in.get()
    if block is None or (block.handler is not None and block.pid == pid):
        return None
    return _Left(block) if block.pid == pid else Foreign(_FORKED, block.passed)


def _foreign(blocks: list[Token], pid: int) -> "Foreign | None":
    """Return the newest of blocks that are all those of the process from which this one was forked."""
    if not blocks or any(block.pid == pid for block in blocks):
        return None
    return Foreign(_FORKED, blocks[-1].passed)


def _innermost(task: Token | None, process: list[Token], pid: int) -> Handler | None:
    # A task's own block takes precedence over process-wide blocks, unless they were opened inside it.
    own = [block for block in reversed(process) if block.pid == pid]
    if task is not None and task.pid == pid:
        return next((block.handler for block in own if block.outer is task), task.handler)
    if own:
        return own[0].handler
    inherited = task or (process[-1] if process else None)
    if inherited is None or inherited.handler is None:
        return None
    return Foreign(_FORKED, inherited.passed)


def _opened_in(outside: Token, pid: int) -> Token | None:
    """Return the newest plain block that was opened inside an `outside()`."""
    found = (block for block in reversed(_process.copy()) if block.outer is outside)
    return next(found, None) if outside.pid == pid else None


def _handler(block: Token | None) -> Handler | None:
    return None if block is None else block.handler


def _nearest_open(block: Token | None) -> Token | None:
    while block is not None and block.handler is None and not block.is_outside:
        block = block.outer
    return block


class _OutOfReach:
    """In the place of a block that does not reach: takes note of calls, and lets every one pass."""

    def wants(self, method: str, host: str, path: str) -> bool:
        return False

    async def answer(self, call: HttpCall) -> PassThrough:
        return PASS_THROUGH

    def answer_blocking(self, call: HttpCall) -> PassThrough:
        return PASS_THROUGH


class Foreign(_OutOfReach):
    """The block of another process, which counts for itself: one warning for this process, whatever passes."""

    def __init__(
        self, sentence: str, judge: Passed | None = None, note: Callable[[str], None] | None = None
    ) -> None:
        self.passed: Passed | None = None
        self._sentence = sentence
        self._costs = costs_of(judge)
        self._note = judge.note_of_child if judge is not None else note

    def passes(self, method: str, host: str, path: str) -> bool:
        if not self._costs(method, host, path):
            return False
        warn_once(self._sentence, os.getpid())
        if self._note is not None:
            self._note(host)
        return True


class _Left(_OutOfReach):
    """A block that has ended, for the tasks and threads that outlive it."""

    def __init__(self, block: Token) -> None:
        self._block = block
        self.passed = block.passed

    def passes(self, method: str, host: str, path: str) -> bool:
        passed = self._block.passed
        if passed is None or not passed.costs(method, host, path):
            return False
        if _idle(_of_tasks.copy(), self._block.pid):
            return _Beside(self._block.pid).passes(method, host, path)
        sentence = _LEFT_BY_THREAD if running_loop() is None else _LEFT
        passed.note(Why.LEFT, host, sentence.format(host))
        return True


class _Beside(_OutOfReach):
    """The open blocks of tasks, for tasks and threads that are in none of them."""

    def __init__(self, pid: int) -> None:
        self._pid = pid

    @property
    def passed(self) -> Passed | None:
        blocks = [block for block in _of_tasks.copy() if block.pid == self._pid]
        return (_idle(blocks, self._pid) or blocks)[-1].passed if blocks else None

    def passes(self, method: str, host: str, path: str) -> bool:
        blocks = [
            block for block in _of_tasks.copy() if block.handler is not None and block.passed is not None
        ]
        blocks = [block for block in blocks if block.pid == self._pid]
        judge = blocks[-1].passed if blocks else None
        if judge is None or not judge.costs(method, host, path):
            return False
        loop = running_loop()
        if loop is None:
            why, sentence = Why.THREAD, _THREAD
        elif any(block.loop is loop for block in blocks):
            why, sentence = Why.OTHER_TASK, _OTHER_TASK
            blocks = [block for block in blocks if block.loop is loop]
        else:
            why, sentence = Why.OTHER_LOOP, _OTHER_LOOP
        # Count the call in one block only: the newest block that has caught nothing, as that block misses its calls.
        idle = _idle(blocks, self._pid)
        if idle or why is not Why.OTHER_TASK:
            told = (idle or blocks)[-1].passed
        else:
            # A task beside blocks that catch their calls is outside on purpose; count it if there is only one block.
            told, sentence = (blocks[0].passed if len(blocks) == 1 else None), ""
        if told is not None:
            told.note(why, host, sentence.format(host))
        return True


def _idle(blocks: list[Token], pid: int) -> list[Token]:
    """Return the open blocks of this process that have caught no call yet."""
    return [
        block
        for block in blocks
        if block.pid == pid
        and block.handler is not None
        and block.passed is not None
        and not block.passed.caught
    ]


class _Judge(Protocol):
    def __call__(self, method: str, host: str, path: str) -> bool: ...


def costs_of(judge: Passed | None) -> _Judge:
    """Return what says whether a call costs money: by a run's own routes, where there is a run."""
    if judge is not None:
        return judge.costs
    return lambda method, host, path: costs(method, path)
