"""Runs the Lua scripts, one typed method per transition; the head of each file holds its contract."""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Final, TypeAlias

from redis.asyncio import Redis
from redis.exceptions import NoScriptError

from .keys import BatchId, Keys, LaneId, Mailbox, ProviderBatchId, RequestId, RunId
from .records.batch import UNENDED_ALLOWED, EarlyRead, quarantine_sentence
from .states import TERMINAL_STATES, BatchState, Outcome, Placement, RowKind, Verdict

Arg: TypeAlias = str | bytes | int

_INCLUDE: Final = re.compile(r"^--@include (\w+)$", re.MULTILINE)


@cache
def source(name: str) -> str:
    """Return the text of a script with its includes; each included file defines local functions only."""
    folder = files(__package__) / "lua"
    text = (folder / f"{name}.lua").read_text(encoding="utf-8")
    return _INCLUDE.sub(lambda match: (folder / f"{match[1]}.lua").read_text(encoding="utf-8"), text)


@cache
def _sha(name: str) -> str:
    return hashlib.sha1(source(name).encode(), usedforsecurity=False).hexdigest()


async def run(redis: Redis, name: str, keys: Sequence[str], args: Sequence[Arg]) -> Any:
    """Run a script by its name; its text is sent only to a server that does not know it."""
    try:
        return await redis.evalsha(_sha(name), len(keys), *keys, *args)
    except NoScriptError:
        return await redis.eval(source(name), len(keys), *keys, *args)


@dataclass(frozen=True, slots=True, kw_only=True)
class Enqueued:
    """Answer of `enqueue`: on OK the placements of the rows taken, else the batch that is open instead."""

    verdict: Verdict
    placements: tuple[Placement, ...] = ()
    open_batch: BatchId | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DueBatch:
    """A due batch, claimed for one lease under a fencing token."""

    batch_id: BatchId
    token: int
    """0 = the batch's record is such that nobody can hold it."""
    state: BatchState | None
    """None = no state that this version knows."""
    n_missed: int
    """Claims in a row, this one included, that nobody began."""
    collected: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun:
    """Answer of `begin`: OK, ALONE, QUARANTINED or STALE; the batch's fields with OK and QUARANTINED."""

    verdict: Verdict
    fields: Mapping[bytes, bytes] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivered:
    """Answer of `deliver`."""

    verdict: Verdict
    n_answered: int = 0
    n_retry: int = 0
    n_unknown: int = 0
    mailboxes: tuple[Mailbox, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Dropped:
    """Answer of `drop`; `n_shared` requests were left because others wait for them."""

    verdict: Verdict
    n_dropped: int = 0
    n_shared: int = 0
    ended: bool = False
    """Whether the batch held nothing else and has ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RowIn:
    """A packed row on its way into a batch; `size` is the bytes of its line in the provider's file."""

    request_id: RequestId
    packed: bytes
    size: int
    attempt: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class RowOut:
    """A packed result on its way to its waiters."""

    request_id: RequestId
    kind: RowKind
    packed: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchCap:
    """How much goes into one batch and how long an open one lingers, in ms."""

    rows: int
    bytes: int
    linger_ms: int
    longest_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Fsync:
    """On whose disks a write must be before it counts, besides Redis' own, and how long that is waited for."""

    replicas: int
    within_ms: int


class Scripts:
    """The transitions of one deployment. Every method raises redis-py's own errors when Redis is away."""

    def __init__(self, redis: Redis, keys: Keys) -> None:
        self.redis = redis
        self.keys = keys

    async def _run(self, name: str, keys: Sequence[str], args: Sequence[Arg]) -> Any:
        return await run(self.redis, name, keys, args)

    async def _run_to_disk(
        self, name: str, keys: Sequence[str], args: Sequence[Arg], fsync: Fsync
    ) -> tuple[Any, bool]:
        """Return the reply, and whether everything up to this script's writes is confirmed to be on disk."""
        for script in (("EVALSHA", _sha(name)), ("EVAL", source(name))):
            # WAITAOF covers the writes of its own connection, so both go into one pipeline.
            async with self.redis.pipeline(transaction=False) as pipe:
                pipe.execute_command(*script, len(keys), *keys, *args)
                pipe.execute_command("WAITAOF", 1, fsync.replicas, fsync.within_ms)
                reply, on_disk = await pipe.execute(raise_on_error=False)
            if not isinstance(reply, NoScriptError):
                break
        if isinstance(reply, Exception):
            raise reply
        if isinstance(on_disk, Exception):
            return reply, False
        return reply, on_disk[0] >= 1 and on_disk[1] >= fsync.replicas

    async def enqueue(
        self,
        *,
        batch_id: BatchId,
        lane_id: LaneId,
        spec: bytes,
        mailbox: Mailbox,
        run_id: RunId,
        run_name: str,
        cap: BatchCap,
        poll_ms: int,
        keep_ms: int,
        ask_failed_anew: bool,
        rows: Sequence[RowIn],
    ) -> Enqueued:
        """Append requests to the lane's open batch, or attach to equal ones: `enqueue.lua`."""
        k = self.keys
        keys = [k.schedule, k.lane(lane_id), k.batch(batch_id), k.rows(batch_id), k.batches, k.lanes]
        keys += [k.run(run_id), k.run_batches(run_id), k.runs]
        args: list[Arg] = [batch_id, lane_id, spec, mailbox, run_id, run_name]
        args += [cap.linger_ms, cap.longest_ms, cap.rows, cap.bytes]
        args += [poll_ms, keep_ms, int(ask_failed_anew), len(rows)]
        for row in rows:
            keys += (k.request(row.request_id), k.result(row.request_id))
            args += (row.request_id, row.packed, row.size)
        reply = await self._run("enqueue", keys, args)
        verdict = Verdict(reply[0].decode())
        if verdict is Verdict.OK:
            return Enqueued(verdict=verdict, placements=tuple(Placement(mark) for mark in reply[2].decode()))
        open_batch = BatchId(reply[1].decode()) if verdict is Verdict.MOVED else None
        return Enqueued(verdict=verdict, open_batch=open_batch)

    async def claim(self, *, batch_ids: Sequence[BatchId], lease_ms: int) -> list[DueBatch]:
        """Claim those of the batches that are due: `claim.lua`."""
        keys = [self.keys.schedule, *(self.keys.batch(batch_id) for batch_id in batch_ids)]
        reply = await self._run("claim", keys, [lease_ms, *batch_ids])
        return [
            DueBatch(
                batch_id=BatchId(batch_id.decode()),
                token=int(token or 0),
                state=_state(state),
                n_missed=int(missed),
                collected=bool(collected),
            )
            for batch_id, token, state, missed, collected in reply
        ]

    async def begin(
        self,
        *,
        batch_id: BatchId,
        token: int,
        lease_ms: int,
        states: Sequence[BatchState],
        alone: bool = True,
        nonce: str = "",
    ) -> Begun:
        """Start a step once for each token and return the batch's fields: `begin.lua`.

        A second call finds the step begun, unless it bears the `nonce` of the first; redis-py's resend does.
        """
        args: list[Arg] = [batch_id, token, lease_ms, ",".join(states)]
        args += [int(alone), UNENDED_ALLOWED, quarantine_sentence(batch_id), nonce or secrets.token_hex(8)]
        reply = await self._run("begin", self._batch(batch_id), args)
        return Begun(
            verdict=_verdict(reply[0]), fields=dict(zip(reply[1::2], reply[2::2], strict=True)) or None
        )

    async def survived(self, *, batch_id: BatchId, token: int) -> Verdict:
        """Forget a started step that did not kill its worker: `survived.lua`."""
        return _verdict(await self._run("survived", self._batch(batch_id), [batch_id, token]))

    async def retry(self, *, batch_id: BatchId, account: str = "") -> Verdict:
        """Make a waiting or quarantined batch due now: `retry.lua`."""
        keys = [*self._batch(batch_id), self.keys.circuit(account)]
        return _verdict(await self._run("retry", keys, [batch_id]))

    async def extend(self, *, batch_id: BatchId, token: int, lease_ms: int) -> Verdict:
        """Extend a claim's lease: `extend.lua`."""
        return _verdict(await self._run("extend", self._batch(batch_id), [batch_id, token, lease_ms]))

    async def release(
        self,
        *,
        batch_id: BatchId,
        token: int,
        delay_ms: int,
        error: str = "",
        create_refused: bool = False,
        denied: bool = False,
    ) -> Verdict:
        """Hand back a claimed batch for a later step: `release.lua`."""
        args: list[Arg] = [batch_id, token, delay_ms, error, int(create_refused), int(denied)]
        return _verdict(await self._run("release", self._batch(batch_id), args))

    async def hold(
        self,
        *,
        batch_id: BatchId,
        token: int,
        delay_ms: int,
        why: str,
        unmade: bool = False,
        parked: bool = False,
        away: bool = False,
    ) -> Verdict:
        """Hand back a claimed batch that waits for something outside of it: `hold.lua`."""
        args: list[Arg] = [batch_id, token, delay_ms, why, int(unmade), int(parked), int(away)]
        return _verdict(await self._run("hold", self._batch(batch_id), args))

    async def note(self, *, batch_id: BatchId, token: int, why: str) -> Verdict:
        """Store why a claimed batch waits while its step runs, '' = nothing holds it up: `note.lua`."""
        return _verdict(await self._run("note", [self.keys.batch(batch_id)], [token, why]))

    async def seal(self, *, batch_id: BatchId, token: int, lane_id: LaneId) -> Verdict:
        """Close an open batch to new requests: `seal.lua`."""
        keys = [*self._batch(batch_id), self.keys.lane(lane_id)]
        return _verdict(await self._run("seal", keys, [batch_id, token]))

    async def intend(self, *, batch_id: BatchId, token: int, label: str) -> str | None:
        """Store the intent to submit and return the label in force; None = stale: `intend.lua`."""
        reply = await self._run("intend", [self.keys.batch(batch_id)], [token, label])
        return reply[1].decode() if reply[0] == b"OK" else None

    async def uploaded(
        self, *, batch_id: BatchId, token: int, input_file_id: str, n_lines: int, account: str = ""
    ) -> Verdict:
        """Remember the provider's input file: `uploaded.lua`."""
        args: list[Arg] = [token, input_file_id, n_lines, account]
        return _verdict(await self._run("uploaded", [self.keys.batch(batch_id)], args))

    async def arm(
        self,
        *,
        batch_id: BatchId,
        token: int,
        account: str = "",
        doubted: bool = False,
        fsync: Fsync | None = None,
    ) -> Verdict:
        """Store that the create is about to be sent; NOT_ON_DISK = stored, but not where `fsync` asks: `arm.lua`."""
        keys = [self.keys.batch(batch_id)]
        args: list[Arg] = [token, account, int(doubted)]
        if fsync is None:
            return _verdict(await self._run("arm", keys, args))
        reply, on_disk = await self._run_to_disk("arm", keys, args, fsync)
        verdict = _verdict(reply)
        return verdict if on_disk or verdict is not Verdict.OK else Verdict.NOT_ON_DISK

    async def submitted(
        self,
        *,
        batch_id: BatchId,
        token: int,
        provider_batch_id: ProviderBatchId,
        delay_ms: int,
        account: str = "",
    ) -> tuple[Verdict, str]:
        """Store the provider's batch id; return the id in force to a stale claim: `submitted.lua`."""
        args: list[Arg] = [batch_id, token, provider_batch_id, delay_ms, account]
        reply = await self._run("submitted", self._batch(batch_id), args)
        return _verdict(reply[0]), reply[1].decode() if len(reply) > 1 else ""

    async def progress(
        self,
        *,
        batch_id: BatchId,
        token: int,
        status: str,
        n_done: int,
        n_total: int,
        delay_ms: int,
        early: EarlyRead | None = None,
        listed: bool = False,
        cancel_asked: bool = False,
        why: str = "",
    ) -> Verdict:
        """Store what a poll of a running batch showed: `progress.lua`."""
        args: list[Arg] = [batch_id, token, status, n_done, n_total, delay_ms]
        args += [early.encode() if early else b"", "" if listed else "1", "1" if cancel_asked else "", why]
        return _verdict(await self._run("progress", self._batch(batch_id), args))

    async def ended(
        self, *, batch_id: BatchId, token: int, outcome: Outcome, status: str, ending: bytes, error: str
    ) -> Verdict:
        """Store how a batch ended: `ended.lua`."""
        args: list[Arg] = [batch_id, token, outcome, status, ending, error]
        return _verdict(await self._run("ended", self._batch(batch_id), args))

    async def deliver(
        self,
        *,
        batch_id: BatchId,
        token: int,
        max_attempts: int,
        keep_ms: int,
        mail_ms: int,
        mailboxes: Sequence[Mailbox],
        rows: Sequence[RowOut],
    ) -> Delivered:
        """Store results and announce them: `deliver.lua`."""
        k = self.keys
        keys = [k.batch(batch_id), k.unanswered(batch_id), *(k.mailbox(mailbox) for mailbox in mailboxes)]
        args: list[Arg] = [token, batch_id, max_attempts, keep_ms, mail_ms, k.notice_prefix]
        args += [len(mailboxes), *mailboxes]
        for row in rows:
            keys += (k.request(row.request_id), k.result(row.request_id))
            args += (row.kind.value, row.request_id, row.packed)
        reply = await self._run("deliver", keys, args)
        verdict = Verdict(reply[0].decode())
        if verdict is Verdict.OK:
            return Delivered(verdict=verdict, n_answered=reply[1], n_retry=reply[2], n_unknown=reply[3])
        return Delivered(verdict=verdict, mailboxes=tuple(Mailbox(name.decode()) for name in reply[1:]))

    async def collected(self, *, batch_id: BatchId, token: int, error: str = "") -> Verdict:
        """Store that every result was read: `collected.lua`."""
        return _verdict(await self._run("collected", self._batch(batch_id), [batch_id, token, error]))

    async def spend(
        self, *, batch_id: BatchId, token: int, inputs_ms: int, results_ms: int, keep_ms: int
    ) -> Verdict:
        """Note when the files of an ended batch are to be deleted: `spend.lua`."""
        keys = [self.keys.spent_files, self.keys.batch(batch_id)]
        return _verdict(await self._run("spend", keys, [batch_id, token, inputs_ms, results_ms, keep_ms]))

    async def claim_spent(self, *, most: int, pause_ms: int) -> list[str]:
        """Claim files that are due to be deleted: `claim_spent.lua`."""
        members = await self._run("claim_spent", [self.keys.spent_files], [most, pause_ms])
        return [member.decode(errors="replace") for member in members]

    async def unread(
        self, *, batch_id: BatchId, token: int, delay_ms: int, ending: bytes, why: str, held_back: bool
    ) -> Verdict:
        """Hand back an ended batch whose results lack rows, to be read again: `unread.lua`."""
        args: list[Arg] = [batch_id, token, delay_ms, ending, why, int(held_back)]
        return _verdict(await self._run("unread", self._batch(batch_id), args))

    async def requeue(
        self,
        *,
        target: BatchId,
        lane_id: LaneId,
        spec: bytes,
        source_id: BatchId,
        token: int,
        cap: BatchCap,
        keep_ms: int,
        rows: Sequence[RowIn],
    ) -> tuple[Verdict, int, BatchId | None]:
        """Move unanswered requests to another batch; return (verdict, n taken, open batch): `requeue.lua`."""
        k = self.keys
        keys = [
            k.schedule,
            k.lane(lane_id),
            k.batch(target),
            k.rows(target),
            k.batches,
            k.lanes,
            k.batch(source_id),
        ]
        args: list[Arg] = [target, lane_id, spec, source_id, token]
        args += [cap.linger_ms, cap.longest_ms, cap.rows, cap.bytes, keep_ms, len(rows)]
        for row in rows:
            keys.append(k.request(row.request_id))
            args += (row.packed, row.attempt, row.size)
        reply = await self._run("requeue", keys, args)
        verdict = Verdict(reply[0].decode())
        n_taken = int(reply[1]) if verdict is Verdict.OK else 0
        return verdict, n_taken, BatchId(reply[1].decode()) if verdict is Verdict.MOVED else None

    async def settle(self, *, batch_id: BatchId, token: int, state: BatchState, keep_ms: int) -> Verdict:
        """End a batch for ever: `settle.lua`."""
        keys = [*self._batch(batch_id), self.keys.rows(batch_id)]
        return _verdict(await self._run("settle", keys, [batch_id, token, state, keep_ms]))

    async def keep(
        self, *, batch_id: BatchId, token: int, keep_ms: int, request_ids: Sequence[RequestId]
    ) -> Verdict:
        """Remember requests that a batch settles without an answer: `keep.lua`."""
        keys = [self.keys.batch(batch_id), self.keys.unanswered(batch_id)]
        args: list[Arg] = [token, keep_ms, len(request_ids), *request_ids]
        return _verdict(await self._run("keep", keys, args))

    async def reopen(self, *, batch_id: BatchId, keep_ms: int) -> Verdict:
        """Reopen a batch that is over, to read its results once more: `reopen.lua`."""
        keys = [*self._batch(batch_id), self.keys.unanswered(batch_id)]
        return _verdict(await self._run("reopen", keys, [batch_id, ",".join(TERMINAL_STATES), keep_ms]))

    async def adopt(
        self,
        *,
        batch_id: BatchId,
        lane_id: LaneId,
        token: int,
        attempt: int,
        keep_ms: int,
        request_ids: Sequence[RequestId],
        last: bool,
    ) -> Verdict:
        """Put requests of a reopened batch back in flight: `adopt.lua`."""
        schedule, batch = self._batch(batch_id)
        keys = [schedule, self.keys.lane(lane_id), batch]
        for request_id in request_ids:
            keys += (self.keys.request(request_id), self.keys.result(request_id))
        args: list[Arg] = [token, batch_id, attempt, keep_ms, int(last)]
        return _verdict(await self._run("adopt", keys, args))

    async def cancel(
        self,
        *,
        batch_id: BatchId,
        lane_id: LaneId,
        ending: bytes,
        error: str,
        request_ids: Collection[RequestId] = (),
        mailboxes: Collection[Mailbox] | None = None,
    ) -> Verdict:
        """Request the cancellation of a batch: `cancel.lua`.

        Given mailboxes, return JOINED if another request is open in the batch, or if anybody else waits for these.
        """
        keys = [*self._batch(batch_id), self.keys.lane(lane_id), *map(self.keys.request, request_ids)]
        args: list[Arg] = [batch_id, ending, error]
        args += [",".join(mailboxes)] if mailboxes is not None else []
        return _verdict(await self._run("cancel", keys, args))

    async def withdraw(self, *, request_id: RequestId, batch_id: BatchId, mailbox: Mailbox) -> Verdict:
        """Take a waiter off a request; return OK, JOINED, TOO_LATE or GONE: `withdraw.lua`."""
        keys = [self.keys.request(request_id), self.keys.batch(batch_id)]
        return _verdict(await self._run("withdraw", keys, [batch_id, mailbox]))

    async def remember(
        self, *, run_id: RunId, number: int, packed: bytes, n_requests: int, keep_ms: int
    ) -> Verdict:
        """Store a chunk of a submitted file's requests: `remember.lua`."""
        args: list[Arg] = [number, packed, n_requests, keep_ms]
        return _verdict(await self._run("remember", [self.keys.run_requests(run_id)], args))

    async def discard(self, *, request_id: RequestId, packed: bytes) -> Verdict:
        """Drop a stored result that cannot be an answer, unless another replaced it; OK or GONE: `discard.lua`."""
        return _verdict(await self._run("discard", [self.keys.result(request_id)], [packed]))

    async def forget(self, *, request_id: RequestId, batch_id: BatchId) -> Verdict:
        """Drop a request that nobody will answer; return OK, UNREADABLE, LIVES or GONE: `forget.lua`."""
        keys = [self.keys.request(request_id), self.keys.batch(batch_id)]
        return _verdict(await self._run("forget", keys, [batch_id, ",".join(TERMINAL_STATES)]))

    async def unreadable(self, *, batch_id: BatchId, token: int, delay_ms: int, patience_ms: int) -> Verdict:
        """Store that a batch's record cannot be read; return OK, OVER or STALE: `unreadable.lua`."""
        args: list[Arg] = [batch_id, token, delay_ms, patience_ms]
        return _verdict(await self._run("unreadable", self._batch(batch_id), args))

    async def give_up(self, *, batch_id: BatchId, token: int, error: str, keep_ms: int) -> Verdict:
        """End for ever a batch whose record cannot be read: `give_up.lua`."""
        keys = [*self._batch(batch_id), self.keys.rows(batch_id)]
        return _verdict(await self._run("give_up", keys, [batch_id, token, error, keep_ms]))

    async def announce(self, *, name: str, presence: bytes, keep_ms: int, keep_list_ms: int) -> Verdict:
        """Store a worker's heartbeat: `announce.lua`."""
        keys = [self.keys.worker(name), self.keys.workers]
        return _verdict(await self._run("announce", keys, [name, presence, keep_ms, keep_list_ms]))

    async def drop(
        self,
        *,
        batch_id: BatchId,
        lane_id: LaneId,
        packed: bytes,
        keep_ms: int,
        mail_ms: int,
        ending: bytes,
        error: str,
        mailboxes: Sequence[Mailbox],
        request_ids: Sequence[RequestId],
    ) -> Dropped:
        """Drop requests that only these mailboxes wait for, and notify the mailboxes: `drop.lua`."""
        k = self.keys
        keys = [*self._batch(batch_id), k.lane(lane_id), *(k.mailbox(mailbox) for mailbox in mailboxes)]
        for request_id in request_ids:
            keys += (k.request(request_id), k.result(request_id))
        args: list[Arg] = [batch_id, packed, keep_ms, mail_ms, k.notice_prefix, ending, error]
        args += [len(mailboxes), *mailboxes, *request_ids]
        reply = await self._run("drop", keys, args)
        verdict = Verdict(reply[0].decode())
        if verdict is not Verdict.OK:
            return Dropped(verdict=verdict)
        return Dropped(verdict=verdict, n_dropped=reply[1], n_shared=reply[2], ended=reply[3] == 1)

    def _batch(self, batch_id: BatchId) -> list[str]:
        return [self.keys.schedule, self.keys.batch(batch_id)]


def _state(reply: bytes) -> BatchState | None:
    try:
        return BatchState(reply.decode())
    except ValueError:
        return None


def _verdict(reply: bytes) -> Verdict:
    return Verdict(reply.decode())
