"""Lists the licences of what the extra `all` installs, from the packages' own metadata: `make licences`.

Without options it prints the table of docs/licences.md.
"""

from __future__ import annotations

import re
import sys
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
LOCKED: Final = ROOT / "locks" / "all.txt"
_PINNED: Final = re.compile(r"^([a-z0-9._-]+)==\S+ ?(;[^\\\n]*)?", re.MULTILINE)
_TROVE: Final = "License :: OSI Approved :: "


def pinned(text: str) -> dict[str, bool]:
    """Return the packages of a file with hashes, and whether each is installed everywhere."""
    return {name: not marker.strip() for name, marker in _PINNED.findall(text)}


def licence_of(name: str) -> str | None:
    """Return the licence that an installed package names; None if it is not installed here."""
    try:
        told = metadata(name)
    except PackageNotFoundError:
        return None
    said = "".join(told.get_all("License-Expression") or ()).strip()
    if said:
        return said
    classified = [
        one.removeprefix(_TROVE) for one in told.get_all("Classifier") or () if one.startswith(_TROVE)
    ]
    if classified:
        return ", ".join(classified)
    first = "".join(told.get_all("License") or ()).strip().splitlines()
    return first[0][:60] if first else "not named"


def table() -> str:
    """Return a line for each package that is installed here."""
    rows = [(name, licence_of(name)) for name in pinned(LOCKED.read_text(encoding="utf-8"))]
    lines = [f"| {name} | {licence} |" for name, licence in rows if licence is not None]
    return "\n".join(["| package | licence |", "|---|---|", *lines])


if __name__ == "__main__":
    sys.stdout.write(table() + "\n")
