"""Sends requests to their provider that were not answered in time, a bounded number at once."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from concurrent.futures import Future
from typing import Final

from ..intercept.interceptor import PassThrough

AT_ONCE: Final = 32
"""How many such calls of a run are on their way at once.

A call takes some seconds, so this is about 500 requests a minute, which the lowest paid tier of a provider lets pass. A
deadline may be over for thousands of calls in the same second: all at once, most would get a 429, and an SDK that
repeats its call twice would fail. SDKs keep 100 connections and more, so that their pools do not become full either.
"""


class FullPrice:
    """Counts and paces the requests of one run that go to their provider after all, from any thread or event loop."""

    def __init__(self, at_once: int = AT_ONCE) -> None:
        self._lock = threading.Lock()
        self._n_free = at_once
        self._waiting: deque[Future[None]] = deque()
        self._n_sent = self._n_answered = 0

    @property
    def n_answered(self) -> int:
        """How many requests were sent and have an answer, or failed on the way; each counts once."""
        return self._n_answered

    @property
    def n_under_way(self) -> int:
        """How many requests were sent and have no answer yet."""
        return self._n_sent - self._n_answered

    async def turn(self, *, counts: bool = True) -> PassThrough:
        """Wait until the call may be sent; a call that an SDK repeats does not count."""
        turn = self._line_up()
        try:
            await asyncio.wrap_future(turn)
        except asyncio.CancelledError:
            if not turn.cancel():
                self._release()
            raise
        with self._lock:
            self._n_sent += counts
        return PassThrough(lambda: self._end(counts=counts))

    def _line_up(self) -> Future[None]:
        turn: Future[None] = Future()
        with self._lock:
            if self._n_free:
                self._n_free -= 1
                turn.set_result(None)
            else:
                self._waiting.append(turn)
        return turn

    def _end(self, *, counts: bool) -> None:
        with self._lock:
            self._n_answered += counts
        self._release()

    def _release(self) -> None:
        """Hand the place of a call that was sent to the next waiting call."""
        with self._lock:
            while self._waiting:
                turn = self._waiting.popleft()
                if turn.set_running_or_notify_cancel():
                    break
            else:
                self._n_free += 1
                return
        turn.set_result(None)
