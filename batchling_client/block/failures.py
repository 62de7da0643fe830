"""Why requests of a run failed: the answers with an error that its calls received, by status and code."""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from typing import Any, Final

import msgspec

from ..wire import error_words
from ..wire.shown import shown

MOST: Final = 50
"""How many reasons a run tells apart."""
LONGEST_MESSAGE: Final = 200
LONGEST_CODE: Final = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """One reason for which requests failed."""

    status: int
    """The HTTP status that the callers got."""
    code: str
    """The error's code or type, in the provider's words; '' if it has none."""
    message: str
    """What the first such error said, in at most 200 characters."""
    n_requests: int = 1

    def __str__(self) -> str:
        """Return the reason in one line."""
        return f"{self.n_requests:,} failed with {self.kind}" + (f": {self.message}" if self.message else "")

    @property
    def kind(self) -> str:
        """The status and the code."""
        return f"{self.status} {self.code}".rstrip()


class Failures:
    """Counts the failures of one run; every thread may add to it."""

    def __init__(self) -> None:
        # Reentrant: a signal handler reads the counts.
        self._lock = threading.RLock()
        self._by_kind: dict[tuple[int, str], Failure] = {}

    def add(self, status: int, body: bytes) -> None:
        """Count an answer with an error."""
        failure = _read(status, body)
        kind = failure.status, failure.code
        with self._lock:
            known = self._by_kind.get(kind)
            if known is None and len(self._by_kind) >= MOST:
                kind = 0, "other reasons"
                failure = replace(failure, status=0, code="other reasons", message="")
                known = self._by_kind.get(kind)
            self._by_kind[kind] = (
                failure if known is None else replace(known, n_requests=known.n_requests + 1)
            )

    def counts(self) -> tuple[Failure, ...]:
        """Return the reasons, the most frequent first."""
        with self._lock:
            return tuple(sorted(self._by_kind.values(), key=lambda one: -one.n_requests))


def _read(status: int, body: bytes) -> Failure:
    said: Any
    try:
        said = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        said = body[:10_000].decode(errors="replace")
    entry = said[0] if isinstance(said, list) and said else said
    error = entry.get("error", entry) if isinstance(entry, dict) else {}
    words = [error.get(name) for name in ("code", "status", "type")] if isinstance(error, dict) else []
    code = next((one for one in words if isinstance(one, str) and one), "")
    return Failure(
        status=status,
        code=shown(code, LONGEST_CODE),
        message=shown(error_words.words_in(said), LONGEST_MESSAGE),
    )
