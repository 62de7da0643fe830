"""Makes child processes of an open block warn that the block does not cover them.

A forked child knows by itself (`scope`). Processes of multiprocessing, spawned or of a fork server, learn it from a
mark in the configuration that every process hands to its children, whether they import batchling or not. Any other
process learns it from a variable in the environment, if it imports batchling. All of them count their calls in a file
of the parent's.
"""

from __future__ import annotations

import atexit
import contextlib
import multiprocessing
import os
import sys
import threading
import weakref
from multiprocessing import process
from pathlib import Path
from typing import Final

from . import child_calls, scope, switch
from .out_of_reach import Foreign
from .passed import Passed, Why

VARIABLE: Final = "BATCHLING_BLOCK_OF"
"""Holds the id of the process that has a block open, and the file in which its children count."""
_MARK: Final = "batchling_block_of"
_STARTED: Final = (
    "This process was started inside a batchify block of process {}, which does not reach into it: its calls go "
    "straight to the provider at full price. Open a batchify block of its own in the child process."
)


class _Mark:
    """Unpickled in a child process, has that process watch its calls."""

    def __init__(self, pid: int, path: str | None) -> None:
        self.pid = pid
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[int, str | None]]:
        return arrived, (self.pid, self.path)


class _Open:
    """The blocks of this process, and what its children have counted."""

    def __init__(self) -> None:
        self.renew()
        # A thread of the parent may have held the lock at the fork; the parent's blocks are not the child's.
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self.renew)

    def renew(self) -> None:
        self.lock = threading.Lock()
        self.before: str | None = None
        self.blocks: list[Passed] = []
        self.last: weakref.ref[Passed] | None = None
        self.path: str | None = None
        self.seen: dict[int, int] = {}

    def make_file(self) -> None:
        """Make the file once; it is there until the process ends, since children may outlive the block."""
        if self.path is None:
            self.path = child_calls.make()
            if self.path is not None:
                atexit.register(_remove, self.path, os.getpid())

    def add(self) -> None:
        """Give what children have counted since the last time to the newest open block, or to the last one."""
        latest = self.blocks[-1] if self.blocks else self.last() if self.last is not None else None
        if self.path is None or latest is None:
            return
        for line, (host, n_calls) in child_calls.read(self.path).items():
            more = n_calls - self.seen.get(line, 0)
            if more > 0:
                self.seen[line] = n_calls
                latest.note(Why.CHILD, host, n_calls=more)


_open: Final = _Open()


def block_opened(passed: Passed) -> None:
    """Mark this process as one with an open block, for the children that it starts."""
    with _open.lock:
        _open.add()
        _open.make_file()
        if _open.path is not None:
            passed.look = _look
            passed.note_of_child = child_calls.ChildCalls(_open.path).note
        if not _open.blocks:
            _open.before = os.environ.get(VARIABLE)
            os.environ[VARIABLE] = f"{os.getpid()}:{_open.path or ''}"
            _configuration()[_MARK] = _Mark(os.getpid(), _open.path)
        _open.blocks.append(passed)


def block_closed(passed: Passed) -> None:
    """Take the mark away again with the last open block."""
    with _open.lock:
        if not any(one is passed for one in _open.blocks):
            # The parent process opened it, from which this process was forked.
            return
        _open.add()
        _open.blocks = [one for one in _open.blocks if one is not passed]
        _open.last = weakref.ref(passed)
        if not _open.blocks:
            _configuration().pop(_MARK, None)
            os.environ.pop(VARIABLE, None)
            if _open.before is not None:
                os.environ[VARIABLE] = _open.before


def heed() -> None:
    """Watch the calls of this process if the environment says that it was started inside a block."""
    pid, _, path = os.environ.get(VARIABLE, "").partition(":")
    # A fork server keeps the environment it was started with: its children rely on the mark alone.
    if multiprocessing.parent_process() is None and "batchling_worker" not in sys.modules and pid.isdigit():
        arrived(int(pid), path or None)


def arrived(pid: int, path: str | None = None) -> _Mark:
    """Watch the calls of this process, a child of that one; return the mark for its own children."""
    if pid != os.getpid():
        switch.install()
        note = child_calls.ChildCalls(path).note if path else None
        scope.surround(Foreign(_STARTED.format(pid), note=note))
    return _Mark(pid, path)


def _look() -> None:
    # Another thread is checking already.
    if _open.lock.acquire(blocking=False):
        try:
            _open.add()
        finally:
            _open.lock.release()


def _remove(path: str, pid: int) -> None:
    if os.getpid() == pid:
        with contextlib.suppress(OSError):
            Path(path).unlink()


def _configuration() -> dict[str, object]:
    # Every Process object copies it when it is made; a spawned process unpickles it once its path is set.
    configuration: dict[str, object] = getattr(process.current_process(), "_config", {})
    return configuration
