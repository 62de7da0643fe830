"""Calls that no block reaches though one is, or was, open: each passes, counted and with a warning."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Final

from .interceptor import LetsPass, warn_once
from .open_block import OpenBlock, running_loop
from .passed import Passed, Why, costs

FORKED: Final = (
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


class Foreign(LetsPass):
    """The block of another process, which counts for itself: one warning for this process, whatever passes."""

    def __init__(
        self, sentence: str, judge: Passed | None = None, note: Callable[[str], None] | None = None
    ) -> None:
        self.passed: Passed | None = None
        self._sentence = sentence
        self._judge = judge
        self._note = judge.note_of_child if judge is not None else note

    def passes(self, method: str, host: str, path: str) -> bool:
        # By the run's own routes, where there is a run.
        if not (costs(method, path) if self._judge is None else self._judge.costs(method, host, path)):
            return False
        warn_once(self._sentence, os.getpid())
        if self._note is not None:
            self._note(host)
        return True


class Left(LetsPass):
    """A block that has ended, for the tasks and threads that outlive it."""

    def __init__(self, block: OpenBlock, of_tasks: list[OpenBlock]) -> None:
        self._block = block
        self._of_tasks = of_tasks
        self.passed = block.passed

    def passes(self, method: str, host: str, path: str) -> bool:
        passed = self._block.passed
        if passed is None or not passed.costs(method, host, path):
            return False
        beside = Beside(self._of_tasks, self._block.pid)
        if beside.is_one_idle:
            return beside.passes(method, host, path)
        sentence = _LEFT_BY_THREAD if running_loop() is None else _LEFT
        passed.note(Why.LEFT, host, sentence.format(host))
        return True


class Beside(LetsPass):
    """The open blocks of tasks, for tasks and threads that are in none of them."""

    def __init__(self, of_tasks: list[OpenBlock], pid: int) -> None:
        self._of_tasks = of_tasks
        self._pid = pid

    @property
    def passed(self) -> Passed | None:
        blocks = [block for block in self._of_tasks.copy() if block.pid == self._pid]
        return (_idle(blocks) or blocks)[-1].passed if blocks else None

    @property
    def is_one_idle(self) -> bool:
        """Whether an open block has caught no call yet."""
        return bool(_idle(self._open()))

    def passes(self, method: str, host: str, path: str) -> bool:
        blocks = self._open()
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
        idle = _idle(blocks)
        if idle or why is not Why.OTHER_TASK:
            counting = (idle or blocks)[-1].passed
        else:
            # A task beside blocks that catch their calls is outside on purpose; count it if there is only one block.
            counting, sentence = (blocks[0].passed if len(blocks) == 1 else None), ""
        if counting is not None:
            counting.note(why, host, sentence.format(host))
        return True

    def _open(self) -> list[OpenBlock]:
        blocks = [block for block in self._of_tasks.copy() if block.pid == self._pid]
        return [block for block in blocks if block.handler is not None and block.passed is not None]


def _idle(blocks: list[OpenBlock]) -> list[OpenBlock]:
    """Return the open blocks that have caught no call yet."""
    return [
        block
        for block in blocks
        if block.handler is not None and block.passed is not None and not block.passed.caught
    ]
