"""The private seal keys of a deployment: the current one, and older ones that still open what was sealed for them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from .. import sealing
from . import seal_key_files, setting_files

NAME: Final = f"{setting_files.PREFIX}{setting_files.PRIVATE_KEY}"
MOST: Final = 16
"""More keys in one setting are a mistake: each is tried on what none of them opens."""
_BETWEEN: Final = re.compile(r"[\s,]+")


def parsed(text: str) -> tuple[str, ...]:
    """Return the private keys of a text, the current one first; raise `UnreadableSealKey`."""
    found = tuple(dict.fromkeys(sealing.Hidden(one) for one in _BETWEEN.split(text) if one))
    if not 0 < len(found) <= MOST:
        raise sealing.UnreadableSealKey(
            f"From 1 to {MOST} seal keys are needed, one a line or between commas."
        )
    for one in found:
        sealing.public_half(one)
    return found


class Keyring:
    """Holds the private keys of one process; those in a file are read again when the file changes.

    The keys are those of the setting `given`, else those of `file`, else the pair that is kept in `home/keys`.
    """

    __slots__ = ("_file", "_home", "_keys", "_name", "_seen", "_trouble")

    def __init__(self, given: str | None, file: Path | None, home: Path) -> None:
        self._name = NAME + setting_files.SUFFIX
        self._file: Path | None = None
        self._home: Path | None = None
        self._trouble = ""
        self._seen: object = None
        if given is not None:
            self._keys: tuple[str, ...] = parsed(given)
            return
        if file is None:
            seal_key_files.stored_pair(home)
            file = home / seal_key_files.FOLDER / seal_key_files.PRIVATE_FILE
            self._home = home
        self._file = file
        self._seen = _stamp(file)
        self._keys = parsed(self._text(file))

    @property
    def trouble(self) -> str:
        """Why the file could not be read again, without its content; empty if it could."""
        return self._trouble

    def private_keys(self) -> tuple[str, ...]:
        """Return the keys, the current one first, after a look at their file.

        Keys that were read once stay in use while their file cannot be read.
        """
        if self._file is None:
            return self._keys
        stamp = _stamp(self._file)
        if stamp != self._seen:
            self._seen = stamp
            try:
                self._keys = parsed(self._text(self._file))
                self._trouble = ""
            except setting_files.UnusableFile as error:
                self._trouble = error.reason
            except sealing.UnreadableSealKey as error:
                self._trouble = f"names {self._file}: {error}"
        return self._keys

    def _text(self, file: Path) -> str:
        """Return the text of the keys' file; of a home, only if nobody else could have written or read it."""
        text = setting_files.read(file, self._name)
        return sealing.Hidden(text if self._home is None else seal_key_files.private_text(self._home))

    def digests(self) -> tuple[str, ...]:
        """Return the digests of the public keys that these open, the current one first."""
        return tuple(sealing.digest(sealing.public_half(one)) for one in self.private_keys())


def _stamp(file: Path) -> tuple[int, int, int] | None:
    """Return what changes with the file: a mounted secret is replaced through a link."""
    try:
        seen = file.stat()
    except OSError:
        return None
    return seen.st_mtime_ns, seen.st_size, seen.st_ino
