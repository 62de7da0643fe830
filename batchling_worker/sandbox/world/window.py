"""Finds a range of whole lines in a file of any size without reading it into memory."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple


class Window(NamedTuple):
    """Bytes from `start` to `end`; `next_line` counts from 0."""

    start: int
    end: int
    next_line: int


def window(path: Path, n_bytes: int, skip: int, limit: int | None) -> Window:
    """Return the bytes of `limit` lines (None = all) after the first `skip`, within the first `n_bytes` of the file."""
    start = end = n_lines = 0
    last = None if limit is None else skip + limit
    if n_bytes == 0:
        return Window(0, 0, 0)
    with path.open("rb", buffering=1 << 20) as lines:
        for line in lines:
            if end >= n_bytes or n_lines == last:
                break
            end += len(line)
            n_lines += 1
            if n_lines <= skip:
                start = end
    return Window(start, end, n_lines)
