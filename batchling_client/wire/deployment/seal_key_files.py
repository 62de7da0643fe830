"""Keep a deployment's seal keys in files of its home: private keys one a line, the current one first."""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from .. import sealing

FOLDER: Final = "keys"
PUBLIC_FILE: Final = "seal.pub"
PRIVATE_FILE: Final = "seal.key"


def stored_pair(home: Path) -> tuple[str, str]:
    """Return the current (public, private) pair of `home/keys`, made on first need.

    Processes that make one at once agree.
    """
    folder = home / FOLDER
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    private_file = folder / PRIVATE_FILE
    if not private_file.exists():
        _, private = sealing.new_pair()
        # Not named by process id: two containers that share a volume may have the same id.
        handle, name = tempfile.mkstemp(prefix=f".{PRIVATE_FILE}.", dir=folder)
        draft = Path(name)
        with os.fdopen(handle, "w", encoding="ascii") as file:
            file.write(private + "\n")
        try:
            os.link(draft, private_file)
        except FileExistsError:
            pass
        finally:
            draft.unlink()
    private = (private_file.read_text(encoding="ascii").split() or [""])[0]
    public = sealing.public_half(private)
    public_file = folder / PUBLIC_FILE
    if not public_file.exists():
        public_file.write_text(public + "\n", encoding="ascii")
    return public, private


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
        handle, draft = tempfile.mkstemp(prefix=f".{name}.", dir=folder)
        with os.fdopen(handle, "w", encoding="ascii") as file:
            file.write("".join(f"{line}\n" for line in lines))
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, folder / name)  # noqa: PTH105 - a name made by mkstemp
