"""A claimed batch: every move that needs the claim's token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec

from batchling_client.wire.ids import new_batch_id
from batchling_client.wire.keys import BatchId, LaneId, Mailbox, ProviderBatchId, RequestId
from batchling_client.wire.records.batch import Batch, EarlyRead
from batchling_client.wire.records.row_and_result import CorruptRecord
from batchling_client.wire.scripts import BatchCap, Delivered, Fsync, RowIn, RowOut, Scripts
from batchling_client.wire.states import BatchState, Outcome, Verdict

from .errors import NotOnDisk, StaleClaim
from .provider import Ending

KEEP_MS: Final = 35 * 24 * 3600 * 1000
"""How long a request in flight and the record of a batch are kept, which is longer than any completion window."""
MAIL_MS: Final = 24 * 3600 * 1000
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

    async def begin(
        self, states: Sequence[BatchState], *, alone: bool = False
    ) -> tuple[Verdict, Batch | None]:
        """Begin a step; return the verdict, and the batch if the step may start or is quarantined.

        Raises `CorruptRecord` if the record of the batch cannot be read.
        """
        begun = await self.scripts.begin(
            batch_id=self.batch_id,
            token=self.token,
            lease_ms=self.terms.lease_ms,
            states=states,
            alone=alone,
        )
        batch = Batch.decode(begun.fields) if begun.fields is not None else None
        if batch is not None and batch.batch_id != self.batch_id:
            raise CorruptRecord("a stored batch goes by the id of another")
        return begun.verdict, batch

    async def survived(self) -> None:
        """Record that this worker outlived a step that did not end its claim."""
        await self.scripts.survived(batch_id=self.batch_id, token=self.token)

    async def extend(self) -> None:
        """Extend the lease."""
        self._fresh(
            await self.scripts.extend(batch_id=self.batch_id, token=self.token, lease_ms=self.terms.lease_ms)
        )

    async def release(
        self, delay_s: float, error: str = "", *, create_refused: bool = False, denied: bool = False
    ) -> None:
        """Make the batch due again after `delay_s`."""
        await self.scripts.release(
            batch_id=self.batch_id,
            token=self.token,
            delay_ms=int(delay_s * 1000),
            error=error,
            create_refused=create_refused,
            denied=denied,
        )

    async def hold(
        self, delay_s: float, why: str, *, unmade: bool = False, parked: bool = False, away: bool = False
    ) -> None:
        """Make a batch that waits for something else due again after `delay_s`."""
        await self.scripts.hold(
            batch_id=self.batch_id,
            token=self.token,
            delay_ms=int(delay_s * 1000),
            why=why,
            unmade=unmade,
            parked=parked,
            away=away,
        )

    async def note(self, why: str) -> None:
        """Store why the batch waits while its step runs; '' = it does not wait."""
        await self.scripts.note(batch_id=self.batch_id, token=self.token, why=why)

    async def seal(self, lane_id: LaneId) -> None:
        """Close an open batch to new requests."""
        self._fresh(await self.scripts.seal(batch_id=self.batch_id, token=self.token, lane_id=lane_id))

    async def intend(self, label: str) -> str:
        """Store the intent to submit; return the label in force."""
        in_force = await self.scripts.intend(batch_id=self.batch_id, token=self.token, label=label)
        if in_force is None:
            raise StaleClaim(self.batch_id)
        return in_force

    async def uploaded(self, input_file_id: str, n_lines: int, account: str = "") -> None:
        """Store the id of the provider's input file, its number of lines and the account that uploaded it."""
        self._fresh(
            await self.scripts.uploaded(
                batch_id=self.batch_id,
                token=self.token,
                input_file_id=input_file_id,
                n_lines=n_lines,
                account=account,
            )
        )

    async def arm(self, account: str = "") -> None:
        """Store that the create is about to be sent, and under which account.

        Raises `NotOnDisk` where that must be on disk and is not.
        """
        verdict = await self.scripts.arm(
            batch_id=self.batch_id, token=self.token, account=account, fsync=self.terms.fsync_intent
        )
        if verdict is Verdict.NOT_ON_DISK:
            raise NotOnDisk("Redis does not confirm that the intent is on disk: nothing was sent")
        self._fresh(verdict)

    async def doubt(self) -> None:
        """Store that a create may have been forgotten and was not found; this run of Redis owns the batch now."""
        self._fresh(await self.scripts.arm(batch_id=self.batch_id, token=self.token, doubted=True))

    async def submitted(self, provider_batch_id: ProviderBatchId, delay_s: float, account: str = "") -> str:
        """Store the provider's batch id; return the id in force if another worker was first, else ''."""
        verdict, in_force = await self.scripts.submitted(
            batch_id=self.batch_id,
            token=self.token,
            provider_batch_id=provider_batch_id,
            delay_ms=int(delay_s * 1000),
            account=account,
        )
        if verdict is Verdict.OK or in_force == provider_batch_id:
            return ""
        if in_force:
            return in_force
        raise StaleClaim(self.batch_id)

    async def progress(
        self,
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
        self._fresh(
            await self.scripts.progress(
                batch_id=self.batch_id,
                token=self.token,
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

    async def ended(self, outcome: Outcome, ending: Ending, error: str = "", *, status: str = "") -> None:
        """Store how the batch ended; `error` is the reason in one sentence, `status` the provider's word."""
        self._fresh(
            await self.scripts.ended(
                batch_id=self.batch_id,
                token=self.token,
                outcome=outcome,
                status=status,
                ending=msgspec.json.encode(ending),
                error=error,
            )
        )

    async def deliver(self, rows: Sequence[RowOut]) -> Delivered:
        """Store results and notify the sessions that wait for them."""
        while True:
            reply = await self.scripts.deliver(
                batch_id=self.batch_id,
                token=self.token,
                max_attempts=self.terms.max_attempts,
                keep_ms=self.terms.result_ttl_ms,
                mail_ms=MAIL_MS,
                mailboxes=tuple(self._mailboxes),
                rows=rows,
            )
            if reply.verdict is not Verdict.MAILBOXES:
                self._fresh(reply.verdict)
                return reply
            self._mailboxes.update(dict.fromkeys(reply.mailboxes))

    async def spend(self) -> None:
        """Schedule the files of the batch for deletion; results are kept for a week, in case a person asks for them."""
        self._fresh(
            await self.scripts.spend(
                batch_id=self.batch_id,
                token=self.token,
                inputs_ms=SPENT_INPUTS_MS,
                results_ms=SPENT_RESULTS_MS,
                keep_ms=KEEP_MS,
            )
        )

    async def unread(self, delay_s: float, ending: Ending, why: str, *, held_back: bool) -> None:
        """Hand back an ended batch whose results lack rows; `held_back` = nothing of it is ever run again."""
        self._fresh(
            await self.scripts.unread(
                batch_id=self.batch_id,
                token=self.token,
                delay_ms=int(delay_s * 1000),
                ending=msgspec.json.encode(ending),
                why=why,
                held_back=held_back,
            )
        )

    async def collected(self, error: str) -> None:
        """Store that every result was read; `error` is the batch's own and replaces the error of an earlier reading."""
        self._fresh(await self.scripts.collected(batch_id=self.batch_id, token=self.token, error=error))

    async def requeue(self, batch: Batch, rows: Sequence[RowIn], cap: BatchCap) -> None:
        """Move unanswered requests into the lane's open batch; open as many batches as they need."""
        target, rest = new_batch_id(), list(rows)
        while rest:
            verdict, n_taken, open_batch = await self.scripts.requeue(
                target=target,
                lane_id=batch.lane_id,
                spec=batch.spec.encode(),
                source_id=self.batch_id,
                token=self.token,
                cap=cap,
                keep_ms=KEEP_MS,
                rows=rest,
            )
            if verdict is Verdict.STALE:
                raise StaleClaim(self.batch_id)
            rest = rest[n_taken:] if verdict is Verdict.OK else rest
            target = open_batch or new_batch_id()

    async def settle(self, state: BatchState) -> None:
        """Move the ended batch to a terminal state."""
        self._fresh(
            await self.scripts.settle(batch_id=self.batch_id, token=self.token, state=state, keep_ms=KEEP_MS)
        )

    async def keep(self, request_ids: Sequence[RequestId]) -> None:
        """Store the requests that the batch settles without an answer of its provider."""
        self._fresh(
            await self.scripts.keep(
                batch_id=self.batch_id, token=self.token, keep_ms=KEEP_MS, request_ids=request_ids
            )
        )

    async def adopt(self, lane_id: LaneId, request_ids: Sequence[RequestId], *, last: bool = False) -> None:
        """Put requests of the reopened batch back in flight; the `last` call ends the adoption."""
        self._fresh(
            await self.scripts.adopt(
                batch_id=self.batch_id,
                lane_id=lane_id,
                token=self.token,
                attempt=self.terms.max_attempts,
                keep_ms=KEEP_MS,
                request_ids=request_ids,
                last=last,
            )
        )

    async def unreadable(self) -> bool:
        """Make the unreadable batch due again later; return True once it has been unreadable for too long."""
        verdict = await self.scripts.unreadable(
            batch_id=self.batch_id,
            token=self.token,
            delay_ms=self.terms.lease_ms,
            patience_ms=UNREADABLE_LEASES * self.terms.lease_ms,
        )
        self._fresh(verdict)
        return verdict is Verdict.OVER

    async def give_up(self, error: str) -> None:
        """End the batch, whose record cannot be read."""
        self._fresh(
            await self.scripts.give_up(batch_id=self.batch_id, token=self.token, error=error, keep_ms=KEEP_MS)
        )

    def _fresh(self, verdict: Verdict) -> None:
        if verdict is Verdict.STALE:
            raise StaleClaim(self.batch_id)
