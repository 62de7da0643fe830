"""Notices a program that waits for each batch before it makes the calls of the next one."""

from __future__ import annotations

import logging
import threading
from collections.abc import Collection
from typing import Final

from .wire.keys import BatchId, RequestId

_logger = logging.getLogger(__name__)

IN_A_ROW: Final = 3
"""So many batches, each opened only once an answer of the one before was there, are a pattern and no accident."""
SMALL: Final = 10
"""A batch is small where the provider takes this many times its requests."""
_SLOW: Final = (
    "Run {run}: {calls} at a time for {lane}, whose batches take up to {most:,}: each batch was opened only after the "
    "one before it was answered, {n} times in a row. A batch takes minutes to hours, so make more calls at once: raise "
    "what limits them (a semaphore, the size of a pool, max_concurrency, num_concurrent), or start all calls before "
    "you wait for the first answer, as asyncio.gather does."
)


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
            if self._n_rows * SMALL > self._max_rows:
                self._end()
            elif self._in_a_row == IN_A_ROW:
                self._warn(max(self._n_before, self._n_rows))
                self._end()

    def answered(self, request_id: RequestId) -> None:
        """Take note of an answer."""
        if not self._is_over and request_id in self._rows:
            self._is_answered = True

    def _open(self, batch_id: BatchId) -> None:
        shrunk = self._n_rows * 2 < self._n_before
        self._in_a_row = self._in_a_row + 1 if self._is_answered and not shrunk else 1
        self._n_before = self._n_rows
        self._batch, self._n_rows, self._is_answered = batch_id, 0, False
        self._rows = set()

    def _warn(self, n_calls: int) -> None:
        calls = "1 call waits" if n_calls == 1 else f"{n_calls:,} calls wait"
        _logger.warning(
            "%s",
            _SLOW.format(run=self._run, calls=calls, lane=self._lane, most=self._max_rows, n=IN_A_ROW - 1),
        )

    def _end(self) -> None:
        self._is_over = True
        self._rows, self._again = set(), set()
