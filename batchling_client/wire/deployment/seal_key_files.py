"""Keep a deployment's seal keys in files of its home: private keys one a line, the current one first."""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, Final

from .. import roots, sealing

FOLDER: Final = "keys"
PUBLIC_FILE: Final = "seal.pub"
PRIVATE_FILE: Final = "seal.key"
ACCOUNT_FILE: Final = "account.secret"


def stored_pair(home: Path) -> tuple[str, str]:
    """Return the current (public, private) pair of `home/keys`, made on first need.

    Processes that make one at once agree. Raise `UnreadableSealKey` if somebody else could have chosen the key or
    could read it.
    """
    private = sealing.Hidden((_kept(home, PRIVATE_FILE, lambda: sealing.new_pair()[1]).split() or [""])[0])
    public = sealing.public_half(private)
    public_file = home / FOLDER / PUBLIC_FILE
    if not public_file.exists():
        _draft(home / FOLDER, PUBLIC_FILE, [public]).replace(public_file)
    return public, private


def account_secret(home: Path) -> str:
    """Return the secret of named accounts of `home/keys`, made on first need."""
    return _kept(home, ACCOUNT_FILE, roots.new_secret)


def _kept(home: Path, name: str, make: Callable[[], str]) -> str:
    """Return the text of a file of the keys; processes that make it at once agree."""
    folder = home / FOLDER
    for directory in (home, folder):
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    kept = folder / name
    if not kept.exists():
        draft = _draft(folder, name, [make()])
        try:
            os.link(draft, kept)
        except FileExistsError:
            pass
        finally:
            draft.unlink()
    return _text(kept)


def private_text(home: Path) -> str:
    """Return what the file of private keys holds; raise `UnreadableSealKey` as `stored_pair` does, or OSError."""
    return _text(home / FOLDER / PRIVATE_FILE)


def _text(path: Path) -> str:
    """Return what a file of secrets holds; raise `UnreadableSealKey` if it is not this user's alone, or OSError."""
    with _opened(path) as file:
        # The file that is open is looked at, because its path may lead to another one by now.
        seen = os.fstat(file.fileno())
        if seen.st_uid != os.getuid():
            raise sealing.UnreadableSealKey(f"{path} belongs to another user, with the id {seen.st_uid}")
        if seen.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise sealing.UnreadableSealKey(f"others can read {path}: run `chmod 600 {path}`")
        raw = file.read()
    try:
        return raw.decode("ascii").strip()
    except UnicodeDecodeError:
        # Not "from" it, because that error holds the content.
        del raw
    raise sealing.UnreadableSealKey(f"{path} is not text")


def _opened(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except PermissionError:
        raise sealing.UnreadableSealKey(f"{path} may not be read by this user") from None


def _draft(folder: Path, name: str, lines: Sequence[str]) -> Path:
    """Write lines into a new private file, on disk when this returns."""
    # Not named by process id: two containers that share a volume may have the same id.
    handle, path = tempfile.mkstemp(prefix=f".{name}.", dir=folder)
    with os.fdopen(handle, "w", encoding="ascii") as file:
        file.write("".join(f"{line}\n" for line in lines))
        file.flush()
        os.fsync(file.fileno())
    return Path(path)


@contextlib.contextmanager
def changing(home: Path) -> Iterator[None]:
    """Keep other processes from changing the keys of a home meanwhile; raise BlockingIOError if one does so now."""
    folder = os.open(home / FOLDER, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(folder)


def replace(home: Path, private_keys: Sequence[str]) -> None:
    """Store these private keys, the current one first; readers see the old file or the new one."""
    folder = home / FOLDER
    # The public key goes last: it is for people, and every process takes it from the private one.
    for name, lines in ((PRIVATE_FILE, private_keys), (PUBLIC_FILE, [sealing.public_half(private_keys[0])])):
        _draft(folder, name, lines).replace(folder / name)
