"""The scripts of one namespace, called by hand: a client, a provider and workers that do only what a test says."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from redis.asyncio import Redis

from batchling_client.wire.ids import new_batch_id, new_mailbox, new_request_id, new_run_id
from batchling_client.wire.keys import BatchId, Keys, LaneId, Mailbox, ProviderBatchId, RequestId, RunId
from batchling_client.wire.records.batch import Batch, EarlyRead, quarantine_sentence
from batchling_client.wire.records.row_and_result import LaneSpec, Result, Row, line_bytes
from batchling_client.wire.scripts import (
    BatchCap,
    Begun,
    Delivered,
    Dropped,
    DueBatch,
    Enqueued,
    RowIn,
    RowOut,
    Scripts,
)
from batchling_client.wire.states import (
    LISTS,
    QUARANTINED,
    SETTLED_WITH_FAILURES,
    BatchState,
    Outcome,
    RowKind,
    Verdict,
)
from batchling_worker.claim import Terms

SPEC = LaneSpec(
    provider="groq",
    host="api.groq.com",
    endpoint="/v1/chat/completions",
    model="m",
    fingerprint="f" * 20,
    completion_window="24h",
)
KEEP_MS = 3_600_000
LEASE_MS = 60_000
TERMS = Terms(lease_ms=1000, result_ttl_ms=KEEP_MS, max_attempts=3)
WIDE = BatchCap(rows=1000, bytes=10_000_000, linger_ms=0, longest_ms=0)
"""A cap that nothing meets, and no linger: what is enqueued is due at once."""


def ids(n: int) -> list[RequestId]:
    return [new_request_id() for _ in range(n)]


def row(request_id: RequestId, body: bytes = b"{}", attempt: int = 1) -> RowIn:
    packed = Row.pack(request_id=request_id, run_id="r", body=body)
    if attempt > 1:
        packed = Row.decode(packed).next_attempt(attempt)
    return RowIn(request_id=request_id, packed=packed, size=line_bytes(body), attempt=attempt)


def out(
    request_id: RequestId, kind: RowKind = RowKind.SUCCESS, body: bytes = b"{}", about: str = ""
) -> RowOut:
    status = {RowKind.SUCCESS: 200, RowKind.FAILURE: 400, RowKind.RETRY: 503}[kind]
    return RowOut(
        request_id=request_id,
        kind=kind,
        packed=Result.pack(kind=kind, status=status, headers={}, body=body),
        about=about,
    )


class ByHand:
    """One namespace; every method is one script with defaults, or a look."""

    def __init__(self, redis: Redis, keys: Keys) -> None:
        self.redis = redis
        self.keys = keys
        self.scripts = Scripts(redis, keys)
        self.spec = SPEC
        self.mailbox: Mailbox = new_mailbox()
        self.run_id: RunId = new_run_id()

    @property
    def lane_id(self) -> LaneId:
        return self.spec.lane_id

    def use_model(self, model: str, provider: str = SPEC.provider) -> None:
        """Put what is enqueued from now on into the lane of another model."""
        self.spec = msgspec.structs.replace(SPEC, model=model, provider=provider)

    async def enqueue(
        self,
        rows: Sequence[RowIn],
        *,
        into: BatchId,
        mailbox: Mailbox | None = None,
        cap: BatchCap = WIDE,
        ask_failed_anew: bool = True,
        run_id: RunId | None = None,
        poll_ms: int = 1000,
        repeats: str = "",
        whose: str = "",
    ) -> Enqueued:
        return await self.scripts.enqueue(
            batch_id=into,
            lane_id=self.lane_id,
            spec=self.spec.encode(),
            mailbox=mailbox or self.mailbox,
            run_id=run_id or self.run_id,
            run_name="test",
            cap=cap,
            poll_ms=poll_ms,
            keep_ms=KEEP_MS,
            ask_failed_anew=ask_failed_anew,
            repeats=repeats,
            whose=whose,
            rows=rows,
        )

    async def opened(self, request_ids: Sequence[RequestId], *, cap: BatchCap = WIDE) -> BatchId:
        """A fresh batch, open, that holds these requests."""
        batch_id = new_batch_id()
        reply = await self.enqueue([row(request_id) for request_id in request_ids], into=batch_id, cap=cap)
        assert (reply.verdict, len(reply.placements)) == (Verdict.OK, len(request_ids))
        return batch_id

    async def due(self, batch_id: BatchId) -> None:
        """Time passes until the batch's next look."""
        await self.redis.execute_command("ZADD", self.keys.schedule, "XX", 0, batch_id)

    async def claims(self, *batch_ids: BatchId, lease_ms: int = LEASE_MS) -> list[DueBatch]:
        return await self.scripts.claim(batch_ids=batch_ids, lease_ms=lease_ms)

    async def claimed(self, batch_id: BatchId) -> int:
        """Claims the batch, whatever held it before; its token."""
        await self.due(batch_id)
        [claim] = await self.claims(batch_id)
        return claim.token

    async def begin(
        self,
        batch_id: BatchId,
        token: int,
        *states: BatchState,
        lease_ms: int = LEASE_MS,
        nonce: str = "",
    ) -> Mapping[bytes, bytes] | None:
        """Begin a step; return the fields of the batch, None if the step may not start."""
        begun = await self.begun(batch_id, token, *states, lease_ms=lease_ms, nonce=nonce)
        return begun.fields if begun.verdict is Verdict.OK else None

    async def begun(
        self,
        batch_id: BatchId,
        token: int,
        *states: BatchState,
        lease_ms: int = LEASE_MS,
        nonce: str = "",
        alone: bool = True,
    ) -> Begun:
        return await self.scripts.begin(
            batch_id,
            token,
            lease_ms,
            states or list(BatchState),
            error=quarantine_sentence(batch_id),
            nonce=nonce or secrets.token_hex(8),
            alone=alone,
        )

    async def seal(self, batch_id: BatchId, token: int) -> Verdict:
        return await self.scripts.seal(batch_id=batch_id, token=token, lane_id=self.lane_id)

    async def submitted(self, batch_id: BatchId, token: int, name: str = "pb") -> tuple[Verdict, str]:
        return await self.scripts.submitted(
            batch_id=batch_id, token=token, provider_batch_id=ProviderBatchId(name), delay_s=0
        )

    async def progress(
        self, batch_id: BatchId, token: int, delay_s: float = 0, early: EarlyRead | None = None
    ) -> Verdict:
        return await self.scripts.progress(
            batch_id=batch_id,
            token=token,
            status="in_progress",
            n_done=1,
            n_total=2,
            delay_s=delay_s,
            early=early,
        )

    async def ended(
        self, batch_id: BatchId, token: int, outcome: Outcome = Outcome.COMPLETED, error: str = ""
    ) -> Verdict:
        return await self.scripts.ended(
            batch_id=batch_id, token=token, outcome=outcome, status="done", ending=b"{}", error=error
        )

    async def deliver(
        self,
        batch_id: BatchId,
        token: int,
        rows: Sequence[RowOut],
        *,
        mailboxes: Sequence[Mailbox] | None = None,
        max_attempts: int = 3,
    ) -> Delivered:
        return await self.scripts.deliver(
            batch_id=batch_id,
            token=token,
            max_attempts=max_attempts,
            keep_ms=KEEP_MS,
            mail_ms=KEEP_MS,
            mailboxes=[self.mailbox] if mailboxes is None else mailboxes,
            rows=rows,
        )

    async def requeue(
        self,
        source: BatchId,
        token: int,
        rows: Sequence[RowIn],
        *,
        target: BatchId | None = None,
        cap: BatchCap = WIDE,
        sent_again: str = "",
    ) -> tuple[Verdict, int, BatchId | None]:
        reply = await self.scripts.requeue(
            target=target or new_batch_id(),
            lane_id=self.lane_id,
            spec=self.spec.encode(),
            source_id=source,
            token=token,
            cap=cap,
            sent_again=sent_again,
            keep_ms=KEEP_MS,
            rows=rows,
        )
        return reply.verdict, reply.n_taken, reply.open_batch

    async def settle(self, batch_id: BatchId, token: int, state: BatchState = BatchState.SETTLED) -> Verdict:
        return await self.scripts.settle(batch_id=batch_id, token=token, state=state, keep_ms=KEEP_MS)

    async def cancel(self, batch_id: BatchId, *alone: RequestId) -> Verdict:
        """Cancel a batch; with requests, only if these are all that is open in it, and nobody else waits for them."""
        return await self.scripts.cancel(
            batch_id=batch_id,
            lane_id=self.lane_id,
            ending=b"{}",
            error="a person cancelled it",
            request_ids=alone,
            alone=bool(alone),
            mailboxes=[self.mailbox],
        )

    async def withdraw(
        self, request_id: RequestId, batch_id: BatchId, mailbox: Mailbox | None = None
    ) -> Verdict:
        return await self.scripts.withdraw(
            request_id=request_id, batch_id=batch_id, mailbox=mailbox or self.mailbox
        )

    async def drop(
        self, request_ids: Sequence[RequestId], batch_id: BatchId, mailboxes: Sequence[Mailbox] | None = None
    ) -> Dropped:
        return await self.scripts.drop(
            batch_id=batch_id,
            lane_id=self.lane_id,
            packed=out(RequestId(""), RowKind.FAILURE).packed,
            keep_ms=KEEP_MS,
            mail_ms=KEEP_MS,
            ending=b"{}",
            error="a person cancelled it",
            mailboxes=[self.mailbox] if mailboxes is None else mailboxes,
            request_ids=request_ids,
        )

    async def sealed(self, request_ids: Sequence[RequestId]) -> BatchId:
        batch_id = await self.opened(request_ids)
        assert await self.seal(batch_id, await self.claimed(batch_id)) is Verdict.OK
        return batch_id

    async def in_submission(self, request_ids: Sequence[RequestId]) -> tuple[BatchId, int]:
        """A batch whose intent to submit is stored, and the token under which it is."""
        batch_id = await self.sealed(request_ids)
        token = await self.claimed(batch_id)
        assert await self.begin(batch_id, token) is not None
        assert await self.scripts.intend(batch_id=batch_id, token=token, label="label") == "label"
        return batch_id, token

    async def at_provider(self, request_ids: Sequence[RequestId]) -> BatchId:
        batch_id, token = await self.in_submission(request_ids)
        assert await self.scripts.arm(batch_id=batch_id, token=token) is Verdict.OK
        assert await self.submitted(batch_id, token) == (Verdict.OK, "")
        return batch_id

    async def over(self, request_ids: Sequence[RequestId], outcome: Outcome = Outcome.COMPLETED) -> BatchId:
        """A batch that has ended at the provider, nothing of it collected."""
        batch_id = await self.at_provider(request_ids)
        assert await self.ended(batch_id, await self.claimed(batch_id), outcome) is Verdict.OK
        return batch_id

    async def in_state(self, state: BatchState, request_ids: Sequence[RequestId]) -> BatchId:
        """A batch with these requests in any state of its life."""
        match state:
            case BatchState.OPEN:
                return await self.opened(request_ids)
            case BatchState.SEALED:
                return await self.sealed(request_ids)
            case BatchState.SUBMITTING:
                return (await self.in_submission(request_ids))[0]
            case BatchState.SUBMITTED:
                return await self.at_provider(request_ids)
            case BatchState.ENDED:
                return await self.over(request_ids)
            case BatchState.SETTLED | BatchState.FAILED | BatchState.CANCELLED:
                batch_id = await self.over(request_ids)
                token = await self.claimed(batch_id)
                if request_ids:
                    await self.deliver(batch_id, token, [out(one) for one in request_ids])
                assert await self.settle(batch_id, token, state) is Verdict.OK
                return batch_id

    async def opened_elsewhere(self, batch_id: BatchId) -> None:
        """Pretend that another Redis opened the batch, as after a restart or a fail-over."""
        await self.redis.execute_command("HSET", self.keys.batch(batch_id), "server", "0" * 40)

    async def batch(self, batch_id: BatchId) -> Batch:
        return Batch.decode(await self.fields(batch_id))

    async def list_of(self, batch_id: BatchId) -> str:
        """Return the list in which people look for the batch, as its record says."""
        batch = await self.batch(batch_id)
        if batch.quarantined_at is not None and not batch.state.terminal:
            return QUARANTINED
        if batch.state is BatchState.SETTLED and batch.n_failed:
            return SETTLED_WITH_FAILURES
        return batch.state.value

    async def listed(self) -> dict[BatchId, list[str]]:
        """Return the lists that hold each batch of the lane."""
        found: dict[BatchId, list[str]] = {}
        for name in LISTS:
            key = self.keys.lane_batches(self.lane_id, name)
            for member in await self.redis.execute_command("ZRANGE", key, 0, -1):
                found.setdefault(BatchId(member.decode()), []).append(name)
        return found

    async def timeline(self, batch_id: BatchId) -> list[str]:
        """Return what the timeline of a batch says, without the times."""
        fields = await self.fields(batch_id)
        return [line.partition(" ")[2] for line in fields[b"timeline"].decode().split("\n")]

    async def fields(self, batch_id: BatchId) -> dict[bytes, bytes]:
        flat = await self.redis.execute_command("HGETALL", self.keys.batch(batch_id))
        return dict(flat) if isinstance(flat, dict) else dict(zip(flat[::2], flat[1::2], strict=True))

    async def rows_of(self, batch_id: BatchId) -> list[Row]:
        packed = await self.redis.execute_command("LRANGE", self.keys.rows(batch_id), 0, -1)
        return [Row.decode(raw) for raw in packed]

    async def ids_of(self, batch_id: BatchId) -> list[RequestId]:
        return [one.request_id for one in await self.rows_of(batch_id)]

    async def kept(self, batch_id: BatchId) -> set[RequestId]:
        """The requests that a batch settled without an answer, for which it can be read again."""
        members: Any = await self.redis.execute_command("SMEMBERS", self.keys.unanswered(batch_id))
        return {RequestId(one.decode()) for one in members}

    async def place(self, request_id: RequestId) -> str | None:
        """Return the stored place of a request in flight, without the runs that count its answer."""
        raw = await self.redis.execute_command("GET", self.keys.request(request_id))
        return None if raw is None else raw.decode().partition(":")[0]

    async def result(self, request_id: RequestId) -> Result | None:
        raw = await self.redis.execute_command("GET", self.keys.result(request_id))
        return None if raw is None else Result.decode(raw)

    async def next_look(self, batch_id: BatchId) -> float | None:
        score: float | None = await self.redis.zscore(self.keys.schedule, batch_id)
        return score

    async def mail(self, mailbox: Mailbox | None = None) -> list[RequestId]:
        """The ids told to a mailbox, in order, each as often as it was told."""
        [told] = await self.mails([mailbox or self.mailbox])
        return told

    async def mails(self, mailboxes: Sequence[Mailbox]) -> list[list[RequestId]]:
        """What `mail` tells, of several mailboxes in one round trip."""
        async with self.redis.pipeline(transaction=False) as pipeline:
            for mailbox in mailboxes:
                pipeline.xrange(self.keys.mailbox(mailbox))
            streams: Any = await pipeline.execute()
        return [
            [RequestId(name) for _, fields in entries for name in fields[b"ids"].decode().split()]
            for entries in streams
        ]

    async def now_ms(self) -> int:
        seconds, micros = await self.redis.execute_command("TIME")
        return int(seconds) * 1000 + int(micros) // 1000

    async def everything(self) -> dict[bytes, object]:
        """What the whole namespace holds, to see whether anything changed."""
        holds: dict[bytes, object] = {}
        async for key in self.redis.scan_iter(match=self.keys.prefix + "*", count=1000):
            match (await self.redis.execute_command("TYPE", key)).decode():
                case "hash":
                    holds[key] = await self.redis.hgetall(key)
                case "list":
                    holds[key] = await self.redis.lrange(key, 0, -1)
                case "set":
                    holds[key] = await self.redis.smembers(key)
                case "zset":
                    holds[key] = await self.redis.zrange(key, 0, -1, withscores=True)
                case _:
                    # Neither a string nor a stream is stored in an order that may change by itself.
                    holds[key] = await self.redis.execute_command("DUMP", key)
        return holds
