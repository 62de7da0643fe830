"""The files of the embedded stack, in one private directory."""

from __future__ import annotations

import errno
import os
import re
import stat
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Final

from .errors import StackError

LONGEST_SOCKET_PATH: Final = 100
"""Bytes; a unix socket's address holds 103 on macOS and 107 on Linux."""
_PLAIN: Final = re.compile(r"[A-Za-z0-9/._+-]+")


class Layout:
    """The files below one `BATCHLING_HOME`; everything in it is for its owner only."""

    def __init__(self, home: Path) -> None:
        self.home = home.expanduser().absolute()
        self.run = self.home / "run"
        self.logs = self.home / "logs"
        self.redis = self.home / "redis"
        self.state = self.run / "state.json"
        self.attach_lock = self.run / "attach.lock"
        self.supervisor_lock = self.run / "supervisor.lock"
        self._socket_directory = self.run / "socket_directory"

    def log(self, name: str) -> Path:
        return self.logs / f"{name}.log"

    def prepare(self) -> None:
        """Create the directories, mode 0700. Raises `StackError`."""
        try:
            self.home.mkdir(parents=True, exist_ok=True, mode=0o700)
            # A directory that holds other things too keeps its mode; the parts that we create are private.
            if self.run.exists() or not any(self.home.iterdir()):
                self.home.chmod(0o700)
            for directory in (self.run, self.logs, self.redis):
                directory.mkdir(exist_ok=True, mode=0o700)
                directory.chmod(0o700)
        except OSError as error:
            raise StackError(
                f"{self.home} cannot be used ({error.strerror}): set BATCHLING_HOME to a directory of your own."
            ) from None

    def look(self) -> None:
        """Check that the directory and its files can be read. Raises `StackError`."""
        try:
            _check_directory(self.home)
            for path in (self.state, self.supervisor_lock):
                with suppress(FileNotFoundError):
                    path.open("rb").close()
        except OSError as error:
            raise StackError(
                f"{self.home} cannot be looked into ({error.strerror}): set BATCHLING_HOME to a directory of your own."
            ) from None

    def socket(self) -> Path:
        """Return the socket of Redis: below `run`, or in a short private directory if that path is too long.

        Raises `StackError`.
        """
        path = self.run / "redis.sock"
        # Blanks and the like would need quoting, and not every reader of a unix:// URL unquotes it.
        if _fits(path):
            return path
        recorded = self._recorded_directory()
        if recorded is None:
            recorded = Path(tempfile.mkdtemp(prefix="batchling-", dir=_short_parent()))
            self._socket_directory.write_text(str(recorded), encoding="utf-8")
        path = recorded / "redis.sock"
        if not _fits(path):
            raise StackError(f"{path} is too long for a socket: set BATCHLING_HOME to a shorter path.")
        return path

    def forget_socket(self, socket: Path) -> None:
        """Remove what `socket` created outside `home`; Redis must have ended."""
        socket.unlink(missing_ok=True)
        if self._recorded_directory() == socket.parent:
            self._socket_directory.unlink()
            with suppress(OSError):
                socket.parent.rmdir()

    def _recorded_directory(self) -> Path | None:
        """Return the directory chosen earlier, or None if it was removed or is no longer private."""
        try:
            directory = Path(self._socket_directory.read_text(encoding="utf-8"))
            seen = directory.lstat()
        except (OSError, ValueError):
            return None
        private = stat.S_ISDIR(seen.st_mode) and seen.st_uid == os.getuid() and not seen.st_mode & 0o077
        return directory if private else None


def _check_directory(home: Path) -> None:
    """Raise `OSError` if the directory is missing and its path prevents creating it, as with a file in the way."""
    nearest = next(path for path in (home, *home.parents) if os.path.lexists(path))
    if not nearest.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))


def _fits(path: Path) -> bool:
    text = str(path)
    return len(os.fsencode(text)) <= LONGEST_SOCKET_PATH and _PLAIN.fullmatch(text) is not None


def _short_parent() -> str:
    directory = tempfile.gettempdir()
    return directory if len(directory) <= LONGEST_SOCKET_PATH - 30 else "/tmp"  # noqa: S108 - mkdtemp makes it private
