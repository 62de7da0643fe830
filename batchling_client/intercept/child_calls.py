"""The calls that child processes of a block make at full price: each child counts its own in a file of its parent.

The parent makes the file, readable by its user alone, and hands its name on. A child appends one line for each host
that it calls and keeps the count of that line up to date, so the file grows with children and hosts and not with calls.
What is read from it is input: a line that is none is left out, and so is all beyond `MOST_LINES`.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
import tempfile
import threading
from collections.abc import Iterator
from typing import Final

LINE: Final = 128
"""How many bytes a line has."""
MOST_LINES: Final = 4096
MOST_HOSTS: Final = 20
"""So many hosts a child counts, and the others together."""
_OTHERS: Final = "other hosts"
_HEAD: Final = f"{'batchling: calls of child processes, 1':<{LINE - 1}}\n".encode()
_LINE: Final = re.compile(rb"(\d{12}) ([!-~][ -~]{0,98}[!-~]|[!-~]) *\n")
_FLAGS: Final = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK if hasattr(os, "O_NOFOLLOW") else 0


def make() -> str | None:
    """Make an empty file and return its path; None where this process cannot write one."""
    if not hasattr(os, "pwrite"):
        return None
    try:
        opened, path = tempfile.mkstemp(prefix="batchling-", suffix=".children")
        with contextlib.closing(os.fdopen(opened, "wb")) as file:
            file.write(_HEAD)
    except OSError:
        return None
    return path


def read(path: str) -> dict[int, tuple[str, int]]:
    """Return line -> host and number of calls."""
    try:
        with _opened(path, os.O_RDONLY) as file:
            if os.fstat(file).st_size <= LINE:
                return {}
            whole = os.pread(file, LINE * (MOST_LINES + 1), 0)
    except OSError:
        return {}
    found = {}
    for n in range(1, len(whole) // LINE):
        match = _LINE.fullmatch(whole, n * LINE, (n + 1) * LINE)
        if match is not None:
            found[n] = match[2].decode("ascii"), int(match[1])
    return found


class ChildCalls:
    """What one child process counts; a process that is forked from it counts in lines of its own."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._begin()

    def note(self, host: str) -> None:
        """Count a call; a file that is full, gone or not its parent's counts none."""
        if self._pid != os.getpid():
            self._begin()
        with self._lock, contextlib.suppress(OSError):
            shown = re.sub(r"[^!-~]", "?", host.rpartition("://")[2].partition("/")[0])[:100] or _OTHERS
            if shown not in self._counts and len(self._counts) >= MOST_HOSTS:
                shown = _OTHERS
            n_calls = self._counts[shown] = self._counts.get(shown, 0) + 1
            if shown in self._places:
                with _opened(self._path, os.O_WRONLY) as file:
                    os.pwrite(file, b"%012d" % n_calls, self._places[shown])
            else:
                self._append(shown, n_calls)

    def _append(self, host: str, n_calls: int) -> None:
        line = f"{n_calls:012d} {host:<{LINE - 14}}\n".encode("ascii")
        with _opened(self._path, os.O_RDWR | os.O_APPEND) as file:
            if os.fstat(file).st_size >= LINE * (MOST_LINES + 1):
                return
            if os.write(file, line) == LINE:
                # An append ends where the file did, whatever others append meanwhile.
                self._places[host] = os.lseek(file, 0, os.SEEK_CUR) - LINE

    def _begin(self) -> None:
        # A thread of the parent may have held the lock at the fork.
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._counts: dict[str, int] = {}
        self._places: dict[str, int] = {}


@contextlib.contextmanager
def _opened(path: str, flags: int) -> Iterator[int]:
    """Open a file that `make` has made for this user; raise OSError for any other."""
    file = os.open(path, flags | _FLAGS)
    try:
        about = os.fstat(file)
        is_private = stat.S_ISREG(about.st_mode) and not about.st_mode & 0o077 and about.st_nlink == 1
        readable = flags & os.O_WRONLY or os.pread(file, LINE, 0) == _HEAD
        if not is_private or about.st_uid != os.geteuid() or not readable:
            raise PermissionError(path)
        yield file
    finally:
        os.close(file)
