"""Lets child processes of an open block say that it does not reach them.

A forked child knows by itself (`scope`). Processes of multiprocessing, spawned or of a fork server, learn it from a
mark in the configuration that every process hands to its children, whether they import batchling or not. Any other
process learns it from a variable in the environment, if it imports batchling.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import threading
from multiprocessing import process
from typing import Final

from . import interceptors, scope

VARIABLE: Final = "BATCHLING_BLOCK_OF"
"""Holds the id of the process that has a block open."""
_MARK: Final = "batchling_block_of"
_STARTED: Final = (
    "This process was started inside a batchify block of process {}, which does not reach into it: its calls go "
    "straight to the provider at full price. Open a batchify block of its own in the child process."
)


class _Mark:
    """Unpickled in a child process, has that process watch its calls."""

    def __init__(self, pid: int) -> None:
        self.pid = pid

    def __reduce__(self) -> tuple[object, tuple[int]]:
        return arrived, (self.pid,)


class _Open:
    def __init__(self) -> None:
        self.renew()
        # A thread of the parent may have held the lock at the fork; the parent's blocks are not the child's.
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self.renew)

    def renew(self) -> None:
        self.lock = threading.Lock()
        self.n_blocks = 0
        self.before: str | None = None


_open: Final = _Open()


def block_opened() -> None:
    """Mark this process as one with an open block, for the children that it starts."""
    with _open.lock:
        _open.n_blocks += 1
        if _open.n_blocks == 1:
            _open.before = os.environ.get(VARIABLE)
            os.environ[VARIABLE] = str(os.getpid())
            _configuration()[_MARK] = _Mark(os.getpid())


def block_closed() -> None:
    """Take the mark away again with the last open block."""
    with _open.lock:
        _open.n_blocks = max(0, _open.n_blocks - 1)
        if _open.n_blocks == 0:
            _configuration().pop(_MARK, None)
            os.environ.pop(VARIABLE, None)
            if _open.before is not None:
                os.environ[VARIABLE] = _open.before


def heed() -> None:
    """Have this process watch its calls if the environment says that it was started inside a block."""
    pid = os.environ.get(VARIABLE, "")
    # A fork server keeps the environment that it was started with: its children go by the mark alone.
    if multiprocessing.parent_process() is None and "batchling_worker" not in sys.modules and pid.isdigit():
        arrived(int(pid))


def arrived(pid: int) -> _Mark:
    """Watch the calls of this process, a child of that one; returns the mark for its own children."""
    if pid != os.getpid():
        interceptors.install()
        scope.surround(scope.Foreign(_STARTED.format(pid)))
    return _Mark(pid)


def _configuration() -> dict[str, object]:
    # Every Process object copies it when it is made; a spawned process unpickles it once its path is set.
    configuration: dict[str, object] = getattr(process.current_process(), "_config", {})
    return configuration
