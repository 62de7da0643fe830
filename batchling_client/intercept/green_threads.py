"""Real threads, and waits for them, in a process whose `threading` gevent or eventlet have replaced by green threads.

A green thread shares its system thread with the caller: an event loop in it would look as if it ran in the caller's
own. And a lock of theirs does not see what a real thread does, and raises an error instead of waiting for it.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, Final, Protocol

SHORTEST_LOOK_S: Final = 0.001
LONGEST_LOOK_S: Final = 0.05


class Thread(Protocol):
    """A thread, as the bridge sees it."""

    def start(self) -> None:
        """Start it; raise RuntimeError where the process can have no other thread."""

    def is_alive(self) -> bool:
        """Return whether it has begun and not ended."""
        ...

    def join(self, timeout: float | None = None) -> None:
        """Return once it has ended, or after that many seconds."""


def replaced() -> bool:
    """Return whether `threading` makes green threads now."""
    monkey: Any = sys.modules.get("gevent.monkey")
    patcher: Any = sys.modules.get("eventlet.patcher")
    return bool(
        (monkey is not None and monkey.is_module_patched("threading"))
        or (patcher is not None and patcher.is_monkey_patched("thread"))
    )


def is_run_here(loop: asyncio.AbstractEventLoop) -> bool:
    """Return whether this green thread runs the loop, and no other one of the same real thread."""
    here = threading.get_ident()
    # A loop that began before the threads were replaced knows the number of its real thread.
    return getattr(loop, "_thread_id", here) in (here, original("_thread").get_ident())


def real_thread(target: Callable[[], object], name: str) -> Thread:
    """Return a daemon thread of the system, not started yet."""
    if replaced():
        return _RealThread(target, name)
    return threading.Thread(target=_run_to_its_end, args=[target], name=name, daemon=True)


def wait_at_standstill(done: Callable[[], bool], patience_s: float) -> None:
    """Look until it is done while no green thread runs: two threads must not begin with gevent at the same time."""
    sleep, began_at = original("time").sleep, time.monotonic()
    while not done() and time.monotonic() - began_at < patience_s:
        sleep(SHORTEST_LOOK_S)


def wait(done: Callable[[], bool], patience_s: float | None = None) -> None:
    """Look until it is done, or for that many seconds; other green threads run meanwhile."""
    began_at, pause_s = time.monotonic(), SHORTEST_LOOK_S
    while not done() and (patience_s is None or time.monotonic() - began_at < patience_s):
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, LONGEST_LOOK_S)


class _RealThread:
    def __init__(self, target: Callable[[], object], name: str) -> None:
        self._target = target
        self._name = name
        self._lives = False

    def start(self) -> None:
        self._lives = True
        # gevent and eventlet begin with the first wait of a thread.
        time.sleep(0)
        try:
            original("_thread").start_new_thread(self._run, ())
        except BaseException:
            self._lives = False
            raise

    def is_alive(self) -> bool:
        return self._lives

    def join(self, timeout: float | None = None) -> None:
        wait(lambda: not self._lives, timeout)

    def _run(self) -> None:
        try:
            threading.current_thread().name = self._name
            self._target()
        finally:
            self._lives = False


def _run_to_its_end(target: Callable[[], object]) -> None:
    try:
        target()
    finally:
        if replaced():
            # `threading` knows the thread by another number now and could not remove it: register it under this one.
            threading.current_thread()


def original(name: str) -> Any:
    """Return a module of the standard library as it was before its functions were replaced."""
    monkey: Any = sys.modules.get("gevent.monkey")
    if monkey is not None and monkey.is_module_patched("threading"):
        return _Original(monkey, name)
    patcher: Any = sys.modules["eventlet.patcher"]
    return patcher.original(name)


class _Original:
    """gevent has the replaced functions one by one, and leaves the others as they were."""

    def __init__(self, monkey: Any, name: str) -> None:
        self._monkey = monkey
        self._name = name

    def __getattr__(self, function: str) -> Any:
        return self._monkey.get_original(self._name, function)
