"""Locks that the kernel drops when their holder dies: they cannot become stale."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

_STEP_SECONDS: Final = 0.01


@contextmanager
def held(path: Path, *, patience_s: float, noted: bool = True) -> Iterator[int]:
    """Hold the lock and yield its descriptor; write this pid into the file if `noted`. Raises `TimeoutError`.

    A holder that takes signals is noted; the note needs room on the disk.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        _wait(descriptor, time.monotonic() + patience_s)
        os.ftruncate(descriptor, 0)
        if noted:
            os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        yield descriptor
    finally:
        os.close(descriptor)


def _wait(descriptor: int, deadline: float) -> None:
    while True:
        try:
            return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise TimeoutError from None
        time.sleep(_STEP_SECONDS)


def holder(path: Path) -> int | None:
    """Return the pid of the process that holds the lock; 0 while its pid is not written; None if nobody holds it."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        # Shared, so that two processes that ask do not take each other for the holder.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return int(os.pread(descriptor, 20, 0) or b"0")
    else:
        return None
    finally:
        os.close(descriptor)


def same_file(descriptor: int, path: Path) -> bool:
    """Return whether `path` is still the file that was opened."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False
