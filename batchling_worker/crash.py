"""Crash points for tests: a worker process that dies hard at a named line, once."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

EXIT_CODE: Final = 137


class CrashPoint:
    """Dies the first time the process family reaches the named point; a file remembers that it has been there."""

    def __init__(self, name: str, memory: Path) -> None:
        self._name = name
        self._memory = memory

    def __call__(self, reached: str) -> None:
        if reached != self._name:
            return
        self._memory.mkdir(parents=True, exist_ok=True)
        try:
            os.close(os.open(self._memory / reached, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        except FileExistsError:
            return
        os._exit(EXIT_CODE)


def no_crash(reached: str) -> None:
    """The crash point of every process that is not under test."""
