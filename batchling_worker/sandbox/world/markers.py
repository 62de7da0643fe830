"""Markers in a request's text that make only this request fail, in a batch and in realtime.

`fault:400`, `fault:429`, `fault:500`, any status: the row fails with it.
`fault:missing`: answered, and in neither file. `fault:zero`: status_code 0 in the error file.
`fault:broken`: its result line is not JSON. `fault:twice`: its result line appears twice.
`xN` after any of them (`fault:500x1`) limits it to the first N times that this custom_id is run.
"""

from __future__ import annotations

import re
import threading
from collections import Counter
from typing import NamedTuple

_MARKER = re.compile(rb"fault:([1-9]\d\d|missing|zero|broken|twice)(?:x(\d+))?")


class Marker(NamedTuple):
    """The effect of a marker: an HTTP `status` or a `quirk` of the result file."""

    status: int | None
    quirk: str | None


class Markers:
    """Finds markers and counts how often a limited one has struck each custom_id."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._struck: Counter[str] = Counter()

    def find(self, text: bytes, custom_id: str) -> Marker | None:
        """Return the marker that strikes this run of the request, if any."""
        if b"fault:" not in text:
            return None
        found = _MARKER.search(text)
        if found is None:
            return None
        word, limit = found.group(1).decode(), found.group(2)
        if limit is not None:
            with self._lock:
                if self._struck[custom_id] >= int(limit):
                    return None
                self._struck[custom_id] += 1
        return Marker(int(word), None) if word.isdigit() else Marker(None, word)

    def clear(self) -> None:
        """Reset the counts."""
        with self._lock:
            self._struck.clear()
