"""What the Lua scripts of batches and requests take and answer: a stub each."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

import msgspec

from .keys import (
    IN_FLIGHT,
    MAIL,
    MINUTE,
    RESULTS,
    UNNEEDED,
    WORKER,
    BatchId,
    LaneId,
    Mailbox,
    ProviderBatchId,
    RequestId,
    RunId,
)
from .records.batch import UNENDED_ALLOWED, EarlyRead
from .states import TERMINAL_STATES, BatchState, Outcome, Placement, RowKind, Verdict
from .stubs import Fsync, Stubs, script

A_PERSON: Final = "a person"

Json: TypeAlias = bytes | msgspec.Struct

Done: TypeAlias = Literal[Verdict.OK]
Fenced: TypeAlias = Literal[Verdict.OK, Verdict.STALE]
"""STALE = another claim has overtaken this one, or the batch is in no state for this: nothing was done."""
Armed: TypeAlias = Literal[Verdict.OK, Verdict.STALE, Verdict.NOT_ON_DISK]
BeginVerdict: TypeAlias = Literal[Verdict.OK, Verdict.ALONE, Verdict.QUARANTINED, Verdict.STALE]
CancelVerdict: TypeAlias = Literal[Verdict.OK, Verdict.TOO_LATE, Verdict.GONE, Verdict.JOINED]
DropVerdict: TypeAlias = Literal[Verdict.OK, Verdict.TOO_LATE, Verdict.GONE]
DeliverVerdict: TypeAlias = Literal[Verdict.OK, Verdict.MAILBOXES, Verdict.STALE]
BatchErased: TypeAlias = Literal[Verdict.OK, Verdict.GONE, Verdict.LIVES, Verdict.BUSY]
Discarded: TypeAlias = Literal[Verdict.OK, Verdict.GONE]
EnqueueVerdict: TypeAlias = Literal[Verdict.OK, Verdict.MOVED, Verdict.USED, Verdict.UNSEALED]
Forgotten: TypeAlias = Literal[Verdict.OK, Verdict.UNREADABLE, Verdict.GONE, Verdict.LIVES]
OwnVerdict: TypeAlias = Literal[Verdict.OK, Verdict.TAKEN]
Reopened: TypeAlias = Literal[Verdict.OK, Verdict.TOO_LATE, Verdict.BUSY, Verdict.GONE]
SurplusVerdict: TypeAlias = Literal[Verdict.OK, Verdict.USED]
RequeueVerdict: TypeAlias = Literal[Verdict.OK, Verdict.MOVED, Verdict.USED, Verdict.STALE]
Retried: TypeAlias = Literal[Verdict.OK, Verdict.BUSY, Verdict.TOO_LATE, Verdict.GONE]
Unreadable: TypeAlias = Literal[Verdict.OK, Verdict.OVER, Verdict.STALE]
Withdrawn: TypeAlias = Literal[Verdict.OK, Verdict.JOINED, Verdict.TOO_LATE, Verdict.GONE]

_STATES: Final[Mapping[bytes, BatchState]] = {state.value.encode(): state for state in BatchState}


@dataclass(frozen=True, slots=True, kw_only=True)
class Enqueued:
    """Answer of `enqueue`: on OK the placements of the rows taken, else the batch that is open instead."""

    verdict: EnqueueVerdict
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
    """Answer of `begin`; the batch's fields with OK and QUARANTINED."""

    verdict: BeginVerdict
    fields: Mapping[bytes, bytes] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivered:
    """Answer of `deliver`."""

    verdict: DeliverVerdict
    n_answered: int = 0
    n_retry: int = 0
    n_unknown: int = 0
    n_answer_bytes: int = 0
    """How many bytes all stored answers of the batch take."""
    mailboxes: tuple[Mailbox, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Dropped:
    """Answer of `drop`; `n_shared` requests were left because others wait for them."""

    verdict: DropVerdict
    n_dropped: int = 0
    n_shared: int = 0
    ended: bool = False
    """Whether the batch held nothing else and has ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Erased:
    """Answer of `erase`."""

    n_answers: int
    n_left: int
    """Requests that were left alone because somebody has asked for them again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Requeued:
    """Answer of `requeue`: on OK how many rows were taken, on MOVED the batch that is open instead."""

    verdict: RequeueVerdict
    n_taken: int = 0
    open_batch: BatchId | None = None


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
    about: str = ""
    """For people: the tokens of a success (`Tokens.spelled`), or the reason of a failure (`Reason.spelled`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchCap:
    """How much goes into one batch and how long an open one lingers, in ms."""

    rows: int
    bytes: int
    linger_ms: int
    longest_ms: int


def _enqueued(verdict: EnqueueVerdict, *rest: Any) -> Enqueued:
    match verdict:
        case Verdict.OK:
            return Enqueued(verdict=verdict, placements=tuple(map(Placement, rest[1].decode())))
        case Verdict.MOVED:
            return Enqueued(verdict=verdict, open_batch=BatchId(rest[0].decode()))
        case Verdict.USED | Verdict.UNSEALED:
            return Enqueued(verdict=verdict)


def _due(reply: Sequence[Any]) -> list[DueBatch]:
    return [
        DueBatch(
            batch_id=BatchId(batch_id.decode()),
            token=int(token or 0),
            state=_STATES.get(state),
            n_missed=int(missed),
            collected=bool(collected),
        )
        for batch_id, token, state, missed, collected in reply
    ]


def _begun(verdict: BeginVerdict, *flat: bytes) -> Begun:
    return Begun(verdict=verdict, fields=dict(zip(flat[::2], flat[1::2], strict=True)) or None)


def _delivered(verdict: DeliverVerdict, *rest: Any) -> Delivered:
    if verdict is Verdict.OK:
        return Delivered(
            verdict=verdict, n_answered=rest[0], n_retry=rest[1], n_unknown=rest[2], n_answer_bytes=rest[3]
        )
    return Delivered(verdict=verdict, mailboxes=tuple(Mailbox(name.decode()) for name in rest))


def _requeued(verdict: RequeueVerdict, *rest: Any) -> Requeued:
    return Requeued(
        verdict=verdict,
        n_taken=int(rest[0]) if verdict is Verdict.OK else 0,
        open_batch=BatchId(rest[0].decode()) if verdict is Verdict.MOVED else None,
    )


def _dropped(verdict: DropVerdict, *rest: int) -> Dropped:
    if verdict is not Verdict.OK:
        return Dropped(verdict=verdict)
    return Dropped(verdict=verdict, n_dropped=rest[0], n_shared=rest[1], ended=rest[2] == 1)


def _label(verdict: Fenced, *label: bytes) -> str | None:
    return label[0].decode() if verdict is Verdict.OK else None


def _other_owner(_: OwnVerdict, other: bytes = b"") -> BatchId | None:
    return BatchId(other.decode(errors="replace")) if other else None


def _submitted(verdict: Fenced, in_force: bytes = b"") -> tuple[Fenced, str]:
    return verdict, in_force.decode()


def _members(reply: Sequence[bytes]) -> list[str]:
    return [member.decode(errors="replace") for member in reply]


def _erased(reply: Sequence[int]) -> Erased:
    return Erased(n_answers=reply[0], n_left=reply[1])


class Scripts(Stubs):
    """The moves of the batches and requests of one deployment. A stub's name is that of its script's file.

    Seconds (`delay_s`) are sent as milliseconds (`delay_ms`). What a stub stores lives as long as `keys.py` says;
    tests pass other lifetimes.
    """

    @script(EnqueueVerdict, read=_enqueued)
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
        ask_failed_anew: bool,
        repeats: str = "",
        whose: str = "",
        rows: Sequence[RowIn],
        keep_ms: int = IN_FLIGHT.ms,
    ) -> Enqueued:
        """Append requests to the lane's open batch, or attach to equal requests; renew the credential that they need.

        `repeats` has a character per row: "1" for a request that the run has asked for before, and counts once.
        """

    @script(read=_due)
    async def claim(self, *, batch_ids: Sequence[BatchId], lease_ms: int) -> list[DueBatch]:
        """Claim those of the batches that are due."""

    @script(BeginVerdict, read=_begun)
    async def begin(
        self,
        batch_id: BatchId,
        token: int,
        lease_ms: int,
        states: Sequence[BatchState],
        *,
        error: str,
        nonce: str,
        alone: bool = True,
        allowed: int = UNENDED_ALLOWED,
    ) -> Begun:
        """Start a step once for each token and return the batch's fields.

        A second call finds the step begun, unless it has the `nonce` of the first, as redis-py's resend has. `error` is
        the sentence on a quarantine.
        """

    @script(Fenced)
    async def survived(self, batch_id: BatchId, token: int) -> Fenced:
        """Forget a started step that did not kill its worker."""

    @script(Retried)
    async def retry(self, *, batch_id: BatchId, account: str = "", by: str = A_PERSON) -> Retried:
        """Make a waiting or quarantined batch due now; `by` names that person in the timeline."""

    @script(Fenced)
    async def extend(self, batch_id: BatchId, token: int, lease_ms: int) -> Fenced:
        """Extend the lease of a claim."""

    @script(Fenced)
    async def release(
        self,
        batch_id: BatchId,
        token: int,
        delay_s: float,
        error: str = "",
        *,
        create_refused: bool = False,
        denied: bool = False,
    ) -> Fenced:
        """Make a claimed batch due again after a delay; '' keeps its last error."""

    @script(Fenced)
    async def hold(
        self,
        batch_id: BatchId,
        token: int,
        delay_s: float,
        why: str,
        *,
        unmade: bool = False,
        parked: bool = False,
        away: bool = False,
    ) -> Fenced:
        """Make a claimed batch that waits for something else due again after a delay, without a stumble."""

    @script(Fenced)
    async def note(self, batch_id: BatchId, token: int, why: str) -> Fenced:
        """Store why a claimed batch waits while its step runs; '' = it does not wait."""

    @script(Fenced)
    async def seal(self, batch_id: BatchId, token: int, lane_id: LaneId) -> Fenced:
        """Close an open batch to new requests."""

    @script(Fenced, read=_label)
    async def intend(self, batch_id: BatchId, token: int, label: str) -> str | None:
        """Store the intent to submit and return the label in force; None = the claim is stale."""

    @script(Fenced)
    async def uploaded(
        self, batch_id: BatchId, token: int, input_file_id: str, n_lines: int, account: str = ""
    ) -> Fenced:
        """Store the id of the provider's input file, its number of lines and the account that uploaded it."""

    @script(Armed)
    async def arm(
        self,
        batch_id: BatchId,
        token: int,
        account: str = "",
        *,
        doubted: bool = False,
        fsync: Fsync | None = None,
    ) -> Armed:
        """Store that the create is about to be sent, and under which account.

        `doubted` = a create may have been forgotten and was not found; this run of Redis owns the batch now.
        """

    @script(OwnVerdict, read=_other_owner)
    async def own(
        self,
        *,
        batch_id: BatchId,
        name: str,
        keep_ms: int = IN_FLIGHT.ms,
        terminal: Collection[BatchState] = TERMINAL_STATES,
    ) -> BatchId | None:
        """Make a batch the owner of its provider's id; return the batch that owns it already and is not over."""

    @script(Fenced, read=_submitted)
    async def submitted(
        self,
        batch_id: BatchId,
        token: int,
        provider_batch_id: ProviderBatchId,
        delay_s: float,
        account: str = "",
    ) -> tuple[Fenced, str]:
        """Store the provider's batch id; return the id in force to a stale claim."""

    @script(Fenced)
    async def progress(
        self,
        batch_id: BatchId,
        token: int,
        status: str,
        n_done: int,
        n_total: int,
        delay_s: float,
        early: EarlyRead | None = None,
        *,
        listed: bool = False,
        cancel_asked: bool = False,
        why: str = "",
    ) -> Fenced:
        """Store a look at a running batch and how far its early results were read.

        `listed` = only a list shows it. `cancel_asked` = the provider was just asked to cancel it. `why` is the reason
        of the wait, for people.
        """

    @script(Fenced)
    async def ended(
        self,
        batch_id: BatchId,
        token: int,
        outcome: Outcome,
        ending: Json,
        error: str = "",
        *,
        status: str = "",
    ) -> Fenced:
        """Store how a batch ended; `error` is the reason in one sentence, `status` the provider's word."""

    @script(DeliverVerdict, read=_delivered)
    async def deliver(
        self,
        batch_id: BatchId,
        token: int,
        rows: Sequence[RowOut],
        *,
        max_attempts: int,
        mailboxes: Sequence[Mailbox],
        keep_ms: int = RESULTS.ms,
        mail_ms: int = MAIL.ms,
        minute_ms: int = MINUTE.ms,
    ) -> Delivered:
        """Store results and notify the sessions that wait for them."""

    @script(Fenced)
    async def collected(self, batch_id: BatchId, token: int, error: str = "", n_refused: int = 0) -> Fenced:
        """Store that every result was read; `error` is the batch's own and replaces the error of an earlier reading.

        `n_refused` of its requests have a result that is worth another attempt.
        """

    @script(Fenced)
    async def spend(
        self, batch_id: BatchId, token: int, *, inputs_ms: int, results_ms: int, keep_ms: int = IN_FLIGHT.ms
    ) -> Fenced:
        """Schedule the files of an ended batch for deletion."""

    @script(read=_erased)
    async def erase(self, *, request_ids: Collection[RequestId], batch_ids: Collection[BatchId]) -> Erased:
        """Erase requests and their answers, but those that wait in a batch that is not being erased."""

    @script(BatchErased)
    async def erase_batch(
        self, *, batch_id: BatchId, terminal: Collection[BatchState] = TERMINAL_STATES
    ) -> BatchErased:
        """Erase a batch that is over, with everything that is stored of it."""

    @script()
    async def lapse(
        self,
        *,
        names: Sequence[str],
        needed: bool,
        read_at: int,
        grace_ms: int = UNNEEDED.ms,
        keep_ms: int = IN_FLIGHT.ms,
    ) -> int:
        """Let credentials that no batch needs expire soon; return how many lifetimes were changed."""

    @script(read=_members)
    async def claim_spent(self, *, most: int, pause_ms: int) -> list[str]:
        """Claim files that are due to be deleted."""

    @script(Fenced)
    async def unread(
        self, batch_id: BatchId, token: int, delay_s: float, ending: Json, why: str, *, held_back: bool
    ) -> Fenced:
        """Hand back an ended batch whose results lack rows; `held_back` = nothing of it is ever run again."""

    @script(RequeueVerdict, read=_requeued)
    async def requeue(
        self,
        *,
        target: BatchId,
        lane_id: LaneId,
        spec: bytes,
        source_id: BatchId,
        token: int,
        cap: BatchCap,
        sent_again: str = "",
        rows: Sequence[RowIn],
        keep_ms: int = IN_FLIGHT.ms,
        minute_ms: int = MINUTE.ms,
    ) -> Requeued:
        """Move unanswered requests to another batch; `sent_again` = why they are sent once more, a `SentAgain`."""

    @script(SurplusVerdict)
    async def surplus(
        self, batch_id: BatchId, provider_batch_id: ProviderBatchId, *, minute_ms: int = MINUTE.ms
    ) -> SurplusVerdict:
        """Count the requests of a batch as sent again, because its provider has made a second batch of them."""

    @script(Fenced)
    async def settle(
        self, batch_id: BatchId, token: int, state: BatchState, *, keep_ms: int = IN_FLIGHT.ms
    ) -> Fenced:
        """Move an ended batch to a terminal state."""

    @script(Fenced)
    async def keep(
        self, batch_id: BatchId, token: int, request_ids: Sequence[RequestId], *, keep_ms: int = IN_FLIGHT.ms
    ) -> Fenced:
        """Store the requests that a batch settles without an answer of its provider."""

    @script(Reopened)
    async def reopen(
        self,
        *,
        batch_id: BatchId,
        by: str = A_PERSON,
        keep_ms: int = IN_FLIGHT.ms,
        terminal: Collection[BatchState] = TERMINAL_STATES,
    ) -> Reopened:
        """Reopen a batch that is over, to read its results once more."""

    @script(Fenced)
    async def adopt(
        self,
        batch_id: BatchId,
        token: int,
        lane_id: LaneId,
        request_ids: Sequence[RequestId],
        *,
        attempt: int,
        keep_ms: int = IN_FLIGHT.ms,
        last: bool = False,
    ) -> Fenced:
        """Put requests of a reopened batch back in flight; the `last` call ends the adoption."""

    @script(CancelVerdict)
    async def cancel(
        self,
        *,
        batch_id: BatchId,
        lane_id: LaneId,
        ending: bytes,
        error: str,
        alone: bool = False,
        request_ids: Collection[RequestId] = (),
        mailboxes: Collection[Mailbox] = (),
        by: str = A_PERSON,
    ) -> CancelVerdict:
        """Request the cancellation of a batch.

        With `alone`, return JOINED if another request is open in the batch, or if others wait for these.
        """

    @script(Withdrawn)
    async def withdraw(self, *, request_id: RequestId, batch_id: BatchId, mailbox: Mailbox) -> Withdrawn:
        """Take a waiter off a request."""

    @script(Done)
    async def remember(
        self, *, run_id: RunId, number: int, packed: bytes, n_requests: int, keep_ms: int = IN_FLIGHT.ms
    ) -> Done:
        """Store a chunk of a submitted file's requests."""

    @script(Discarded)
    async def discard(self, *, request_id: RequestId, packed: bytes) -> Discarded:
        """Drop a stored result that cannot be an answer, unless another replaced it."""

    @script(Forgotten)
    async def forget(
        self,
        *,
        request_id: RequestId,
        batch_id: BatchId,
        terminal: Collection[BatchState] = TERMINAL_STATES,
    ) -> Forgotten:
        """Drop a request that nobody will answer."""

    @script(Unreadable)
    async def unreadable(
        self, batch_id: BatchId, token: int, *, delay_ms: int, patience_ms: int
    ) -> Unreadable:
        """Make a batch whose record cannot be read due again later; OVER = it has been unreadable for too long."""

    @script(Fenced)
    async def give_up(
        self, batch_id: BatchId, token: int, error: str, *, keep_ms: int = IN_FLIGHT.ms
    ) -> Fenced:
        """End for ever a batch whose record cannot be read."""

    @script(Done)
    async def announce(
        self,
        *,
        name: str,
        presence: bytes,
        keep_ms: int = WORKER.ms,
        keep_list_ms: int = IN_FLIGHT.ms,
    ) -> Done:
        """Store a worker's heartbeat."""

    @script(DropVerdict, read=_dropped)
    async def drop(
        self,
        *,
        batch_id: BatchId,
        lane_id: LaneId,
        packed: bytes,
        ending: bytes,
        error: str,
        mailboxes: Sequence[Mailbox],
        request_ids: Sequence[RequestId],
        keep_ms: int = RESULTS.ms,
        mail_ms: int = MAIL.ms,
    ) -> Dropped:
        """Drop requests that only these mailboxes wait for, and notify the mailboxes."""
