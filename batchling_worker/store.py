"""Batches in Redis. Beside `account_store.py`, which keeps accounts, the only module of the worker that talks to it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncGenerator, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from batchling_client.wire import version_1
from batchling_client.wire.deployment import salt
from batchling_client.wire.deployment.connection import UNREACHABLE, ask
from batchling_client.wire.deployment.redis_health import RedisFacts
from batchling_client.wire.keys import BatchId, Keys, LaneId, ProviderBatchId, RequestId
from batchling_client.wire.records.batch import Batch
from batchling_client.wire.records.in_flight import is_in
from batchling_client.wire.records.row_and_result import CorruptRecord, LaneSpec, Row, WorkerPresence
from batchling_client.wire.scripts import DueBatch, Scripts
from batchling_client.wire.states import BatchState

from .account_store import AccountStore
from .claim import Claim, Terms
from .decisions.rereading import Tally

ROWS_AT_ONCE: Final = 128
SPENT_AGAIN_MS: Final = 3600 * 1000
"""How long after a failed delete the next try follows."""
SPENT_AT_ONCE: Final = 8
LOOKED_AT_ONCE: Final = 500
_OVER: Final = frozenset(state.value.encode() for state in BatchState if state.terminal)


@dataclass(slots=True)
class Store:
    """Reads of one deployment, and the moves that need no claim; `claim` gives those that need one."""

    redis: Redis
    keys: Keys
    terms: Terms
    scripts: Scripts = field(init=False)
    accounts: AccountStore = field(init=False)

    def __post_init__(self) -> None:
        self.scripts = Scripts(self.redis, self.keys)
        self.accounts = AccountStore(self.redis, self.keys)

    def claim(self, batch_id: BatchId, token: int) -> Claim:
        """Return the claim of a batch under a token, which may be stale."""
        return Claim(batch_id=batch_id, token=token, scripts=self.scripts, terms=self.terms)

    async def claim_due(self, limit: int) -> list[DueBatch]:
        """Claim up to `limit` batches that are due, the longest overdue first."""
        async with self.redis.pipeline(transaction=False) as pipe:
            pipe.execute_command("TIME")
            pipe.zrange(self.keys.schedule, 0, limit - 1, withscores=True)
            (seconds, micros), scored = await pipe.execute()
        now_ms = int(seconds) * 1000 + int(micros) // 1000
        members = [member for member, score in scored if score <= now_ms]
        foreign = [member for member in members if not member.isascii()]
        if foreign:
            # Not the id of a batch, so no step would ever take it off the schedule.
            await self.redis.execute_command("ZREM", self.keys.schedule, *foreign)
        due = [BatchId(member.decode()) for member in members if member.isascii()]
        return await self.scripts.claim(batch_ids=due, lease_ms=self.terms.lease_ms) if due else []

    async def lane_of(self, batch_id: BatchId) -> tuple[LaneId, LaneSpec | None]:
        """Return the lane id of a batch, '' if the batch is gone; and the lane's spec, None if it cannot be read."""
        raw, spec = await self.redis.execute_command("HMGET", self.keys.batch(batch_id), "lane", "spec")
        with contextlib.suppress(CorruptRecord):
            return LaneId((raw or b"").decode(errors="replace")), LaneSpec.decode(spec or b"")
        return LaneId((raw or b"").decode(errors="replace")), None

    async def tally(self, batch: Batch, *, n_retry: int) -> Tally:
        """Count the requests that still wait in a batch; look them up if its counters say that some may wait.

        `n_retry` of them are known to be worth another attempt.
        """
        names = ("n_requests", "n_dropped", "n_succeeded", "n_failed", "n_requeued")
        raw = await self.redis.execute_command("HMGET", self.keys.batch(batch.batch_id), *names)
        n_rows, *moved = (int(one) if one and one.isdigit() else 0 for one in raw)
        n_left = n_rows - sum(moved)
        if batch.reopened_at is not None:
            n_left = sum([len(ids) async for ids in self.adopted(batch.batch_id)])
        elif n_left > n_retry:
            n_left = sum([len(rows) async for rows in self.unanswered(batch.batch_id)])
        return Tally(n_left=n_left, n_succeeded=moved[1], n_failed=moved[2], n_gone=moved[0] + moved[3])

    async def claim_spent(self) -> list[str]:
        """Claim files that are due to be deleted; a file that is not taken out is due again later."""
        return await self.scripts.claim_spent(most=SPENT_AT_ONCE, pause_ms=SPENT_AGAIN_MS)

    async def deleted(self, member: str) -> None:
        """Take files out that are deleted, or that stay where they are."""
        await self.redis.execute_command("ZREM", self.keys.spent_files, member)

    async def batch(self, batch_id: BatchId) -> Batch | None:
        """Read a batch, without a claim; None where there is none. Raises `CorruptRecord`."""
        with _corrupt("a stored batch is not a hash"):
            fields = await self.redis.execute_command("HGETALL", self.keys.batch(batch_id))
        return Batch.decode(fields) if fields else None

    async def uses_file(self, file_id: str, but: BatchId) -> bool:
        """Return whether another unfinished batch was made from an input file, or will be."""
        async for one, (state, *files) in self._all("state", "input_file_id", "former_file_id"):
            if one != but and file_id.encode() in files and state not in _OVER:
                return True
        return False

    async def provider_batches(self) -> dict[ProviderBatchId, BatchId]:
        """Return the batches whose provider_batch_id is known, by that id."""
        return {
            ProviderBatchId(provider_batch_id.decode()): batch_id
            async for batch_id, (provider_batch_id,) in self._all("provider_batch_id")
            if provider_batch_id is not None and provider_batch_id.isascii()
        }

    async def _all(self, *names: str) -> AsyncGenerator[tuple[BatchId, list[bytes | None]], None]:
        """Yield these fields of every batch; a batch whose key holds another type is left out."""
        start = 0
        while ids := await self.redis.execute_command(
            "ZRANGE", self.keys.batches, start, start + ROWS_AT_ONCE - 1
        ):
            start += len(ids)
            batch_ids = [BatchId(one.decode(errors="replace")) for one in ids]
            async with self.redis.pipeline(transaction=False) as pipe:
                for one in batch_ids:
                    pipe.execute_command("HMGET", self.keys.batch(one), *names)
                known = await pipe.execute(raise_on_error=False)
            for one, fields in zip(batch_ids, known, strict=True):
                if isinstance(fields, list):
                    yield one, fields

    async def unanswered(self, batch_id: BatchId) -> AsyncGenerator[list[Row], None]:
        """Yield the rows of a batch whose requests still wait in this very batch, in order, a chunk at a time.

        Unreadable rows are left out: nothing is known of them, not even whose they are. Raises `CorruptRecord` if the
        key holds anything but a list.
        """
        start, key = 0, self.keys.rows(batch_id)
        while True:
            with _corrupt("the rows of a batch are no list"):
                packed = await self.redis.execute_command("LRANGE", key, start, start + ROWS_AT_ONCE - 1)
            if not packed:
                return
            start += len(packed)
            rows = [row for row in map(Row.decode_if_whole, packed) if row is not None]
            waiting = await self._waiting(batch_id, [row.request_id for row in rows])
            yield [row for row in rows if row.request_id in waiting]

    async def kept(self, batch_id: BatchId) -> AsyncGenerator[list[RequestId], None]:
        """Yield the requests that a batch ended without answering, a chunk at a time, without repeats in a chunk."""
        cursor: Any = 0
        while True:
            cursor, members = await self.redis.execute_command(
                "SSCAN", self.keys.unanswered(batch_id), cursor, "COUNT", ROWS_AT_ONCE
            )
            yield [RequestId(one.decode()) for one in members if one.isascii()]
            if int(cursor) == 0:
                return

    async def adopted(self, batch_id: BatchId) -> AsyncGenerator[list[RequestId], None]:
        """Yield the kept requests that wait in the reopened batch, a chunk at a time."""
        async for ids in self.kept(batch_id):
            waiting = await self._waiting(batch_id, ids)
            yield [one for one in ids if one in waiting]

    async def _waiting(self, batch_id: BatchId, request_ids: Sequence[str]) -> set[str]:
        """Return those of the requests that wait in this very batch."""
        if not request_ids:
            return set()
        places = await self.redis.execute_command("MGET", *map(self.keys.request, request_ids))
        return {one for one, place in zip(request_ids, places, strict=True) if is_in(place, batch_id)}

    async def waits_in(self, batch_id: BatchId, request_ids: Collection[str]) -> bool:
        """Return whether one of these requests waits in this very batch."""
        return bool(await self._waiting(batch_id, [one for one in request_ids if one.isascii()]))

    async def told(self) -> RedisFacts:
        """Return what Redis reports about itself."""
        return await ask(self.redis)

    async def check_rights(self) -> None:
        """Raise redis-py's `NoPermissionError` if the user of Redis may not do a worker's work."""
        # Of all roles, only workers may read these.
        await self.redis.execute_command("GET", self.keys.list_page("none"))

    async def salt(self) -> bytes:
        """Return the deployment's salt, made on first need; raise `CorruptRecord`."""
        return await salt.load(self.redis, self.keys)

    async def credential(self, spec: LaneSpec) -> bytes | None:
        """Return the lane's sealed credential; None if there is none, or a value of another type.

        In wire version 1, prefer the credential that was stored for the lane's provider.
        """
        try:
            found = await self.redis.execute_command("MGET", *map(self.keys.credential, self._names(spec)))
        except UNREACHABLE:
            raise
        except ResponseError:
            return None
        return next((sealed for sealed in found if sealed is not None), None)

    def _names(self, spec: LaneSpec) -> Sequence[str]:
        """Return the names under which a lane's credential may be stored, the best first."""
        return version_1.stored_names(self.keys.version, spec.fingerprint, spec.provider, spec.host)

    async def lapse_credentials(self) -> int:
        """Let the credentials that no unfinished batch needs expire soon; return how many lifetimes were changed.

        A batch needs its credential, too, while files of it have to be deleted at its provider.
        """
        async with self.redis.pipeline(transaction=False) as pipe:
            pipe.execute_command("TIME")
            pipe.execute_command("ZRANGE", self.keys.schedule, 0, -1)
            pipe.execute_command("ZRANGE", self.keys.spent_files, 0, -1)
            pipe.execute_command("ZRANGE", self.keys.lanes, 0, -1)
            (seconds, micros), unfinished, spent, lanes = await pipe.execute()
        batch_ids = {*unfinished, *(member.rpartition(b":")[2] for member in spent)}
        needed = set()
        async for spec in self._specs([self.keys.batch(one.decode(errors="replace")) for one in batch_ids]):
            needed.add(spec.fingerprint)
        names: dict[bool, set[str]] = {True: set(), False: set()}
        async for spec in self._specs([self.keys.lane(one.decode(errors="replace")) for one in lanes]):
            names[spec.fingerprint in needed] |= {*self._names(spec)}
        read_at = int(seconds) * 1000 + int(micros) // 1000
        n_changed = 0
        for is_needed, all_of_them in names.items():
            ordered = sorted(all_of_them)
            for first in range(0, len(ordered), LOOKED_AT_ONCE):
                some = ordered[first : first + LOOKED_AT_ONCE]
                n_changed += await self.scripts.lapse(names=some, needed=is_needed, read_at=read_at)
        return n_changed

    async def _specs(self, keys: Sequence[str]) -> AsyncGenerator[LaneSpec, None]:
        """Yield the specs of batches or lanes that can be read."""
        for first in range(0, len(keys), LOOKED_AT_ONCE):
            async with self.redis.pipeline(transaction=False) as pipe:
                for key in keys[first : first + LOOKED_AT_ONCE]:
                    pipe.execute_command("HGET", key, "spec")
                for raw in await pipe.execute(raise_on_error=False):
                    if isinstance(raw, UNREACHABLE):
                        raise raw
                    with contextlib.suppress(CorruptRecord):
                        if isinstance(raw, bytes):
                            yield LaneSpec.decode(raw)

    async def announce(self, presence: WorkerPresence) -> None:
        """Announce that this worker lives, for the next fifteen seconds."""
        said = msgspec.structs.replace(presence, said_at=time.time())
        await self.scripts.announce(name=presence.name, presence=said.encode())

    async def depart(self, presence: WorkerPresence) -> None:
        """Remove this worker from the list of live workers."""
        async with self.redis.pipeline(transaction=False) as pipe:
            pipe.execute_command("UNLINK", self.keys.worker(presence.name))
            pipe.execute_command("ZREM", self.keys.workers, presence.name)
            await pipe.execute()


@contextlib.contextmanager
def _corrupt(what: str) -> Iterator[None]:
    """Raise `CorruptRecord` if Redis refuses a read, as it refuses a key of another type."""
    try:
        yield
    except UNREACHABLE:
        raise
    except ResponseError as error:
        raise CorruptRecord(what) from error
