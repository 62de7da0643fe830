"""A run that queues nothing and sends nothing: it counts what would be sent, and reports that."""

from __future__ import annotations

import asyncio
import threading
import time
from dataclasses import dataclass
from typing import Final, NoReturn

from .calls import Lane, Request
from .errors import DryRun

QUIET_S: Final = 0.2
"""Calls are counted until none has come for this long; then all of them end."""
BYTES_PER_TOKEN: Final = 4


@dataclass(slots=True)
class _Tally:
    n_requests: int = 0
    n_bytes: int = 0
    n_batches: int = 0
    n_open_rows: int = 0
    n_open_bytes: int = 0

    def count(self, lane: Lane, size: int) -> None:
        full = self.n_open_rows >= lane.cap.rows or self.n_open_bytes + size > lane.cap.bytes
        if full or self.n_batches == 0:
            self.n_batches += 1
            self.n_open_rows = self.n_open_bytes = 0
        self.n_open_rows += 1
        self.n_open_bytes += size
        self.n_requests += 1
        self.n_bytes += size


class Rehearsal:
    """Counts requests by lane; each call ends in `DryRun` once no new one comes."""

    def __init__(self) -> None:
        self._tallies: dict[Lane, _Tally] = {}
        self._last_at = 0.0
        self._n_ended = 0
        self._lock = threading.Lock()

    async def ask(self, request: Request, n_bytes: int) -> NoReturn:
        """Counts the request and ends the call."""
        self._count(request, n_bytes)
        while (rest_s := self._rest_s()) > 0:  # noqa: ASYNC110 - quiet has no event of its own
            await asyncio.sleep(rest_s)
        self._end()

    def ask_blocking(self, request: Request, n_bytes: int) -> NoReturn:
        """Counts the request and ends the call, in the caller's thread."""
        self._count(request, n_bytes)
        while (rest_s := self._rest_s()) > 0:
            time.sleep(rest_s)
        self._end()

    @property
    def n_waiting(self) -> int:
        """How many of the calls have not ended yet, of those that were not cancelled before."""
        return self.n_requests - self._n_ended if self._rest_s() > -QUIET_S else 0

    @property
    def n_requests(self) -> int:
        return sum(tally.n_requests for tally in self._tallies.values())

    def report(self) -> str:
        """What would have been sent, in one line."""
        lanes = "; ".join(_line(lane, tally) for lane, tally in self._tallies.items())
        n_batches = sum(tally.n_batches for tally in self._tallies.values())
        tokens = sum(tally.n_bytes for tally in self._tallies.values()) // BYTES_PER_TOKEN
        return (
            f"Dry run, nothing was queued or sent: {_n(self.n_requests, 'request')} in {_n(n_batches, 'batch')}, "
            f"about {tokens:,} tokens of input at the provider's batch price, usually half ({lanes})."
        )

    def _count(self, request: Request, n_bytes: int) -> None:
        with self._lock:
            self._tallies.setdefault(request.lane, _Tally()).count(request.lane, n_bytes)
            self._last_at = time.monotonic()

    def _end(self) -> NoReturn:
        with self._lock:
            self._n_ended += 1
        raise DryRun(DryRun.__doc__)

    def _rest_s(self) -> float:
        return self._last_at + QUIET_S - time.monotonic()


def _line(lane: Lane, tally: _Tally) -> str:
    spec = lane.spec
    return (
        f"{spec.provider}/{spec.model} {spec.endpoint}: {_n(tally.n_requests, 'request')}, "
        f"{_n(tally.n_batches, 'batch')}, about {tally.n_bytes // BYTES_PER_TOKEN:,} tokens"
    )


def _n(n: int, word: str) -> str:
    plural = word + ("es" if word.endswith("ch") else "s")
    return f"{n:,} {word if n == 1 else plural}"
