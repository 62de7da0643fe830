"""Notices a program that waits for each batch before it makes the calls of the next one."""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Collection
from typing import Final

from ..wire.keys import BatchId, RequestId
from ..wire.shown import shown
from . import turns

_logger = logging.getLogger(__name__)

IN_A_ROW: Final = 3
"""So many batches, each opened only once an answer of the one before was there, are a pattern and no accident."""
ROUNDS: Final = 3
"""So many rounds of calls, none of them larger than the first, are the same pattern where batches overlap."""
SMALL: Final = 10
"""A batch is small where the provider takes this many times its requests."""
_SLOW: Final = (
    "Run {run}: {calls} at a time for {lane}, whose batches take up to {most:,}: {seen}. A batch takes minutes to "
    "hours, so make more calls at once: raise what limits them (a semaphore, the size of a pool, max_concurrency, "
    "num_concurrent), or start all calls before you wait for the first answer, as asyncio.gather does."
)
_ONE_BY_ONE: Final = "each batch was opened only after the one before it was answered, {n} times in a row"
_IN_WAVES: Final = "each of the last {n:,} calls was made only after an earlier one was answered"


class _Rounds:
    """The calls that wait at a time, and who made them.

    A limit shows in three ways, also where batches overlap because each call takes a while to be made. The same
    threads or tasks make call after call, each after its last answer. Or many more calls were made than ever waited at
    a time, and tasks wait for their turn. Or the number of calls that wait comes back to its maximum round after round
    and never exceeds it. A program that makes its calls at once has a caller for each of them, nobody who waits for a
    turn, and a maximum that it reaches once.
    """

    def __init__(self) -> None:
        self.n_made = 0
        self.n_callers = 0
        self.most = 0
        """How many calls waited at a time."""
        # Count callers and keep no reference: a task holds its whole context.
        self._numbers: weakref.WeakKeyDictionary[object, int] = weakref.WeakKeyDictionary()
        self._n_numbers = 0
        self._callers: set[int] = set()
        self._asked: dict[RequestId, int] = {}
        self._waiting: set[RequestId] = set()
        self._n_full = 0
        self._began_at = 0
        self._is_full = False
        self._looks_at = ROUNDS
        self._are_turns_awaited = False

    def ask(self, request_id: RequestId, caller: object) -> None:
        number = self._numbers.get(caller)
        if number is None:
            self._n_numbers += 1
            number = self._numbers[caller] = self._n_numbers
        self._asked[request_id] = number
        if self.n_made >= max(self._looks_at, ROUNDS * self.most):
            # Only now and then: inspecting hundreds of tasks costs more than a call.
            self._looks_at = self.n_made + max(ROUNDS, self.most // 2)
            self._are_turns_awaited = turns.are_awaited()

    def queue(self, request_id: RequestId) -> None:
        """Take note of a call that is new to the queue; one whose caller has gone meanwhile does not count."""
        caller = self._asked.get(request_id)
        if caller is None or request_id in self._waiting:
            return
        self._callers.add(caller)
        self.n_callers = len(self._callers)
        self._waiting.add(request_id)
        self.n_made += 1
        if len(self._waiting) > self.most:
            self.most = len(self._waiting)
            self._n_full, self._began_at, self._is_full = 0, self.n_made, False
            return
        self._is_full = self._is_full or len(self._waiting) == self.most
        if self.n_made - self._began_at >= self.most:
            self._n_full = self._n_full + 1 if self._is_full else 0
            self._began_at, self._is_full = self.n_made, False

    def leave(self, request_id: RequestId) -> None:
        self._asked.pop(request_id, None)
        self._waiting.discard(request_id)

    def are_limited(self) -> bool:
        return self._has_few_callers() or self._are_turns_awaited or self._n_full >= ROUNDS - 1

    def n_at_a_time(self) -> int:
        """Return how many calls may wait at a time; not all of a pool's threads have one at every moment."""
        return max(self.most, self.n_callers) if self._has_few_callers() else self.most

    def _has_few_callers(self) -> bool:
        return 0 < ROUNDS * self.n_callers <= self.n_made


class Pace:
    """The batches of one run in one lane, in any thread.

    A limit of calls at once (a semaphore, a pool, a `for` loop) shows in this: a batch is opened only after the one
    before it was answered, holds about as many calls, and the provider would take many more. Batches that fill up or
    are held run side by side, retries are the same requests again, and rounds that ask anew for what failed shrink.
    """

    def __init__(self, *, run: str, lane: str, max_rows: int) -> None:
        self._run = run
        self._lane = lane
        self._max_rows = max_rows
        self._lock = threading.Lock()
        self._again: set[RequestId] = set()
        self._batch: BatchId | None = None
        self._rows: set[RequestId] = set()
        self._n_rows = 0
        self._n_before = 0
        self._is_answered = False
        self._in_a_row = 0
        self._is_over = False
        self._rounds = _Rounds()

    def ask(self, request_id: RequestId, caller: object) -> None:
        """Take note of who makes a call: a thread, or a task of asyncio."""
        if not self._is_over:
            with self._lock:
                self._rounds.ask(request_id, caller)

    def ask_again(self, request_id: RequestId) -> None:
        """Take note of a request that was made before: it does not speak for the program's pace."""
        if not self._is_over:
            self._again.add(request_id)

    def queued(self, batch_id: BatchId, request_ids: Collection[RequestId]) -> None:
        """Take note of requests in a batch, and warn once where too few calls wait at a time."""
        if self._is_over or not request_ids:
            return
        with self._lock:
            fresh = [one for one in request_ids if one not in self._again]
            self._again.difference_update(request_ids)
            if not fresh:
                return
            if batch_id != self._batch:
                self._open(batch_id)
            self._rows.update(fresh)
            self._n_rows += len(fresh)
            rounds = self._rounds
            for one in fresh:
                rounds.queue(one)
            if max(self._n_rows, rounds.most) * SMALL > self._max_rows:
                self._end()
            elif self._in_a_row == IN_A_ROW:
                self._warn(max(self._n_before, self._n_rows), _ONE_BY_ONE.format(n=IN_A_ROW - 1))
                self._end()
            elif rounds.are_limited():
                n_at_a_time = rounds.n_at_a_time()
                self._warn(n_at_a_time, _IN_WAVES.format(n=max(1, rounds.n_made - n_at_a_time)))
                self._end()

    def answered(self, request_id: RequestId) -> None:
        """Take note of an answer."""
        if not self._is_over and request_id in self._rows:
            self._is_answered = True

    def left(self, request_id: RequestId) -> None:
        """Take note of a call that waits no more, answered or not."""
        if not self._is_over:
            with self._lock:
                self._rounds.leave(request_id)

    def _open(self, batch_id: BatchId) -> None:
        shrunk = self._n_rows * 2 < self._n_before
        self._in_a_row = self._in_a_row + 1 if self._is_answered and not shrunk else 1
        self._n_before = self._n_rows
        self._batch, self._n_rows, self._is_answered = batch_id, 0, False
        self._rows = set()

    def _warn(self, n_calls: int, seen: str) -> None:
        calls = "1 call waits" if n_calls == 1 else f"{n_calls:,} calls wait"
        _logger.warning(
            "%s",
            _SLOW.format(run=self._run, calls=calls, lane=shown(self._lane), most=self._max_rows, seen=seen),
        )

    def _end(self) -> None:
        self._is_over = True
        self._rows, self._again = set(), set()
        self._rounds = _Rounds()
