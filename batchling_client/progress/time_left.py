"""Estimates how long a run still takes, from how long the last batches of its lanes took at their provider."""

from __future__ import annotations

import datetime as dt
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from redis.asyncio import Redis

from ..views.inspection import pipelined
from ..wire.keys import BatchId, Keys, LaneId
from ..wire.records.batch import Batch
from ..wire.states import SETTLED_WITH_FAILURES, BatchState

LAST: Final = 20
"""How many of a lane's last batches are looked at."""
ALIKE: Final = 2.0
"""A batch of up to so many times the size, or of so much less, counts as alike."""
LEAST_ALIKE: Final = 3
FRESH_S: Final = 30.0
"""For how long the durations of a lane count; they are read again sooner when a batch of the run ends."""


class Took(NamedTuple):
    """How long one batch took, from its submission until its answers were delivered."""

    n_requests: int
    seconds: float


class TimeLeft:
    """Remembers the durations of the lanes of one run."""

    def __init__(self, redis: Redis, keys: Keys) -> None:
        self._redis = redis
        self._keys = keys
        self._took: dict[LaneId, tuple[Took, ...]] = {}
        self._read_at = 0.0
        self._n_over = 0

    async def of(self, batches: Sequence[Batch], now: dt.datetime) -> dt.timedelta | None:
        """Return about how long the unfinished batches still take; None if no batch of a lane has ended yet."""
        n_over = sum(batch.state.terminal for batch in batches)
        lanes = {batch.lane_id for batch in batches if not batch.state.terminal}
        seconds = now.timestamp()
        if n_over != self._n_over or seconds - self._read_at > FRESH_S or lanes - self._took.keys():
            self._took = await self._read(lanes)
            self._read_at, self._n_over = seconds, n_over
        return longest_left(batches, self._took, now)

    async def _read(self, lanes: Iterable[LaneId]) -> dict[LaneId, tuple[Took, ...]]:
        names = list(lanes)
        lists = [
            ("ZREVRANGE", self._keys.lane_batches(name, state), "0", str(LAST - 1))
            for name in names
            for state in (BatchState.SETTLED.value, SETTLED_WITH_FAILURES)
        ]
        found = await pipelined(self._redis, lists)
        ended = {
            name: [BatchId(one.decode()) for two in found[2 * i : 2 * i + 2] for one in two or ()]
            for i, name in enumerate(names)
        }
        wanted = [batch_id for some in ended.values() for batch_id in some]
        fields = ("submitted_at", "settled_at", "n_requests")
        hashes = await pipelined(
            self._redis, [("HMGET", self._keys.batch(batch_id), *fields) for batch_id in wanted]
        )
        took = dict(zip(wanted, map(_took, hashes), strict=True))
        return {name: _last(took[batch_id] for batch_id in some) for name, some in ended.items()}


class _Ended(NamedTuple):
    at: int
    took: Took


def _took(fields: Sequence[bytes | None] | None) -> _Ended | None:
    try:
        submitted, settled, n = (int(one or b"") for one in fields or ())
    except ValueError:
        return None
    return _Ended(settled, Took(n, max(0, settled - submitted) / 1000))


def _last(ended: Iterable[_Ended | None]) -> tuple[Took, ...]:
    return tuple(one.took for one in sorted(one for one in ended if one is not None)[-LAST:])


def longest_left(
    batches: Iterable[Batch], took: Mapping[LaneId, Sequence[Took]], now: dt.datetime
) -> dt.timedelta | None:
    """Return how long the batch that ends last still takes: batches run side by side at their provider.

    None if a lane is unknown, or a batch waits for something else than its provider.
    """
    longest: dt.timedelta | None = None
    for batch in batches:
        if batch.state.terminal or batch.n_open <= 0:
            continue
        if batch.error:
            # Nobody knows how long it waits for what holds it up.
            return None
        left = _left(batch, took.get(batch.lane_id, ()), now)
        if left is None:
            return None
        longest = left if longest is None else max(longest, left)
    return longest


def _left(batch: Batch, took: Sequence[Took], now: dt.datetime) -> dt.timedelta | None:
    """Return how long a batch still takes; None if nothing is known, or it takes longer than all before it."""
    alike = [one for one in took if 1 / ALIKE <= (one.n_requests or 1) / (batch.n_requests or 1) <= ALIKE]
    seconds = [one.seconds for one in (alike if len(alike) >= LEAST_ALIKE else took)]
    if not seconds:
        return None
    runs = now - batch.submitted_at if batch.submitted_at is not None else dt.timedelta()
    for expected in (statistics.median(seconds), max(seconds)):
        if dt.timedelta(seconds=expected) > runs:
            return dt.timedelta(seconds=expected) - runs
    return None
