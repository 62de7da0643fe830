"""Flower as it shows batches: which columns its Tasks page has."""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from typing import Final

COLUMNS: Final = "name,state,result,args,received,runtime,uuid,worker"
"""A batch's row tells provider and model in its name, its requests in args, its progress in result."""


def prepare(words: Sequence[str], environ: MutableMapping[str, str]) -> None:
    """Shows progress on Flower's Tasks page where the command line starts Flower and nobody chose columns."""
    if "flower" in words:
        environ.setdefault("FLOWER_TASKS_COLUMNS", COLUMNS)
