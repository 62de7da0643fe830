"""A claimed batch: every move that needs the claim's token."""

from __future__ import annotations

import functools
import secrets
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, Concatenate, Final, ParamSpec

from batchling_client.wire.ids import new_batch_id, owner_name
from batchling_client.wire.keys import BatchId, LaneId, Mailbox, ProviderBatchId, RequestId
from batchling_client.wire.records.batch import Batch, quarantine_sentence
from batchling_client.wire.records.row_and_result import CorruptRecord
from batchling_client.wire.records.usage_and_failure import SentAgain
from batchling_client.wire.scripts import BatchCap, BeginVerdict, Delivered, Fenced, RowIn, RowOut, Scripts
from batchling_client.wire.states import BatchState, Verdict
from batchling_client.wire.stubs import Fsync

from .errors import NotOnDisk, StaleClaim

P = ParamSpec("P")

SPENT_INPUTS_MS: Final = 3_000
"""How long after its results were read the input file of a batch is deleted: by then the batch is settled."""
SPENT_RESULTS_MS: Final = 7 * 24 * 3600 * 1000
UNREADABLE_LEASES: Final = 4
"""For how many leases a batch whose record cannot be read is left to workers that may be able to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What a deployment's settings say about every claim."""

    lease_ms: int
    result_ttl_ms: int
    max_attempts: int
    fsync_intent: Fsync | None = None


def _move(
    stub: Callable[Concatenate[Scripts, BatchId, int, P], Coroutine[Any, Any, Fenced]], *, quiet: bool = False
) -> Callable[Concatenate[Claim, P], Coroutine[Any, Any, None]]:
    """Make a stub a method of the claim: it passes batch id and token, and raises `StaleClaim` unless it is `quiet`."""

    @functools.wraps(stub)
    async def move(self: Claim, /, *args: P.args, **kwargs: P.kwargs) -> None:
        verdict = await stub(self.scripts, self.batch_id, self.token, *args, **kwargs)
        if not quiet:
            self.check(verdict)

    return move


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A batch under a token; a move raises `StaleClaim` if another worker has taken over.

    `release`, `hold`, `note` and `survived` change nothing then, and raise nothing. Two claims of a batch under one
    token are equal.
    """

    batch_id: BatchId
    token: int
    scripts: Scripts = field(compare=False, repr=False)
    terms: Terms = field(compare=False, repr=False)
    _mailboxes: dict[Mailbox, None] = field(init=False, compare=False, repr=False, default_factory=dict)

    collected = _move(Scripts.collected)
    ended = _move(Scripts.ended)
    give_up = _move(Scripts.give_up)
    hold = _move(Scripts.hold, quiet=True)
    keep = _move(Scripts.keep)
    note = _move(Scripts.note, quiet=True)
    progress = _move(Scripts.progress)
    release = _move(Scripts.release, quiet=True)
    seal = _move(Scripts.seal)
    settle = _move(Scripts.settle)
    survived = _move(Scripts.survived, quiet=True)
    unread = _move(Scripts.unread)
    uploaded = _move(Scripts.uploaded)

    def check(self, verdict: Verdict) -> None:
        """Raise `StaleClaim` if a move of this claim answered STALE."""
        if verdict is Verdict.STALE:
            raise StaleClaim(self.batch_id)

    async def begin(
        self, states: Sequence[BatchState], *, alone: bool = False
    ) -> tuple[BeginVerdict, Batch | None]:
        """Begin a step; return the verdict, and the batch if the step may start or is quarantined.

        Raises `CorruptRecord` if the record of the batch cannot be read.
        """
        begun = await self.scripts.begin(
            self.batch_id,
            self.token,
            self.terms.lease_ms,
            states,
            alone=alone,
            error=quarantine_sentence(self.batch_id),
            nonce=secrets.token_hex(8),
        )
        batch = Batch.decode(begun.fields) if begun.fields is not None else None
        if batch is not None and batch.batch_id != self.batch_id:
            raise CorruptRecord("a stored batch goes by the id of another")
        return begun.verdict, batch

    async def extend(self) -> None:
        """Extend the lease."""
        self.check(await self.scripts.extend(self.batch_id, self.token, self.terms.lease_ms))

    async def intend(self, label: str) -> str:
        """Store the intent to submit; return the label in force."""
        in_force = await self.scripts.intend(self.batch_id, self.token, label)
        if in_force is None:
            raise StaleClaim(self.batch_id)
        return in_force

    async def arm(self, account: str) -> None:
        """Store that the create is about to be sent, and under which account.

        Raises `NotOnDisk` where that must be on disk and is not.
        """
        verdict = await self.scripts.arm(self.batch_id, self.token, account, fsync=self.terms.fsync_intent)
        if verdict is Verdict.NOT_ON_DISK:
            raise NotOnDisk("Redis does not confirm that the intent is on disk: nothing was sent")
        self.check(verdict)

    async def doubt(self) -> None:
        """Store that a create may have been forgotten and was not found; this run of Redis owns the batch now."""
        self.check(await self.scripts.arm(self.batch_id, self.token, doubted=True))

    async def own(self, provider_batch_id: ProviderBatchId, account: str) -> BatchId | None:
        """Make the batch the owner of its provider's id; return the batch that owns it already and is not over.

        This needs no token: an answered create must be stored in any case.
        """
        name = owner_name(account, provider_batch_id)
        return await self.scripts.own(batch_id=self.batch_id, name=name)

    async def submitted(self, provider_batch_id: ProviderBatchId, delay_s: float, account: str) -> str:
        """Store the provider's batch id; return the id in force if another worker was first, else ''."""
        verdict, in_force = await self.scripts.submitted(
            self.batch_id, self.token, provider_batch_id, delay_s, account
        )
        if verdict is Verdict.OK or in_force == provider_batch_id:
            return ""
        if in_force:
            return in_force
        raise StaleClaim(self.batch_id)

    async def deliver(self, rows: Sequence[RowOut]) -> Delivered:
        """Store results and notify the sessions that wait for them."""
        while True:
            reply = await self.scripts.deliver(
                self.batch_id,
                self.token,
                rows,
                max_attempts=self.terms.max_attempts,
                keep_ms=self.terms.result_ttl_ms,
                mailboxes=tuple(self._mailboxes),
            )
            if reply.verdict is not Verdict.MAILBOXES:
                self.check(reply.verdict)
                return reply
            self._mailboxes.update(dict.fromkeys(reply.mailboxes))

    async def spend(self) -> None:
        """Schedule the files of the batch for deletion; results are kept for a week, in case a person asks for them."""
        self.check(
            await self.scripts.spend(
                self.batch_id,
                self.token,
                inputs_ms=SPENT_INPUTS_MS,
                results_ms=SPENT_RESULTS_MS,
            )
        )

    async def requeue(
        self, batch: Batch, rows: Sequence[RowIn], cap: BatchCap, why: SentAgain | None = None
    ) -> None:
        """Move unanswered requests into the lane's open batch; open as many batches as they need.

        `why` = why their provider is sent them once more; None if it was not sent them.
        """
        target, rest = new_batch_id(), list(rows)
        while rest:
            reply = await self.scripts.requeue(
                target=target,
                lane_id=batch.lane_id,
                spec=batch.spec.encode(),
                source_id=self.batch_id,
                token=self.token,
                cap=cap,
                sent_again=why or "",
                rows=rest,
            )
            self.check(reply.verdict)
            rest = rest[reply.n_taken :]
            target = reply.open_batch or new_batch_id()

    async def count_surplus(self, provider_batch_id: ProviderBatchId) -> None:
        """Count that the provider has made a second batch of these requests."""
        await self.scripts.surplus(self.batch_id, provider_batch_id)

    async def adopt(self, lane_id: LaneId, request_ids: Sequence[RequestId], *, last: bool = False) -> None:
        """Put requests of the reopened batch back in flight; the `last` call ends the adoption."""
        self.check(
            await self.scripts.adopt(
                self.batch_id,
                self.token,
                lane_id,
                request_ids,
                attempt=self.terms.max_attempts,
                last=last,
            )
        )

    async def unreadable(self) -> bool:
        """Make the unreadable batch due again later; return True once it has been unreadable for too long."""
        lease_ms = self.terms.lease_ms
        verdict = await self.scripts.unreadable(
            self.batch_id, self.token, delay_ms=lease_ms, patience_ms=UNREADABLE_LEASES * lease_ms
        )
        self.check(verdict)
        return verdict is Verdict.OVER
