"""Decides what becomes of rows: answered, tried again in another batch, or answered with an error."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, TypeAlias, assert_never

from batchling_client.wire import error_words
from batchling_client.wire.keys import RequestId
from batchling_client.wire.records.batch import Batch
from batchling_client.wire.records.usage_and_failure import SentAgain
from batchling_client.wire.states import BatchState, Outcome, RowKind

from ..provider import ROW_LOST, Answer, Complaint, Ending, error_body
from . import money, quota, reasons
from .blame import is_certain

RETRIED_STATUSES: Final = frozenset({408, 409, 425, 429})
RETRIED_ORIGINS: Final = frozenset({"batch_expired", ROW_LOST})
TOO_MANY_ROWS: Final = "too_many_tasks"
LIMITED: Final = 429
LONGEST_REASON: Final = 4096
FAULT_WAIT_S: Final = 5.0
"""How long after a batch that its provider failed for a reason of its own the next one is made; longer each time."""
FILE_WAIT_S: Final = 10.0
"""How long after a validator that did not find the input file (yet) the next batch is made."""
FINAL: Final = {
    reasons.OVERDUE: 504,
    reasons.UNSENT: 504,
    reasons.UNFOUND: 504,
    reasons.UNREADABLE: 502,
    reasons.TOO_MUCH: 502,
    reasons.DEFECT: 500,
}
"""Codes of ours with which a batch ends so that none of its requests is run again -> status."""


def row_kind(answer: Answer) -> RowKind:
    """Return what a provider's answer means for its request."""
    if answer.origin in RETRIED_ORIGINS:
        return RowKind.RETRY
    if answer.origin == "provider" and 200 <= answer.status < 300:
        return RowKind.SUCCESS
    if answer.origin == "provider" and (answer.status in RETRIED_STATUSES or answer.status >= 500):
        lacking = money.is_lacking(answer.status, answer.body[:LONGEST_REASON].decode(errors="replace"))
        return RowKind.FAILURE if lacking else RowKind.RETRY
    return RowKind.FAILURE


@dataclass(frozen=True, slots=True, kw_only=True)
class Requeue:
    """The request goes into another batch; `counts` = as another attempt, `halved` = of half the rows at most."""

    counts: bool
    wait_s: float = 0.0
    halved: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Refuse:
    """The request is answered with an error."""

    status: int
    body: bytes
    origin: str


RowFate: TypeAlias = Requeue | Refuse


def row_fate(batch: Batch, ending: Ending, request_id: RequestId, attempt: int, max_attempts: int) -> RowFate:
    """Return what becomes of a request that an ended and collected batch left unanswered."""
    outcome = batch.outcome or Outcome.FAILED
    match outcome:
        case Outcome.COMPLETED | Outcome.EXPIRED | Outcome.LOST:
            mine = next((one for one in ending.complaints if one.request_id == request_id), None)
            if mine is not None and is_certain(mine):
                return _blamed(mine)
            if attempt < max_attempts:
                return Requeue(counts=True)
            return _gone(batch, outcome, attempt)
        case Outcome.SPLIT:
            return Requeue(counts=False)
        case Outcome.CANCELLED:
            return _refusal(499, "batch_cancelled", _why_cancelled(batch))
        case Outcome.FAILED:
            return _of_failed(_Row(batch, ending, request_id, attempt, is_last=attempt >= max_attempts))
        case _:
            assert_never(outcome)


def over_quota(ending: Ending) -> quota.Refusal | None:
    """Return the refusal, if the provider failed a batch because too many tokens are enqueued."""
    refusals = (quota.refusal_in(c.message, c.code) for c in ending.complaints)
    return next((refusal for refusal in refusals if refusal is not None), None)


def too_many_rows(batch: Batch, ending: Ending) -> bool:
    """Return whether the provider failed a batch for the number of its rows, so that a smaller batch may succeed."""
    return batch.n_lines > 1 and any(c.code == TOO_MANY_ROWS for c in ending.complaints)


def terminal_state(outcome: Outcome | None) -> BatchState:
    """Return the state in which an ended batch settles."""
    if outcome is Outcome.CANCELLED:
        return BatchState.CANCELLED
    if outcome in (Outcome.FAILED, Outcome.LOST):
        return BatchState.FAILED
    return BatchState.SETTLED


def why_again(batch: Batch, fate: Requeue, *, refused: bool = False) -> SentAgain | None:
    """Return why requests of that fate are sent once more; None if the batch was never at its provider.

    `refused` = the results hold an error for each of them. Otherwise a request counts as missing if any is.
    """
    if batch.provider_batch_id is None or not fate.counts:
        return None
    if refused:
        return SentAgain.REFUSED
    match batch.outcome:
        case Outcome.EXPIRED:
            return SentAgain.EXPIRED
        case Outcome.LOST:
            return SentAgain.LOST
        case Outcome.COMPLETED:
            is_refused = batch.n_refused >= batch.n_open + batch.n_requeued
            return SentAgain.REFUSED if is_refused else SentAgain.MISSING
        case _:
            return SentAgain.FAILED


class _Row(NamedTuple):
    """A request that a failed batch left unanswered; `is_last` = it has had its last attempt."""

    batch: Batch
    ending: Ending
    request_id: RequestId
    attempt: int
    is_last: bool


def _of_failed(row: _Row) -> RowFate:
    """Return the fate of a row of a failed batch.

    A requeue counts as an attempt, or the next batch is smaller, so that each row gets an answer in the end.
    """
    batch, ending, _, attempt, is_last = row
    final = next((complaint for complaint in ending.complaints if complaint.code in FINAL), None)
    if final is not None:
        return _blamed(final)
    named = [complaint for complaint in ending.complaints if complaint.request_id is not None]
    if named:
        return _beside_named(row, named)
    if not is_last and _is_own_fault(ending):
        return Requeue(counts=True, wait_s=0.0 if batch.n_succeeded else FAULT_WAIT_S * attempt**2)
    if ending.status:
        return Refuse(status=ending.status, body=ending.body.encode(), origin="provider")
    if over_quota(ending) is not None and not ending.hopeless:
        return Requeue(counts=False)
    if too_many_rows(batch, ending):
        return Requeue(counts=False, halved=True)
    if any(c.param == "file_id" and c.line is None for c in ending.complaints) and not is_last:
        return Requeue(counts=True, wait_s=FILE_WAIT_S)
    # It ran and broke off: the requests that it left count as expired.
    if (batch.n_succeeded or batch.n_failed) and not is_last:
        return Requeue(counts=True)
    if ending.complaints:
        return _blamed(ending.complaints[0])
    reason = batch.error or f"Batch {batch.batch_id} failed and the provider gave no reason."
    return _refusal(400, "batch_failed", reason)


def _beside_named(row: _Row, named: Sequence[Complaint]) -> RowFate:
    """Return the fate of a row of a batch that failed for the rows that are named."""
    ending = row.ending
    mine = next((complaint for complaint in named if complaint.request_id == row.request_id), None)
    if mine is None:
        if all(is_certain(complaint) for complaint in named):
            return Requeue(counts=False)
        # A complaint that passes over the first row is about the rows it names. Halved, because a provider may validate
        # in any order: if it names another row each round, it refuses at most two batches a row, and not all rows.
        if not row.batch.n_succeeded and all(c.line is not None and c.line > 1 for c in named):
            return Requeue(counts=False, halved=True)
        # Any other code might name the next row in the next round, and so on for ever.
        if not row.is_last:
            return Requeue(counts=True)
    if ending.status:
        return Refuse(status=ending.status, body=ending.body.encode(), origin="provider")
    return _blamed(mine or named[0])


def _blamed(complaint: Complaint) -> Refuse:
    body = error_body(complaint.code, reasons.words_of(complaint), complaint.param)
    origin = reasons.TOO_FEW_ROWS if complaint.code == reasons.TOO_FEW_ROWS else "batch_failed"
    return Refuse(status=_status_of(complaint), body=body, origin=origin)


def _status_of(complaint: Complaint) -> int:
    """Return the status of a batch's failure: 400, unless the server is at fault or the account cannot pay."""
    if complaint.code in FINAL:
        return FINAL[complaint.code]
    if is_lacking_money(complaint):
        return LIMITED
    if _speaks_of_quota(complaint) or not error_words.is_fault(complaint.code, complaint.message):
        return 400
    return max(error_words.status_of(complaint.code), 500)


def _is_own_fault(ending: Ending) -> bool:
    """Return whether the provider failed a batch for its own reasons: nothing was paid, and a later try may succeed."""
    if ending.status:
        return ending.status >= 500
    complaint = next(iter(ending.complaints), None)
    if complaint is None or complaint.line is not None or is_lacking_money(complaint):
        return False
    if _speaks_of_quota(complaint):
        # Its sentence asks to try again later, as a fault's does, and a full quota costs no attempt.
        return False
    return error_words.is_fault(complaint.code, complaint.message)


def _speaks_of_quota(complaint: Complaint) -> bool:
    return quota.refusal_in(complaint.message, complaint.code) is not None


def is_lacking_money(complaint: Complaint) -> bool:
    """Return whether a batch failed because the account cannot pay, so that it would fail again."""
    return money.is_lacking(LIMITED, f"{complaint.code} {complaint.message}")


def _why_cancelled(batch: Batch) -> str:
    if batch.error.startswith("cancelled"):
        return f"Batch {batch.batch_id} was {batch.error}."
    if batch.cancel_requested and batch.provider_batch_id is not None:
        return f"Batch {batch.batch_id} was cancelled, as a person or a deadline asked."
    return batch.error or f"Batch {batch.batch_id} was cancelled."


def _gone(batch: Batch, outcome: Outcome, attempt: int) -> Refuse:
    tried = f"after {attempt} attempt{'s' if attempt > 1 else ''}"
    if outcome is Outcome.EXPIRED:
        return _refusal(504, "batch_expired", f"The provider did not get to this request in time, {tried}.")
    if outcome is Outcome.LOST:
        return _refusal(502, "batch_lost", f"The provider no longer knows batch {batch.batch_id}, {tried}.")
    return _refusal(502, ROW_LOST, f"The provider's results hold no answer to this request, {tried}.")


def unanswered(batch: Batch) -> Refuse:
    """Return the error for a request that a reopened batch holds no answer to."""
    return _refusal(502, ROW_LOST, batch.error or f"Batch {batch.batch_id} holds no answer to this request.")


def defect(name: str) -> Refuse:
    """Return the error for a request on which our own code failed."""
    return _refusal(500, "batch_row_failed", f"batchling itself failed on this request: {name}.")


def _refusal(status: int, code: str, message: str) -> Refuse:
    return Refuse(status=status, body=error_body(code, message, None), origin=code)
