"""Crash points for tests: a worker process that dies hard at a named line, once or whenever it works on one model."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

EXIT_CODE: Final = 137


class CrashPoint:
    """Dies at the named point: the first time the process family is there, which a file remembers.

    `POINT=MODEL` dies each time that a batch of the model is there: such a batch is poison.
    """

    def __init__(self, name: str, memory: Path) -> None:
        self._name, _, self._model = name.partition("=")
        self._memory = memory

    def __call__(self, reached: str, model: str) -> None:
        if reached != self._name or (self._model and self._model != model):
            return
        if not self._model and not self._first(reached):
            return
        os._exit(EXIT_CODE)

    def _first(self, reached: str) -> bool:
        self._memory.mkdir(parents=True, exist_ok=True)
        try:
            os.close(os.open(self._memory / reached, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        except FileExistsError:
            return False
        return True


def no_crash(reached: str, model: str) -> None:
    """The crash point of every process that is not under test."""
