"""Crash points: a worker process that dies hard at a named line, once or whenever one batch is there."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from batchling_client.wire.records.batch import Batch

EXIT_CODE: Final = 137
VARIABLE: Final = "TEST_CRASH_AT"


class CrashPoint:
    """Kills the process at the named point, the first time that any process of a family gets there (kept in a file).

    `POINT=BATCH` kills it each time that the batch of that id, or a batch of that model, gets there: it is poison.
    """

    def __init__(self, name: str, memory: Path) -> None:
        self._name, _, self._poison = name.partition("=")
        self._memory = memory

    def __call__(self, reached: str, batch: Batch) -> None:
        if reached != self._name:
            return
        if self._poison in (batch.batch_id, batch.spec.model) or (not self._poison and self._first(reached)):
            os._exit(EXIT_CODE)

    def _first(self, reached: str) -> bool:
        self._memory.mkdir(parents=True, exist_ok=True)
        try:
            os.close(os.open(self._memory / reached, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        except FileExistsError:
            return False
        return True


def crash_point(environment: Mapping[str, str]) -> CrashPoint:
    """Return the crash point that a worker's environment names; without a name no step reaches it."""
    return CrashPoint(environment.get(VARIABLE, ""), Path(environment["BATCHLING_HOME"]) / "crashed")
