"""Keeps a block that ends normally open until none of its calls is in flight or about to be made."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
import time
import weakref
from collections.abc import Callable, Collection
from concurrent.futures import Future
from contextvars import Context
from typing import Any, Final, Protocol

from ..intercept import scope
from ..intercept.open_block import OpenBlock

QUIET_S: Final = 1.0
"""How long a block stays open for tasks and threads that were started in it and have no call in flight."""
WORKING_S: Final = 30.0
"""How long it stays open at most while a thread imports a module, or does work that was handed to a pool in it."""
BEGIN_S: Final = 0.05
"""How long it stays open for threads that wait for work: what was handed to a pool a moment ago is not begun yet."""
PAUSE_S: Final = 0.02
LONGEST_PAUSE_S: Final = 0.25
LONGEST_STEP_S: Final = 0.1
"""The most that one look adds to the quiet: while an import or a busy event loop holds up all else, nobody can call."""
_WAITING: Final = frozenset({"concurrent.futures.thread", "queue", "selectors", "threading"})
"""Modules whose code runs in a thread that waits for others."""


class Counted(Protocol):
    """A run, as its end sees it."""

    def n_in_flight(self) -> int:
        """Return how many calls somebody still waits for."""
        ...

    def n_made(self) -> int:
        """Return how many calls were made until now."""
        ...


class Run(Counted, Protocol):
    """A run whose calls may be left alone once they are queued."""

    def n_unsent(self) -> int:
        """Return how many calls are not in Redis yet."""
        ...


class Unsent:
    """A run that is detached: only calls that are not queued yet are waited for."""

    def __init__(self, run: Run) -> None:
        self._run = run

    def n_in_flight(self) -> int:
        return self._run.n_unsent()

    def n_made(self) -> int:
        return self._run.n_made()


class InFlight:
    """What an open block waits for when it is left; both colours ask it, each with a sleep of its own."""

    def __init__(self, run: Counted, may_ask: Callable[[float], bool]) -> None:
        """Ask `may_ask` with the seconds since the last call, whether another one may be made now."""
        self._run = run
        self._may_ask = may_ask
        self._began_at = self._looked_at = time.monotonic()
        self._quiet_s = 0.0
        self._n_made = run.n_made()

    @property
    def waited_s(self) -> float:
        return time.monotonic() - self._began_at

    @property
    def waits_for_work(self) -> bool:
        """Whether no call is in flight, and work that may yet make one keeps the block open."""
        return self._quiet_s > QUIET_S

    def pause_s(self) -> float | None:
        """Return the seconds until the next look, or None once the block may end."""
        now, n_made = time.monotonic(), self._run.n_made()
        n_in_flight = self._run.n_in_flight()
        self._quiet_s += min(now - self._looked_at, LONGEST_STEP_S)
        self._looked_at = now
        if n_in_flight or n_made != self._n_made:
            self._n_made, self._quiet_s = n_made, 0.0
        if n_in_flight:
            return min(PAUSE_S + (now - self._began_at) / 20, LONGEST_PAUSE_S)
        return PAUSE_S if self._may_ask(self._quiet_s) else None


def tasks_of(block: OpenBlock) -> Callable[[float], bool]:
    """Return what says whether a task that was started in the block may yet make a call."""

    def may_ask(quiet_s: float) -> bool:
        mine = asyncio.current_task()
        if quiet_s >= QUIET_S and not _work_goes_on(quiet_s, _others(), block.items):
            return False
        others = (task for task in asyncio.all_tasks() if task is not mine)
        return any(_is_in(block, task) for task in others)

    return may_ask


class Threads:
    """The threads of this process, as they were when a plain block was opened, and what pools have yet to do for it."""

    def __init__(self, items: Collection[Future[Any]]) -> None:
        self._before = weakref.WeakSet(threading.enumerate())
        self._items = items

    def may_ask(self, quiet_s: float) -> bool:
        """Return whether a thread may still make a call: it is working, or has just been given work."""
        others = [one for one in _others() if not (one.daemon and one in self._before)]
        if quiet_s >= QUIET_S:
            return _work_goes_on(quiet_s, others, self._items)
        return bool(others) and (
            quiet_s < BEGIN_S
            or any(not _waits(thread) for thread in others)
            # A pool's thread pauses between two items, and for long if it gets no processor.
            or bool(self._items)
        )


def _others() -> list[threading.Thread]:
    mine = threading.current_thread()
    return [one for one in threading.enumerate() if one is not mine and one.name != scope.BACKGROUND]


def _work_goes_on(quiet_s: float, threads: list[threading.Thread], items: Collection[Future[Any]]) -> bool:
    """Return whether a thread imports a module or does a pool's work: its first call may come late."""
    if quiet_s >= WORKING_S:
        return False
    working = [thread for thread in threads if not _waits(thread)]
    return any(map(_imports, working)) or (bool(items) and bool(working))


def _imports(thread: threading.Thread) -> bool:
    frame = sys._current_frames().get(thread.ident or 0)
    while frame is not None:
        if frame.f_globals.get("__name__") == "importlib._bootstrap":
            return True
        frame = frame.f_back
    return False


def _is_in(block: OpenBlock, task: asyncio.Task[Any]) -> bool:
    if hasattr(task, "get_context"):
        return scope.is_within(task.get_context(), block)
    # Python 3.11 has no such method; what a task refers to holds its context.
    contexts = (one for one in gc.get_referents(task) if isinstance(one, Context))
    return any(scope.is_within(context, block) for context in contexts)


def _waits(thread: threading.Thread) -> bool:
    frame = sys._current_frames().get(thread.ident or 0)
    return frame is None or frame.f_globals.get("__name__") in _WAITING
