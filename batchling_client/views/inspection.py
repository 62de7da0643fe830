"""Reads batches, runs, lanes and workers from Redis, for the CLI, the display and the doctor."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from redis.asyncio import Redis
from redis.exceptions import NoPermissionError, RedisError, ResponseError

from ..wire import key_hints
from ..wire.deployment.connection import UNREACHABLE
from ..wire.ids import owner_name, stamps_of
from ..wire.keys import BatchId, Keys, LaneId, Mailbox, RequestId, RunId
from ..wire.records.account import Circuit, Quota
from ..wire.records.batch import Batch
from ..wire.records.moment import moment
from ..wire.records.row_and_result import CorruptRecord, LaneSpec, WorkerPresence
from ..wire.records.usage_and_failure import SentAgain, Tokens, number, sent_again
from ..wire.states import IN_FLIGHT_STATES

TOLD: Final = (*UNREACHABLE, NoPermissionError)
"""Errors that are no damage of a record: they are raised."""
READ_AT_ONCE: Final = 100
"""Hashes read in one round trip: a look never holds Redis for long."""
IDS_AT_ONCE: Final = 16
"""Entries of a run's list of requests, of up to 128 ids each."""
MOST_SEARCHED: Final = 5000
"""Ids that are looked through for the beginning that a person wrote."""
CLOCKS_APART_MS: Final = 600_000
"""An id tells the time of the client that made it, the lists that of Redis."""
_IN_FLIGHT: Final = frozenset(state.value.encode() for state in IN_FLIGHT_STATES)
MOST_NAMED: Final = 1000
"""A run is found by its name among so many of the newest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """One run as stored in Redis; other runs may share its batches, `n_requests` counts its own requests."""

    run_id: RunId
    name: str
    started_at: dt.datetime
    n_requests: int
    n_reused: int = 0
    """How many of them earlier runs had made, answered or still in flight."""
    n_succeeded: int = 0
    n_failed: int = 0
    n_withdrawn: int = 0
    tokens: Tokens = field(default_factory=Tokens)
    """The tokens of its answers, of which earlier runs may have asked for some too."""
    is_counted: bool = True
    """Whether what became of its requests was counted; False for a run of a release that did not."""
    n_batches: int = 0
    """Into how many batches it has put requests."""
    sent_again: Mapping[SentAgain, int] = field(default_factory=dict)
    """How many of its requests were sent to a provider once more, by reason."""
    batches: tuple[Batch, ...] = ()
    """Empty in a list of runs, which counts them only."""

    @property
    def n_waiting(self) -> int:
        """How many of its requests are not answered yet."""
        return max(0, self.n_requests - self.n_succeeded - self.n_failed - self.n_withdrawn)


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneRecord:
    """One lane as stored in Redis; `last_used_at` is when a request last opened a batch in it."""

    lane_id: LaneId
    spec: LaneSpec
    last_used_at: dt.datetime
    open_batch: Batch | None = None
    quota: Quota | None = None
    """The provider's limit of enqueued tokens that it shares; None before its first submission."""
    circuit: Circuit | None = None
    """Why its batches are not called for, if something has failed or was refused."""
    key_hint: str = ""
    """The last characters of its API key; empty if they are not stored."""
    n_succeeded: int = 0
    """Requests of the lane answered with a success, as long as it is on record."""
    n_failed: int = 0
    tokens: Tokens = field(default_factory=Tokens)
    """The tokens of these answers."""
    sent_again: Mapping[SentAgain, int] = field(default_factory=dict)

    def as_json(self) -> dict[str, object]:
        """Return the record as `batchling lanes --json` prints it."""
        return {
            "lane_id": self.lane_id,
            "provider": self.spec.provider,
            "model": self.spec.model,
            "endpoint": self.spec.endpoint,
            "host": self.spec.host,
            "completion_window": self.spec.completion_window,
            "credential": self.spec.fingerprint,
            "key_hint": self.key_hint or None,
            "headers": dict(self.spec.stored_headers),
            "open_batch_id": self.open_batch.batch_id if self.open_batch else None,
            "n_waiting": self.open_batch.n_requests if self.open_batch else 0,
            "last_used_at": self.last_used_at.isoformat(),
            "quota": self.quota.as_json() if self.quota else None,
            "circuit": self.circuit.as_json() if self.circuit else None,
            "n_succeeded": self.n_succeeded,
            "n_failed": self.n_failed,
            "n_input": self.tokens.n_input,
            "n_cached": self.tokens.n_cached,
            "n_output": self.tokens.n_output,
            "n_unmetered": self.tokens.n_unmetered,
            "n_sent_again": sum(self.sent_again.values()),
        }


class Inspection:
    """Looks at one deployment and changes nothing. Every method raises redis-py's own errors when Redis is away.

    What cannot be read is left out, and named in `unreadable`.
    """

    def __init__(self, redis: Redis, keys: Keys) -> None:
        self._redis = redis
        self._keys = keys
        self._unreadable: dict[str, None] = {}

    @property
    def unreadable(self) -> list[str]:
        """What was met that could not be read, a sentence each."""
        return list(self._unreadable)

    @property
    def version(self) -> int:
        """The wire version whose keys are read."""
        return self._keys.version

    async def batches(self, limit: int) -> list[Batch]:
        """Return the newest batches, newest first."""
        return await self.batches_named(
            [BatchId(batch_id) for batch_id in await self.newest(self._keys.batches, limit)]
        )

    async def batches_named(self, batch_ids: Iterable[BatchId]) -> list[Batch]:
        """Return the batches that still exist and can be read, in the order given."""
        found = []
        wanted = list(batch_ids)
        hashes = await self._hashes([self._keys.batch(batch_id) for batch_id in wanted])
        for batch_id, fields in zip(wanted, hashes, strict=True):
            if fields == {}:
                continue
            try:
                found.append(Batch.decode(fields or {}))
            except CorruptRecord:
                self._leave_out(f"Batch {batch_id}")
        return found

    async def marks(self, batch_ids: Sequence[BatchId]) -> list[object]:
        """Return a mark per batch that differs whenever the batch has changed, far cheaper to read than the batch."""
        fields = ("updated_at", "state", "error", "silence", "n_dropped", "quarantined_at")
        replies = await pipelined(
            self._redis, [("HMGET", self._keys.batch(one), *fields) for one in batch_ids]
        )
        return [tuple(reply) if isinstance(reply, list) else reply for reply in replies]

    async def is_full(self) -> bool:
        """Return whether Redis is out of memory, as far as INFO shows."""
        try:
            memory: Any = await self._redis.info("memory")
        except UNREACHABLE:
            raise
        except RedisError:
            return False
        return 0 < int(memory.get("maxmemory", 0)) <= int(memory.get("used_memory", 0))

    async def batch(self, batch_id: BatchId) -> Batch | None:
        """Return one batch; None if there is none of that id (any more)."""
        return next(iter(await self.batches_named([batch_id])), None)

    async def batch_ids_of(self, run_id: RunId) -> list[BatchId]:
        """Return the batches a run put its requests into, oldest first; each batch says where its rows moved on to."""
        try:
            members = await self._redis.execute_command("SMEMBERS", self._keys.run_batches(run_id))
        except TOLD:
            raise
        except ResponseError:
            self._leave_out(f"The list of batches of run {run_id}")
            members = []
        return sorted(BatchId(member.decode(errors="replace")) for member in members)

    async def batches_of(self, run_id: RunId) -> list[Batch]:
        """Return a run's batches, oldest first, including the batches that its requests moved on to."""
        found: dict[BatchId, Batch] = {}
        asked: set[BatchId] = set()
        wanted = await self.batch_ids_of(run_id)
        while wanted:
            asked.update(wanted)
            for batch in await self.batches_named(wanted):
                found[batch.batch_id] = batch
            moved = {batch.moved_to for batch in found.values() if batch.moved_to is not None}
            wanted = sorted(moved - asked)
        return sorted(found.values(), key=lambda batch: batch.batch_id)

    async def mailboxes_of(self, run_id: RunId) -> list[Mailbox]:
        """Return the mailboxes in which a run has waited for answers."""
        (fields,) = await self._hashes([self._keys.run(run_id)])
        names = [name.decode(errors="replace") for name in fields or {}]
        return [Mailbox(name.removeprefix("mailbox:")) for name in names if name.startswith("mailbox:")]

    async def runs(self, limit: int, after: str = "") -> list[RunRecord]:
        """Return the newest runs, newest first; none of their batches is read.

        With `after`, the id of a run, return those that are older than it.
        """
        return await self._records(
            [RunId(run_id) for run_id in await self.newest(self._keys.runs, limit, after)]
        )

    async def _records(self, run_ids: Sequence[RunId]) -> list[RunRecord]:
        keys = self._keys
        hashes = await self._hashes([keys.run(run_id) for run_id in run_ids])
        sizes = await pipelined(
            self._redis,
            [
                size
                for one in run_ids
                for size in (("LLEN", keys.run_rows(one)), ("SCARD", keys.run_batches(one)))
            ],
        )
        found = []
        for run_id, fields, n_listed, n_batches in zip(run_ids, hashes, sizes[::2], sizes[1::2], strict=True):
            record = self._record(run_id, fields, n_listed or 0, n_batches or 0)
            found += [] if record is None else [record]
        return found

    async def runs_called(self, name: str) -> list[RunId]:
        """Return the runs of that name, newest first."""
        run_ids = [RunId(run_id) for run_id in await self.newest(self._keys.runs, MOST_NAMED)]
        names = await pipelined(self._redis, [("HGET", self._keys.run(run_id), "name") for run_id in run_ids])
        return [run_id for run_id, its_name in zip(run_ids, names, strict=True) if its_name == name.encode()]

    async def ids_beginning_with(self, prefix: str) -> tuple[list[BatchId], list[RunId]]:
        """Return the batches and the runs whose ids begin so, newest first."""
        batch_ids = await self._beginning_with(self._keys.batches, "b", prefix)
        run_ids = await self._beginning_with(self._keys.runs, "r", prefix)
        return [BatchId(one) for one in batch_ids], [RunId(one) for one in run_ids]

    async def _beginning_with(self, key: str, letter: str, prefix: str) -> list[str]:
        """Search the list of batches or runs at the time that an id of theirs tells."""
        stamps = stamps_of(prefix) if prefix.startswith(letter) else None
        if stamps is None:
            return []
        first, last = stamps[0] - CLOCKS_APART_MS, stamps[1] + CLOCKS_APART_MS
        try:
            members = await self._redis.execute_command(
                "ZREVRANGEBYSCORE", key, last, first, "LIMIT", 0, MOST_SEARCHED
            )
        except TOLD:
            raise
        except ResponseError:
            self._leave_out(f"The list {key}")
            return []
        return [one for member in members if (one := member.decode(errors="replace")).startswith(prefix)]

    async def batches_at_provider(self, provider_batch_id: str) -> list[BatchId]:
        """Return the batches that a provider knows by that id, newest first.

        An account that a lane uses now is asked by its digest, which takes no search; else the newest are searched.
        """
        lane_ids = await self.newest(self._keys.lanes, MOST_SEARCHED)
        digests = await pipelined(
            self._redis, [("HGET", self._keys.lane(one), "account") for one in lane_ids]
        )
        accounts = {one.decode(errors="replace") for one in digests if one}
        owners = await pipelined(
            self._redis,
            [("GET", self._keys.owner(owner_name(account, provider_batch_id))) for account in accounts],
        )
        owned = {BatchId(one.decode(errors="replace")) for one in owners if one}
        if owned:
            return sorted(owned, reverse=True)
        batch_ids = [BatchId(one) for one in await self.newest(self._keys.batches, MOST_NAMED)]
        known_ids = await pipelined(
            self._redis, [("HGET", self._keys.batch(one), "provider_batch_id") for one in batch_ids]
        )
        wanted = provider_batch_id.encode()
        return [one for one, known in zip(batch_ids, known_ids, strict=True) if known == wanted]

    async def runs_named(self, run_ids: Sequence[RunId]) -> list[RunRecord]:
        """Return those of the runs that are still on record, without their batches."""
        return await self._records(run_ids)

    async def run(self, run_id: RunId) -> RunRecord | None:
        """Return one run with its batches; None if there is none of that id (any more)."""
        record = await self.run_alone(run_id)
        return record and dataclasses.replace(record, batches=tuple(await self.batches_of(run_id)))

    async def run_alone(self, run_id: RunId) -> RunRecord | None:
        """Return one run without its batches; None if there is none of that id."""
        return next(iter(await self._records([run_id])), None)

    async def request_ids_of(self, run_id: RunId) -> AsyncIterator[list[RequestId]]:
        """Yield the requests of a run in the order of its calls; withdrawn and asked for again, it comes twice."""
        start = 0
        while True:
            entries = await self._redis.execute_command(
                "LRANGE", self._keys.run_rows(run_id), start, start + IDS_AT_ONCE - 1
            )
            if not entries:
                return
            start += len(entries)
            yield [RequestId(one) for entry in entries for one in entry.decode(errors="replace").split()]

    def _record(
        self, run_id: RunId, fields: Mapping[bytes, bytes] | None, n_listed: int, n_batches: int
    ) -> RunRecord | None:
        """Return the record of a run; None if it is gone, or damaged and named in `unreadable`."""
        if fields == {}:
            return None
        known = fields or {}
        try:
            n_requests = int(known.get(b"n_requests", b"0"))
            return RunRecord(
                run_id=run_id,
                name=known.get(b"name", b"").decode(),
                started_at=moment(float(known[b"started_at"])),
                n_requests=n_requests,
                n_reused=int(known.get(b"n_reused", b"0")),
                n_succeeded=number(known, "n_succeeded"),
                n_failed=number(known, "n_failed"),
                n_withdrawn=number(known, "n_withdrawn"),
                tokens=Tokens.decode(known),
                is_counted=bool(n_listed) or not n_requests,
                n_batches=n_batches,
                sent_again=sent_again(known),
            )
        except (KeyError, ValueError, OverflowError):
            self._leave_out(f"Run {run_id}")
            return None

    async def lanes(self, limit: int) -> list[LaneRecord]:
        """Return the lanes used last, latest first, with their open batches."""
        lane_ids = [LaneId(lane_id) for lane_id in await self.newest(self._keys.lanes, limit)]
        hashes = await self._hashes([self._keys.lane(lane_id) for lane_id in lane_ids])
        scores = await pipelined(self._redis, [("ZSCORE", self._keys.lanes, lane_id) for lane_id in lane_ids])
        opened = await self.batches_named(
            BatchId(fields[b"open"].decode(errors="replace"))
            for fields in hashes
            if fields and b"open" in fields
        )
        by_lane = {batch.lane_id: batch for batch in opened}
        quotas = await self._quotas({_text(fields, b"quota") for fields in hashes})
        names = {_text(fields, b"account") for fields in hashes} | set(lane_ids)
        circuits = await self._circuits(names)
        hints = await self._key_hints(hashes)
        found = []
        for lane_id, fields, score in zip(lane_ids, hashes, scores, strict=True):
            if fields == {} or score is None:
                continue
            known = fields or {}
            try:
                spec = LaneSpec.decode(known.get(b"spec", b""))
            except CorruptRecord:
                self._leave_out(f"Lane {lane_id}")
                continue
            # The account and the lane may both have a circuit: an open one holds the lane up.
            of_both = [circuits[name] for name in (_text(fields, b"account"), lane_id) if name in circuits]
            found.append(
                LaneRecord(
                    lane_id=lane_id,
                    spec=spec,
                    last_used_at=moment(float(score)),
                    open_batch=by_lane.get(lane_id),
                    quota=quotas.get(_text(fields, b"quota")),
                    circuit=max(of_both, key=lambda circuit: circuit.until is not None, default=None),
                    key_hint=hints.get(spec.fingerprint, ""),
                    n_succeeded=number(known, "n_succeeded"),
                    n_failed=number(known, "n_failed"),
                    tokens=Tokens.decode(known),
                    sent_again=sent_again(known),
                )
            )
        return found

    async def _key_hints(self, lanes: Sequence[Mapping[bytes, bytes] | None]) -> dict[str, str]:
        """Return the last characters of the lanes' keys, by fingerprint, as far as they are stored."""
        whose = set()
        for fields in lanes:
            with contextlib.suppress(CorruptRecord):
                whose.add(str(LaneSpec.decode((fields or {}).get(b"spec", b"")).fingerprint))
        ordered = sorted(whose)
        stored = await pipelined(self._redis, [("GET", self._keys.key_hint(one)) for one in ordered])
        said = {one: (raw or b"").decode(errors="replace") for one, raw in zip(ordered, stored, strict=True)}
        return {one: hint for one, hint in said.items() if key_hints.is_hint(hint)}

    async def _quotas(self, quota_ids: Collection[str]) -> dict[str, Quota]:
        """Return the quotas, each with those batches in flight that have not ended."""
        wanted = sorted(one for one in quota_ids if one)
        found = {}
        for quota_id, fields in zip(
            wanted, await self._hashes([self._keys.quota(one) for one in wanted]), strict=True
        ):
            try:
                found[quota_id] = Quota.decode(fields or {})
            except CorruptRecord:
                self._leave_out(f"The quota {quota_id}")
        batch_ids = sorted({batch_id for quota in found.values() for batch_id in quota.in_flight})
        states = await pipelined(self._redis, [("HGET", self._keys.batch(one), "state") for one in batch_ids])
        live = {one for one, state in zip(batch_ids, states, strict=True) if state in _IN_FLIGHT}
        return {
            quota_id: dataclasses.replace(
                quota, in_flight={one: n for one, n in quota.in_flight.items() if one in live}
            )
            for quota_id, quota in found.items()
        }

    async def _circuits(self, names: Collection[str]) -> dict[str, Circuit]:
        """Return the circuits of these accounts and lanes."""
        wanted = sorted(name for name in names if name)
        found: dict[str, Circuit] = {}
        hashes = await self._hashes([self._keys.circuit(name) for name in wanted])
        for name, fields in zip(wanted, hashes, strict=True):
            with contextlib.suppress(CorruptRecord):
                found |= {name: Circuit.decode(fields)} if fields else {}
        return found

    async def workers(self) -> list[WorkerPresence]:
        """Return the workers whose heartbeat is at most fifteen seconds old; raise `CorruptRecord`."""
        names = await self.newest(self._keys.workers, READ_AT_ONCE)
        beats = await pipelined(self._redis, [("GET", self._keys.worker(name)) for name in names])
        return [WorkerPresence.decode(raw) for raw in beats if raw is not None]

    async def workers_known(self) -> list[WorkerPresence]:
        """Return the live workers whose heartbeat this version can read."""
        with contextlib.suppress(CorruptRecord):
            return await self.workers()
        return []

    async def n_unfinished(self) -> int:
        """Return how many batches are not terminal."""
        try:
            return int(await self._redis.execute_command("ZCARD", self._keys.schedule))
        except TOLD:
            raise
        except ResponseError:
            self._leave_out("The schedule")
            return 0

    async def queued(self) -> tuple[int, int]:
        """Return how many requests wait for an answer, and how many bytes their lines have.

        Beyond 5,000 unfinished batches, both are estimates.
        """
        ids = await self._redis.execute_command("ZRANGE", self._keys.schedule, 0, MOST_SEARCHED - 1)
        counts = ("n_requests", "n_succeeded", "n_failed", "n_requeued", "n_dropped", "n_bytes")
        replies = await pipelined(
            self._redis, [("HMGET", self._keys.batch(one.decode(errors="replace")), *counts) for one in ids]
        )
        n_waiting = n_bytes = 0
        for reply in replies:
            n_all, *n_gone, size = (int(one) if one and one.isdigit() else 0 for one in reply or [None] * 6)
            left = max(0, n_all - sum(n_gone))
            n_waiting += left
            n_bytes += size * left // max(1, n_all)
        more = await self.n_unfinished() / len(ids) if ids else 1
        return int(n_waiting * more), int(n_bytes * more)

    async def skews_s(self) -> dict[str, float]:
        """Return how far each live worker's clock is ahead of Redis', in seconds, if the worker reports it."""
        names = await self.newest(self._keys.workers, READ_AT_ONCE)
        # Compare each heartbeat with the time of that heartbeat, as it may be renewed between two reads.
        records = await pipelined(
            self._redis,
            [
                pair
                for name in names
                for pair in (("GET", self._keys.worker(name)), ("ZSCORE", self._keys.workers, name))
            ],
        )
        beats = [
            (WorkerPresence.decode(raw), float(at))
            for raw, at in zip(records[::2], records[1::2], strict=True)
            if raw and at
        ]
        return {beat.name: beat.said_at - heard_ms / 1000 for beat, heard_ms in beats if beat.said_at}

    async def newest(self, key: str, limit: int, after: str = "") -> list[str]:
        """Return the members of a list for people, newest first, from behind the member `after` if it is there."""
        try:
            rank = await self._redis.execute_command("ZREVRANK", key, after) if after else None
            first = 0 if rank is None else int(rank) + 1
            members = await self._redis.execute_command("ZREVRANGE", key, first, first + limit - 1)
        except TOLD:
            raise
        except ResponseError:
            self._leave_out(f"The list {key}")
            return []
        return [member.decode(errors="replace") for member in members]

    async def _hashes(self, keys: Sequence[str]) -> list[Mapping[bytes, bytes] | None]:
        """Return the hashes; an empty one for a missing key, None for a key of another type."""
        return await pipelined(self._redis, [("HGETALL", key) for key in keys])

    def _leave_out(self, what: str) -> None:
        sentence = f"{what} cannot be read: its record in Redis is damaged, or of another version."
        self._unreadable[sentence] = None


async def pipelined(redis: Redis, commands: Sequence[tuple[str, ...]]) -> list[Any]:
    """Return the replies, read a hundred at a time; None for a key of another type."""
    replies: list[Any] = []
    for first in range(0, len(commands), READ_AT_ONCE):
        async with redis.pipeline(transaction=False) as pipe:
            for command in commands[first : first + READ_AT_ONCE]:
                pipe.execute_command(*command)
            replies += await pipe.execute(raise_on_error=False)
    for reply in replies:
        if isinstance(reply, TOLD):
            raise reply
    return [None if isinstance(reply, ResponseError) else reply for reply in replies]


def _text(fields: Mapping[bytes, bytes] | None, name: bytes) -> str:
    return (fields or {}).get(name, b"").decode(errors="replace")
