"""The calls of a run that cost full price, counted by reason and host, with one warning per kind."""

from __future__ import annotations

import enum
import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Final

from ..wire.charges import costs_anywhere
from ..wire.routes import Routes
from ..wire.shown import lines, shown
from ..wording import counted

_logger = logging.getLogger(__name__)

MOST_WARNINGS: Final = 20
"""A run logs no more kinds than this; its counts hold all of them."""
MOST_HOSTS: Final = 50
LONGEST_HOST: Final = 253
_NAMED_HOSTS: Final = 3


class Why(enum.StrEnum):
    """Why a call passed, in the words of summaries."""

    UNKNOWN_HOST = "unknown host"
    STREAM = "stream=True"
    STREAMED_BODY = "body sent as a stream"
    UPLOAD = "file or form"
    NO_BATCHES = "endpoint without batches"
    UNBATCHED = "parameter that no batch takes"
    NO_MODEL = "no model named"
    SIGNED = "signed for one call"
    OTHER_TASK = "task outside the block"
    LEFT = "after the block had ended"
    THREAD = "thread outside the block"
    OTHER_LOOP = "event loop of another thread"
    NO_ASYNCIO = "outside of asyncio"
    CHILD = "child process"
    LIBRARY = "HTTP library that is not intercepted"
    DEADLINE = "deadline passed"
    TOO_FEW = "too few for a batch"


@dataclass(frozen=True, slots=True, kw_only=True)
class Passing:
    """Calls that reached one host at full price for one reason."""

    reason: str
    host: str
    n_calls: int

    def __str__(self) -> str:
        return f"{self.n_calls:,} to {self.host} ({self.reason})"


def costs(method: str, path: str) -> bool:
    """Say whether a call of this path costs money, whichever host it goes to."""
    return method == "POST" and costs_anywhere(path)


def _no_look() -> None:
    """Look nowhere: this process has started no other."""


_unsent: ContextVar[bool] = ContextVar("batchling_unsent", default=False)


@contextmanager
def not_sent() -> Iterator[None]:
    """Count the calls that the body notes as refused: a rehearsal answers them itself, and they cost nothing."""
    before = _unsent.set(True)
    try:
        yield
    finally:
        # A coroutine that is thrown away ends in a context that was never changed.
        with suppress(ValueError):
            _unsent.reset(before)


class Passed:
    """The counts of one run; they outlive the run's block and keep no reference to the run."""

    def __init__(self, routes: Routes, title: str = "") -> None:
        self.title = title
        self.caught = False
        """Whether the run has caught a call."""
        self.sends_nothing = False
        """Whether the run is a dry one, in which no transport may be asked to send."""
        self.n_left_alone = 0
        """How many calls test doubles have answered."""
        self.ways_seen: set[str] = set()
        """Transports of clients' own, and other code of the program, that have sent a call where it is caught."""
        self.look: Callable[[], None] = _no_look
        """Adds what child processes have counted since."""
        self.note_of_child: Callable[[str], None] | None = None
        """Counts a call to a host in a process that is forked from this one."""
        self._routes = routes
        self._calls: Counter[tuple[Why, str]] = Counter()
        self._posts: Counter[str] = Counter()
        self._refused: Counter[str] = Counter()
        self._warned: set[str] = set()
        self._lock = threading.Lock()

    def costs(self, method: str, host: str, path: str) -> bool:
        """Say whether such a call would have been batched, or costs money by its path."""
        if method != "POST":
            return False
        found = self._routes.of_call(host, path)
        return (found is not None and found[1] is not None) or costs(method, path)

    def note(self, why: Why, host: str, sentence: str = "", *, n_calls: int = 1) -> None:
        """Count calls, and log the sentence the first time that this run meets it."""
        named = host.rpartition("://")[2].partition("/")[0]
        place = shown(named, LONGEST_HOST)
        with self._lock:
            if _unsent.get():
                if place in self._refused or len(self._refused) < MOST_HOSTS:
                    self._refused[place] += 1
                return
            self._calls[why, self._place(place)] += n_calls
        if sentence:
            self.warn(sentence)

    def warn(self, sentence: str) -> None:
        """Log the sentence the first time that this run meets it."""
        with self._lock:
            if sentence in self._warned or len(self._warned) >= MOST_WARNINGS:
                return
            self._warned.add(sentence)
        # Log it: if Python warnings are errors, an SDK would take the warning for a broken connection.
        _logger.warning("%s%s", lines(sentence), f" (run {self.title})" if self.title else "")

    def leave_alone(self) -> None:
        """Count a call that a test double answers in the place of its provider."""
        with self._lock:
            self.n_left_alone += 1

    def saw(self, host: str) -> None:
        """Count a POST that this run neither catches nor knows to cost money."""
        with self._lock:
            place = shown(host, LONGEST_HOST)
            if place in self._posts or len(self._posts) < MOST_HOSTS:
                self._posts[place] += 1

    def counts(self) -> tuple[Passing, ...]:
        """Return the calls that passed, the most frequent first."""
        self.look()
        with self._lock:
            found = self._calls.most_common()
        return tuple(Passing(reason=why.value, host=host, n_calls=n) for (why, host), n in found)

    def posts(self) -> str:
        """Return the hosts of all other POSTs with their counts, in words; empty where there were none."""
        return self._words_of(self._posts)

    def refusals(self) -> str:
        """Return the hosts of the calls that a rehearsal refused with their counts, in words, or nothing."""
        return self._words_of(self._refused)

    def _words_of(self, counts: Counter[str]) -> str:
        with self._lock:
            found = counts.most_common()
        words = [f"{n:,} to {host}" for host, n in found[:_NAMED_HOSTS]]
        return ", ".join([*words, *(["others"] if len(found) > _NAMED_HOSTS else [])])

    def _place(self, host: str) -> str:
        known = {place for _, place in self._calls}
        return host if host in known or len(known) < MOST_HOSTS else "other hosts"


def sentence_of(passed: tuple[Passing, ...]) -> str:
    """Return the counts in words: 3 calls passed at full price: 2 to HOST (stream=True), 1 to ..."""
    n_calls = sum(one.n_calls for one in passed)
    more = [f"{len(passed) - _SAID:,} more kinds"] if len(passed) > _SAID else []
    return f"{counted(n_calls, 'call')} passed at full price: {', '.join([*map(str, passed[:_SAID]), *more])}"


_SAID: Final = 5
