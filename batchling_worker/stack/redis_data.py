"""Which server wrote a data directory, and whether another one can read it."""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_HEADER: Final = re.compile(
    rb"(?P<magic>REDIS|VALKEY)(?P<format>\d{3,4})(?:.{0,8}?(?:redis|valkey)-ver(?P<length>.)(?P<version>.+))?",
    re.DOTALL,
)
_HEADER_BYTES: Final = 64
_BASE: Final = re.compile(r"file (?P<name>\S+) seq \d+ type b")
_FOLDER: Final = "appendonlydir"
_OLD_FILE: Final = "appendonly.aof"

_FORMATS: Final = {8: (5, 0), 9: (5, 0), 10: (7, 0), 11: (7, 2), 12: (7, 4), 80: (9, 0)}
"""By number of the file format: the first version that reads it. Up to 11, Redis and Valkey have them in common."""
_LAST_COMMON: Final = 11
_RELAXED_SINCE: Final = (9, 0)
"""The first Valkey that can be told to read the files of a newer Redis, and stops at what it does not know."""
RELAXED: Final = ("--rdb-version-check", "relaxed")

Version = tuple[int, int]


class Family(enum.StrEnum):
    """The families of servers: each counts its versions and file formats on its own."""

    REDIS = "Redis"
    VALKEY = "Valkey"


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """The server that wrote a data file, from the head of the file."""

    family: Family
    format: int
    version: str
    """Empty if the file does not say."""

    def __str__(self) -> str:
        return f"{self.family} {self.version}".rstrip()


_IN_A_FOLDER: Final = Written(family=Family.REDIS, format=10, version="7.0 or newer")


def written(directory: Path) -> Written | None:
    """Return who wrote the append-only file in that directory; None if every server reads what is there."""
    folder = directory / _FOLDER
    base = _base_of(folder)
    try:
        with (base or directory / _OLD_FILE).open("rb") as file:
            head = file.read(_HEADER_BYTES)
    except OSError:
        head = b""
    match = _HEADER.match(head)
    if match is None:
        # Plain commands: every server that looks into the folder can read them; an older server would start empty.
        return _IN_A_FOLDER if folder.is_dir() else None
    version = match["version"][: match["length"][0]].decode("ascii", "replace") if match["version"] else ""
    return Written(
        family=Family.VALKEY if match["magic"] == b"VALKEY" else Family.REDIS,
        format=int(match["format"]),
        version=version,
    )


def words_to_read(data: Written, family: Family, version: Version) -> tuple[str, ...] | None:
    """Return the options with which a server of that family and version reads the data; None if it cannot."""
    first = _FORMATS.get(data.format) or _numbers(data.version)
    if data.format <= _LAST_COMMON or data.family is family:
        return () if version >= first else None
    if family is Family.VALKEY and version >= _RELAXED_SINCE:
        return RELAXED
    return None


def _base_of(folder: Path) -> Path | None:
    """Return the file that is loaded first, from the manifest that Redis keeps since version 7."""
    try:
        manifest = (folder / f"{_OLD_FILE}.manifest").read_text(encoding="utf-8")
    except (OSError, ValueError):
        return None
    base = _BASE.search(manifest)
    return folder / base["name"].strip('"') if base else None


def _numbers(version: str) -> Version:
    found = re.findall(r"\d+", version)[:2]
    return (int(found[0]), int(found[1])) if len(found) == 2 else (0, 0)
