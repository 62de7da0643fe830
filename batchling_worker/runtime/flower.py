"""Flower's columns: what its Tasks page shows of batches."""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from typing import Final

COLUMNS: Final = "name,state,result,args,received,runtime,uuid,worker"
"""A batch's row has provider and model in its name, its requests in args, its progress in result."""


def is_started_by(words: Sequence[str]) -> bool:
    """Return whether a command line starts Flower."""
    return "flower" in words


def prepare(words: Sequence[str], environ: MutableMapping[str, str]) -> None:
    """Set the columns of Flower's Tasks page to show progress, if the command line starts Flower without columns."""
    if is_started_by(words):
        environ.setdefault("FLOWER_TASKS_COLUMNS", COLUMNS)
