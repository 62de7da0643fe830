"""Lists batches by what people look for, from the lists that the scripts keep: what is not wanted is not read."""

from __future__ import annotations

import contextlib
import datetime as dt
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from redis.asyncio import Redis

from ..wire.keys import BatchId, Keys, LaneId
from ..wire.records.account import Circuit
from ..wire.records.batch import Batch
from ..wire.records.moment import moment
from ..wire.records.row_and_result import CorruptRecord, LaneSpec
from ..wire.records.usage_and_failure import SentAgain, fields_of_sent_again, sent_again
from ..wire.states import LISTS, QUARANTINED, SETTLED_WITH_FAILURES, BatchState
from .batch_view import OF_THOSE_OVER, BatchView, Status, view_of
from .inspection import Inspection, pipelined
from .pace import Pace, pace_of

UNFINISHED: Final = (
    QUARANTINED,
    *(state.value for state in BatchState if not state.terminal),
)
OVER: Final = tuple(name for name in LISTS if name not in UNFINISHED)
FAILED: Final = (SETTLED_WITH_FAILURES, BatchState.FAILED.value, BatchState.CANCELLED.value)
AT_ONCE: Final = 200
MOST_LANES: Final = 5_000
MOST_SEARCHED: Final = 20_000
"""A filter that no list answers, such as the status, looks at so many batches at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """What to list; an empty field stands for everything."""

    lists: tuple[str, ...] = ()
    """Names of `wire.states.LISTS`."""
    provider: str = ""
    model: str = ""
    lane: str = ""
    """A lane's id, or the beginning of one."""
    key: str = ""
    """The beginning of a credential's fingerprint."""
    since: dt.datetime | None = None
    """Opened since then, or over since then."""
    statuses: frozenset[Status] = frozenset()

    @property
    def names(self) -> tuple[str, ...]:
        """The lists in which batches of these statuses can be."""
        names = self.lists or LISTS
        if self.statuses and self.statuses <= OF_THOSE_OVER:
            return tuple(name for name in names if name in OVER)
        if self.statuses and self.statuses.isdisjoint(OF_THOSE_OVER):
            return tuple(name for name in names if name in UNFINISHED)
        return names

    def takes_lane(self, lane_id: str, spec: LaneSpec | None) -> bool:
        """Return whether batches of the lane may be listed; of a lane without a spec, its record is damaged."""
        if spec is None:
            return lane_id.startswith(self.lane) and not (self.provider or self.model or self.key)
        return (
            self.provider in ("", spec.provider)
            and self.model in ("", spec.model)
            and lane_id.startswith(self.lane)
            and spec.fingerprint.startswith(self.key)
        )


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """The place of a batch in a list: its time in ms, and its id."""

    at_ms: int
    batch_id: BatchId

    def __str__(self) -> str:
        return f"{self.at_ms}-{self.batch_id}"

    @classmethod
    def parse(cls, text: str) -> Place:
        """Read what `str` gave; raise `ValueError`."""
        at_ms, _, batch_id = text.partition("-")
        if not at_ms.isdigit() or len(at_ms) > 15:
            raise ValueError(text)
        return cls(int(at_ms), BatchId(batch_id))


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Some batches of a list, in its order."""

    batches: tuple[BatchView, ...]
    n_all: int
    """How many batches the filter's lists hold, before `statuses`, `since` and `after` narrow them down."""
    after: str
    """Give it to read on; '' = this was the last page."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lanes:
    """The lanes of a deployment, and how many batches each of their lists holds."""

    specs: Mapping[LaneId, LaneSpec | None]
    """None = the record of the lane is damaged."""
    accounts: Mapping[LaneId, str]
    counts: Mapping[tuple[LaneId, str], int]
    sent_again: Mapping[SentAgain, int]
    """Requests of all lanes that were sent to their providers once more, by reason."""

    def n(self, names: Collection[str], wanted: Filter) -> int:
        """Return how many batches the lists of that name hold in the lanes that a filter takes."""
        return sum(
            n
            for (lane_id, name), n in self.counts.items()
            if name in names and wanted.takes_lane(lane_id, self.specs[lane_id])
        )


class BatchLists:
    """Reads the lists of one deployment. Raises redis-py's own errors when Redis is away."""

    def __init__(self, redis: Redis, keys: Keys) -> None:
        self._redis = redis
        self._keys = keys
        self.inspection = Inspection(redis, keys)

    async def lanes(self) -> Lanes:
        """Return the lanes and the lengths of their lists."""
        lane_ids = [LaneId(one) for one in await self.inspection.newest(self._keys.lanes, MOST_LANES)]
        again = fields_of_sent_again()
        replies = await pipelined(
            self._redis, [("HMGET", self._keys.lane(one), "spec", "account", *again) for one in lane_ids]
        )
        sums = Counter[SentAgain]()
        specs: dict[LaneId, LaneSpec | None] = {}
        accounts: dict[LaneId, str] = {}
        for lane_id, fields in zip(lane_ids, replies, strict=True):
            spec, account, *counted = fields or (None, None)
            known = {name.encode(): n for name, n in zip(again, counted, strict=False) if n}
            sums.update(sent_again(known))
            specs[lane_id] = None
            with contextlib.suppress(CorruptRecord):
                specs[lane_id] = LaneSpec.decode(spec or b"")
            accounts[lane_id] = (account or b"").decode(errors="replace")
        pairs = [(lane_id, name) for lane_id in specs for name in LISTS]
        lengths = await pipelined(self._redis, [("ZCARD", self._keys.lane_batches(*pair)) for pair in pairs])
        counts = {pair: n for pair, n in zip(pairs, lengths, strict=True) if n}
        return Lanes(specs=specs, accounts=accounts, counts=counts, sent_again=sums)

    async def page(
        self,
        wanted: Filter,
        *,
        limit: int,
        newest_first: bool = False,
        after: str = "",
        lanes: Lanes | None = None,
        most_searched: int = MOST_SEARCHED,
    ) -> Page:
        """Return up to `limit` batches, oldest or newest first, from behind the place `after`; raise `ValueError`.

        Fewer are returned, with a place to read on from, once `most_searched` batches were looked at.
        """
        known = lanes or await self.lanes()
        names = wanted.names
        start = Place.parse(after) if after else None
        found: list[BatchView] = []
        n_searched, at_end = 0, False
        while len(found) < limit and n_searched < most_searched and not at_end:
            want = max(limit, AT_ONCE) if wanted.statuses else limit - len(found)
            places = await self._places(known, names, wanted, want, start, newest_first=newest_first)
            n_searched += len(places)
            at_end = len(places) < want
            views = {
                one.batch_id: one for one in await self.views([place.batch_id for place in places], known)
            }
            for place in places:
                start = place
                view = views.get(place.batch_id)
                if view is not None and (not wanted.statuses or view.status in wanted.statuses):
                    found.append(view)
                if len(found) == limit:
                    at_end = at_end and place == places[-1]
                    break
        return Page(
            batches=tuple(found), n_all=known.n(names, wanted), after="" if at_end else str(start or "")
        )

    async def _places(
        self,
        lanes: Lanes,
        names: Collection[str],
        wanted: Filter,
        limit: int,
        start: Place | None,
        *,
        newest_first: bool,
    ) -> list[Place]:
        """Return the next places of all the lists together, in their order."""
        keys = [
            self._keys.lane_batches(lane_id, name)
            for (lane_id, name) in lanes.counts
            if name in names and wanted.takes_lane(lane_id, lanes.specs[lane_id])
        ]
        since = int(wanted.since.timestamp() * 1000) if wanted.since else 0
        low, high = (
            (since, start.at_ms if start else "+inf")
            if newest_first
            else (
                max(since, start.at_ms if start else 0),
                "+inf",
            )
        )
        command = ("ZREVRANGEBYSCORE", high, low) if newest_first else ("ZRANGEBYSCORE", low, high)
        # Of one millisecond there may be batches on this side of the place, too: a few more are read than wanted.
        more = limit + 64
        replies = await pipelined(
            self._redis,
            [
                (command[0], key, str(command[1]), str(command[2]), "WITHSCORES", "LIMIT", "0", str(more))
                for key in keys
            ],
        )
        places = [
            Place(int(score), BatchId(member.decode(errors="replace")))
            for some in replies
            for member, score in pairs(some)
        ]
        places.sort(reverse=newest_first)
        if start is not None:
            places = [one for one in places if (one < start if newest_first else one > start)]
        return places[:limit]

    async def clock_and_lag(self) -> tuple[dt.datetime, float]:
        """Return Redis' time, and by how many seconds the most overdue look is late."""
        (seconds, micros), first = await pipelined(
            self._redis, [("TIME",), ("ZRANGE", self._keys.schedule, "0", "0", "WITHSCORES")]
        )
        now_ms = int(seconds) * 1000 + int(micros) // 1000
        due_ms = min((score for _, score in pairs(first)), default=float(now_ms))
        return moment(now_ms), max(0.0, (now_ms - due_ms) / 1000)

    async def pace(self, now: dt.datetime) -> Pace:
        """Return how fast answers have come lately."""
        return await pace_of(self._redis, self._keys, now.timestamp())

    async def views(self, batch_ids: Sequence[BatchId], lanes: Lanes | None = None) -> list[BatchView]:
        """Return the views of these batches, in this order; those that are gone or cannot be read are left out."""
        batches = await self.inspection.batches_named(batch_ids)
        ids = [one.batch_id for one in batches]
        chunks = [ids[first : first + AT_ONCE] for first in range(0, len(ids), AT_ONCE)]
        looks = [("ZMSCORE", self._keys.schedule, *chunk) for chunk in chunks]
        *replies, (seconds, micros) = await pipelined(self._redis, [*looks, ("TIME",)])
        scores = [
            score
            for chunk, reply in zip(chunks, replies, strict=True)
            for score in reply or [None] * len(chunk)
        ]
        now = moment(int(seconds) * 1000 + int(micros) // 1000)
        circuits = await self._circuits({name for one in batches for name in _circuits_of(one, lanes)})
        return [
            view_of(
                batch,
                now=now,
                next_look_at=None if score is None else moment(float(score)),
                circuit=next(
                    (circuits[name] for name in _circuits_of(batch, lanes) if name in circuits), None
                ),
                version=self.inspection.version,
            )
            for batch, score in zip(batches, scores, strict=True)
        ]

    async def _circuits(self, names: Collection[str]) -> Mapping[str, Circuit]:
        """Return those circuits of accounts and lanes that are open or parked."""
        wanted = sorted(names)
        replies = await pipelined(self._redis, [("HGETALL", self._keys.circuit(name)) for name in wanted])
        found = {}
        for name, fields in zip(wanted, replies, strict=True):
            try:
                circuit = Circuit.decode(fields or {})
            except CorruptRecord:
                continue
            if circuit.until is not None:
                found[name] = circuit
        return found


def _circuits_of(batch: Batch, lanes: Lanes | None) -> list[str]:
    """Return the names of the circuits that may hold a batch up, that of its account first."""
    if batch.state.terminal:
        return []
    account = batch.account or (lanes.accounts.get(batch.lane_id, "") if lanes else "")
    return [name for name in (account, batch.lane_id) if name]


def list_of(batch: BatchView) -> str:
    """Return the list that a batch is in, as `_moved.lua` chooses it."""
    if batch.quarantined_at is not None and not batch.state.terminal:
        return QUARANTINED
    if batch.state is BatchState.SETTLED and batch.n_failed:
        return SETTLED_WITH_FAILURES
    return batch.state.value


def pairs(flat: Sequence[Any] | None) -> list[tuple[bytes, float]]:
    """Return members with their scores, of a reply to WITHSCORES in either protocol; None = no list."""
    if not flat:
        return []
    if isinstance(flat[0], (list, tuple)):
        return [(member, float(score)) for member, score in flat]
    return [(member, float(score)) for member, score in zip(flat[::2], flat[1::2], strict=True)]
