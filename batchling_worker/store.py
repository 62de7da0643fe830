"""Batches in Redis. Beside `account_store.py`, which keeps accounts, the only module of the worker that talks to it."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from batchling_client.wire.deployment.connection import UNREACHABLE, ask
from batchling_client.wire.deployment.redis_health import RedisFacts
from batchling_client.wire.ids import new_batch_id
from batchling_client.wire.keys import BatchId, Keys, LaneId, Mailbox, ProviderBatchId, RequestId
from batchling_client.wire.records.batch import Batch, EarlyRead
from batchling_client.wire.records.row_and_result import CorruptRecord, Row, WorkerPresence
from batchling_client.wire.scripts import BatchCap, Claim, Delivered, Fsync, RowIn, RowOut, Scripts
from batchling_client.wire.states import BatchState, Outcome, Verdict

from .account_store import AccountStore
from .decisions.rereading import Tally
from .errors import NotOnDisk, StaleClaim, TemporaryError

KEEP_MS: Final = 35 * 24 * 3600 * 1000
"""How long a request in flight and the record of a batch are kept, which is longer than any completion window."""
MAIL_MS: Final = 24 * 3600 * 1000
PRESENCE_S: Final = 15
ROWS_AT_ONCE: Final = 128
SPENT_INPUTS_MS: Final = 3_000
"""How long after its results were read the input file of a batch is deleted: by then the batch is settled."""
SPENT_RESULTS_MS: Final = 7 * 24 * 3600 * 1000
SPENT_AGAIN_MS: Final = 3600 * 1000
"""How long after a failed delete the next try follows."""
SPENT_AT_ONCE: Final = 8
_OVER: Final = frozenset(state.value.encode() for state in BatchState if state.terminal)
UNREADABLE_LEASES: Final = 4
"""For how many leases a batch whose record cannot be read is left to workers that may be able to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A batch on which this worker has begun a step: every move of the step carries the token."""

    batch_id: BatchId
    token: int


@dataclass(slots=True)
class Store:
    """Reads and moves of one deployment; a move raises `StaleClaim` if another worker has taken over."""

    redis: Redis
    keys: Keys
    lease_ms: int
    result_ttl_ms: int
    max_attempts: int
    fsync_intent: Fsync | None = None
    scripts: Scripts = field(init=False)
    accounts: AccountStore = field(init=False)
    _mailboxes: dict[BatchId, tuple[Mailbox, ...]] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.scripts = Scripts(self.redis, self.keys)
        self.accounts = AccountStore(self.redis, self.keys)

    async def claim_due(self, limit: int) -> list[Claim]:
        """Claim up to `limit` batches that are due, the longest overdue first."""
        async with self.redis.pipeline(transaction=False) as pipe:
            pipe.execute_command("TIME")
            pipe.execute_command("ZRANGE", self.keys.schedule, 0, limit - 1, "WITHSCORES")
            (seconds, micros), scored = await pipe.execute()
        now_ms = int(seconds) * 1000 + int(micros) // 1000
        members = [member for member, score in _pairs(scored) if score <= now_ms]
        foreign = [member for member in members if not member.isascii()]
        if foreign:
            # Not the id of a batch, so no step would ever take it off the schedule.
            await self.redis.execute_command("ZREM", self.keys.schedule, *foreign)
        due = [BatchId(member.decode()) for member in members if member.isascii()]
        return await self.scripts.claim(batch_ids=due, lease_ms=self.lease_ms) if due else []

    async def begin(
        self, claim: Held, states: Sequence[BatchState], *, alone: bool = False
    ) -> tuple[Verdict, Batch | None]:
        """Begin a step under this token; return the verdict, and the batch if the step may start or is quarantined.

        Raises `CorruptRecord` if the record of the batch cannot be read.
        """
        begun = await self.scripts.begin(
            batch_id=claim.batch_id, token=claim.token, lease_ms=self.lease_ms, states=states, alone=alone
        )
        batch = Batch.decode(begun.fields) if begun.fields is not None else None
        if batch is not None and batch.batch_id != claim.batch_id:
            raise CorruptRecord("a stored batch goes by the id of another")
        return begun.verdict, batch

    async def survived(self, held: Held) -> None:
        """Record that this worker outlived a step that did not end its claim."""
        await self.scripts.survived(batch_id=held.batch_id, token=held.token)

    async def extend(self, held: Held) -> None:
        """Extend the lease."""
        _fresh(await self.scripts.extend(batch_id=held.batch_id, token=held.token, lease_ms=self.lease_ms))

    async def release(
        self,
        held: Held,
        delay_s: float,
        error: str = "",
        *,
        create_refused: bool = False,
        denied: bool = False,
    ) -> None:
        """Make the batch due again after `delay_s`; do nothing if the claim is stale."""
        await self.scripts.release(
            batch_id=held.batch_id,
            token=held.token,
            delay_ms=int(delay_s * 1000),
            error=error,
            create_refused=create_refused,
            denied=denied,
        )

    async def hold(
        self,
        held: Held,
        delay_s: float,
        why: str,
        *,
        unmade: bool = False,
        parked: bool = False,
        away: bool = False,
    ) -> None:
        """Make a batch that waits for something else due again after `delay_s`; do nothing if the claim is stale."""
        await self.scripts.hold(
            batch_id=held.batch_id,
            token=held.token,
            delay_ms=int(delay_s * 1000),
            why=why,
            unmade=unmade,
            parked=parked,
            away=away,
        )

    async def note(self, held: Held, why: str) -> None:
        """Store why a batch waits while its step runs ('' = it does not wait); do nothing if the claim is stale."""
        await self.scripts.note(batch_id=held.batch_id, token=held.token, why=why)

    async def lane_of(self, batch_id: BatchId) -> str:
        """Return the lane id of a batch, '' if the batch is gone."""
        raw = await self.redis.execute_command("HGET", self.keys.batch(batch_id), "lane")
        return raw.decode(errors="replace") if raw else ""

    async def seal(self, held: Held, lane_id: str) -> Verdict:
        """Close an open batch to new requests."""
        return await self.scripts.seal(batch_id=held.batch_id, token=held.token, lane_id=LaneId(lane_id))

    async def intend(self, held: Held, label: str) -> str:
        """Store the intent to submit; return the label in force."""
        in_force = await self.scripts.intend(batch_id=held.batch_id, token=held.token, label=label)
        if in_force is None:
            raise StaleClaim(held.batch_id)
        return in_force

    async def uploaded(self, held: Held, input_file_id: str, n_lines: int, account: str = "") -> None:
        """Store the id of the provider's input file, its number of lines and the account that uploaded it."""
        _fresh(
            await self.scripts.uploaded(
                batch_id=held.batch_id,
                token=held.token,
                input_file_id=input_file_id,
                n_lines=n_lines,
                account=account,
            )
        )

    async def arm(self, held: Held, account: str = "") -> None:
        """Store that the create is about to be sent, and under which account.

        Raises `NotOnDisk` where that must be on disk and is not.
        """
        verdict = await self.scripts.arm(
            batch_id=held.batch_id, token=held.token, account=account, fsync=self.fsync_intent
        )
        if verdict is Verdict.NOT_ON_DISK:
            raise NotOnDisk("Redis does not confirm that the intent is on disk: nothing was sent")
        _fresh(verdict)

    async def doubt(self, held: Held) -> None:
        """Store that a create may have been forgotten and was not found; this run of Redis owns the batch now."""
        _fresh(await self.scripts.arm(batch_id=held.batch_id, token=held.token, doubted=True))

    async def submitted(
        self, held: Held, provider_batch_id: ProviderBatchId, delay_s: float, account: str = ""
    ) -> str:
        """Store the provider's batch id; return the id in force if another worker was first, else ''."""
        verdict, in_force = await self.scripts.submitted(
            batch_id=held.batch_id,
            token=held.token,
            provider_batch_id=provider_batch_id,
            delay_ms=int(delay_s * 1000),
            account=account,
        )
        if verdict is Verdict.OK or in_force == provider_batch_id:
            return ""
        if in_force:
            return in_force
        raise StaleClaim(held.batch_id)

    async def progress(
        self,
        held: Held,
        status: str,
        n_done: int,
        n_total: int,
        delay_s: float,
        early: EarlyRead,
        *,
        listed: bool = False,
        cancel_asked: bool = False,
        why: str = "",
    ) -> None:
        """Store a look at a running batch and how far its early results were read.

        `listed` = only a list shows it. `cancel_asked` = the provider was just asked to cancel it. `why` is the reason
        of the wait, for people.
        """
        _fresh(
            await self.scripts.progress(
                batch_id=held.batch_id,
                token=held.token,
                status=status,
                n_done=n_done,
                n_total=n_total,
                delay_ms=int(delay_s * 1000),
                early=early,
                listed=listed,
                cancel_asked=cancel_asked,
                why=why,
            )
        )

    async def ended(self, held: Held, outcome: Outcome, status: str, ending: bytes, error: str) -> None:
        """Store how a batch ended."""
        _fresh(
            await self.scripts.ended(
                batch_id=held.batch_id,
                token=held.token,
                outcome=outcome,
                status=status,
                ending=ending,
                error=error,
            )
        )

    async def deliver(self, held: Held, rows: Sequence[RowOut]) -> Delivered:
        """Store results and notify the sessions that wait for them."""
        known = self._mailboxes.get(held.batch_id, ())
        while True:
            reply = await self.scripts.deliver(
                batch_id=held.batch_id,
                token=held.token,
                max_attempts=self.max_attempts,
                keep_ms=self.result_ttl_ms,
                mail_ms=MAIL_MS,
                mailboxes=known,
                rows=rows,
            )
            if reply.verdict is Verdict.MAILBOXES:
                known = tuple(dict.fromkeys((*known, *reply.mailboxes)))
                self._mailboxes[held.batch_id] = known
                continue
            _fresh(reply.verdict)
            return reply

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

    async def spend(self, held: Held) -> None:
        """Schedule the files of a batch for deletion; results are kept for a week, in case a person asks for them."""
        _fresh(
            await self.scripts.spend(
                batch_id=held.batch_id,
                token=held.token,
                inputs_ms=SPENT_INPUTS_MS,
                results_ms=SPENT_RESULTS_MS,
                keep_ms=KEEP_MS,
            )
        )

    async def claim_spent(self) -> list[str]:
        """Claim files that are due to be deleted; a file that is not taken out is due again later."""
        return await self.scripts.claim_spent(most=SPENT_AT_ONCE, pause_ms=SPENT_AGAIN_MS)

    async def deleted(self, member: str) -> None:
        """Take files out that are deleted, or that stay where they are."""
        await self.redis.execute_command("ZREM", self.keys.spent_files, member)

    async def batch(self, batch_id: BatchId) -> Batch | None:
        """Read a batch, without a claim; None where there is none. Raises `CorruptRecord`."""
        try:
            fields = await self.redis.execute_command("HGETALL", self.keys.batch(batch_id))
        except UNREACHABLE:
            raise
        except ResponseError as error:
            raise CorruptRecord("a stored batch is not a hash") from error
        return Batch.decode(fields) if fields else None

    async def uses_file(self, file_id: str, but: BatchId) -> bool:
        """Return whether another unfinished batch was made from an input file, or will be."""
        start = 0
        while ids := await self.redis.execute_command(
            "ZRANGE", self.keys.batches, start, start + ROWS_AT_ONCE - 1
        ):
            start += len(ids)
            async with self.redis.pipeline(transaction=False) as pipe:
                for one in ids:
                    name = self.keys.batch(one.decode(errors="replace"))
                    pipe.execute_command("HMGET", name, "state", "input_file_id", "former_file_id")
                known = await pipe.execute(raise_on_error=False)
            for one, fields in zip(ids, known, strict=True):
                another = isinstance(fields, list) and one != but.encode()
                if another and file_id.encode() in fields[1:] and fields[0] not in _OVER:
                    return True
        return False

    async def unread(self, held: Held, delay_s: float, ending: bytes, why: str, *, held_back: bool) -> None:
        """Hand back an ended batch whose results lack rows; `held_back` = nothing of it is ever run again."""
        _fresh(
            await self.scripts.unread(
                batch_id=held.batch_id,
                token=held.token,
                delay_ms=int(delay_s * 1000),
                ending=ending,
                why=why,
                held_back=held_back,
            )
        )

    async def collected(self, held: Held, error: str) -> None:
        """Store that every result was read; `error` is the batch's own and replaces the error of an earlier reading."""
        _fresh(await self.scripts.collected(batch_id=held.batch_id, token=held.token, error=error))
        self._mailboxes.pop(held.batch_id, None)

    async def requeue(self, held: Held, batch: Batch, rows: Sequence[RowIn], cap: BatchCap) -> None:
        """Move unanswered requests into the lane's open batch; open as many batches as they need."""
        target, rest = new_batch_id(), list(rows)
        while rest:
            verdict, n_taken, open_batch = await self.scripts.requeue(
                target=target,
                lane_id=batch.lane_id,
                spec=batch.spec.encode(),
                source_id=batch.batch_id,
                token=held.token,
                cap=cap,
                keep_ms=KEEP_MS,
                rows=rest,
            )
            if verdict is Verdict.STALE:
                raise StaleClaim(held.batch_id)
            rest = rest[n_taken:] if verdict is Verdict.OK else rest
            target = open_batch or new_batch_id()

    async def settle(self, held: Held, state: BatchState) -> None:
        """Move an ended batch to a terminal state."""
        _fresh(
            await self.scripts.settle(batch_id=held.batch_id, token=held.token, state=state, keep_ms=KEEP_MS)
        )
        self._mailboxes.pop(held.batch_id, None)

    async def unanswered(self, batch_id: BatchId) -> AsyncGenerator[list[Row], None]:
        """Yield the rows of a batch whose requests still wait in this very batch, in order, a chunk at a time.

        Unreadable rows are left out: nothing is known of them, not even whose they are. Raises `CorruptRecord` if the
        key holds anything but a list.
        """
        start, mine = 0, f"{batch_id}|".encode()
        while packed := await self._rows(batch_id, start):
            start += len(packed)
            rows = [row for row in map(_readable, packed) if row is not None]
            owners = []
            if rows:
                owners = await self.redis.execute_command(
                    "MGET", *(self.keys.request(row.request_id) for row in rows)
                )
            yield [
                row
                for row, owner in zip(rows, owners, strict=True)
                if owner is not None and owner.startswith(mine)
            ]

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
        mine = f"{batch_id}|".encode()
        async for ids in self.kept(batch_id):
            owners = []
            if ids:
                owners = await self.redis.execute_command("MGET", *(self.keys.request(one) for one in ids))
            yield [
                one
                for one, owner in zip(ids, owners, strict=True)
                if owner is not None and owner.startswith(mine)
            ]

    async def keep(self, held: Held, request_ids: Sequence[RequestId]) -> None:
        """Store the requests that a batch settles without an answer of its provider."""
        _fresh(
            await self.scripts.keep(
                batch_id=held.batch_id, token=held.token, keep_ms=KEEP_MS, request_ids=request_ids
            )
        )

    async def adopt(
        self, held: Held, lane_id: LaneId, request_ids: Sequence[RequestId], *, last: bool = False
    ) -> None:
        """Put requests of a reopened batch back in flight; the `last` call ends the adoption."""
        _fresh(
            await self.scripts.adopt(
                batch_id=held.batch_id,
                lane_id=lane_id,
                token=held.token,
                attempt=self.max_attempts,
                keep_ms=KEEP_MS,
                request_ids=request_ids,
                last=last,
            )
        )

    async def _rows(self, batch_id: BatchId, start: int) -> list[bytes]:
        try:
            packed: list[bytes] = await self.redis.execute_command(
                "LRANGE", self.keys.rows(batch_id), start, start + ROWS_AT_ONCE - 1
            )
        except UNREACHABLE:
            raise
        except ResponseError as error:
            raise CorruptRecord("the rows of a batch are no list") from error
        return packed

    async def unreadable(self, held: Held) -> bool:
        """Make an unreadable batch due again later; return True once it has been unreadable for too long."""
        verdict = await self.scripts.unreadable(
            batch_id=held.batch_id,
            token=held.token,
            delay_ms=self.lease_ms,
            patience_ms=UNREADABLE_LEASES * self.lease_ms,
        )
        if verdict is Verdict.OVER:
            return True
        _fresh(verdict)
        return False

    async def give_up(self, held: Held, error: str) -> None:
        """End a batch whose record cannot be read."""
        _fresh(
            await self.scripts.give_up(batch_id=held.batch_id, token=held.token, error=error, keep_ms=KEEP_MS)
        )
        self._mailboxes.pop(held.batch_id, None)

    async def waits_in(self, batch_id: BatchId, request_ids: Collection[str]) -> bool:
        """Return whether one of these requests waits in this very batch."""
        keys = [self.keys.request(one) for one in request_ids if one.isascii()]
        owners = await self.redis.execute_command("MGET", *keys) if keys else ()
        mine = f"{batch_id}|".encode()
        return any(owner is not None and owner.startswith(mine) for owner in owners)

    async def provider_batches(self) -> dict[ProviderBatchId, BatchId]:
        """Return the batches whose provider_batch_id is known, by that id."""
        found: dict[ProviderBatchId, BatchId] = {}
        start = 0
        while ids := await self.redis.execute_command(
            "ZRANGE", self.keys.batches, start, start + ROWS_AT_ONCE - 1
        ):
            start += len(ids)
            async with self.redis.pipeline(transaction=False) as pipe:
                for batch_id in ids:
                    pipe.execute_command(
                        "HGET", self.keys.batch(batch_id.decode(errors="replace")), "provider_batch_id"
                    )
                known = await pipe.execute(raise_on_error=False)
            for batch_id, provider_batch_id in zip(ids, known, strict=True):
                if isinstance(provider_batch_id, bytes) and provider_batch_id.isascii():
                    found[ProviderBatchId(provider_batch_id.decode())] = BatchId(batch_id.decode())
        return found

    async def told(self) -> RedisFacts:
        """Return what Redis reports about itself."""
        return await ask(self.redis)

    async def credential(self, fingerprint: str, provider: str) -> bytes | None:
        """Return the lane's sealed credential, preferring the credential stored for this provider.

        Return None if there is none or the stored value has the wrong type.
        """
        names = (self.keys.credential(fingerprint, provider), self.keys.credential(fingerprint))
        try:
            own, other = await self.redis.execute_command("MGET", *names)
        except UNREACHABLE:
            raise
        except ResponseError:
            return None
        sealed: bytes | None = other if own is None else own
        return sealed

    async def announce(self, presence: WorkerPresence) -> None:
        """Announce that this worker lives, for the next fifteen seconds."""
        said = msgspec.structs.replace(presence, said_at=time.time())
        await self.scripts.announce(
            name=presence.name, presence=said.encode(), keep_ms=PRESENCE_S * 1000, keep_list_ms=KEEP_MS
        )

    async def depart(self, presence: WorkerPresence) -> None:
        """Remove this worker from the list of live workers."""
        async with self.redis.pipeline(transaction=False) as pipe:
            pipe.execute_command("UNLINK", self.keys.worker(presence.name))
            pipe.execute_command("ZREM", self.keys.workers, presence.name)
            await pipe.execute()


def _readable(packed: bytes) -> Row | None:
    try:
        return Row.decode(packed)
    except CorruptRecord:
        return None


def _fresh(verdict: Verdict) -> None:
    if verdict is Verdict.STALE:
        raise StaleClaim
    if verdict is not Verdict.OK:
        raise TemporaryError(f"the store answered {verdict.value}")


def _pairs(scored: Sequence[object]) -> list[tuple[bytes, float]]:
    """Return a ZRANGE WITHSCORES reply as pairs, whether it is flat (RESP2) or nested (RESP3)."""
    flat: list[object] = []
    for item in scored:
        flat.extend(item) if isinstance(item, (list, tuple)) else flat.append(item)
    pairs = []
    for i in range(0, len(flat), 2):
        member, score = flat[i], flat[i + 1]
        if isinstance(member, bytes) and isinstance(score, (bytes, float, int)):
            pairs.append((member, float(score)))
    return pairs
