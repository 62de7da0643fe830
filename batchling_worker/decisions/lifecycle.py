"""Pure decisions about rows and batches: values in, values out, `now` passed in."""

from __future__ import annotations

import datetime as dt
import hashlib
import math
from dataclasses import dataclass
from typing import Final, TypeAlias, assert_never

from batchling_client.wire import error_words
from batchling_client.wire.keys import BatchId, RequestId
from batchling_client.wire.records.batch import Batch
from batchling_client.wire.states import BatchState, Outcome, RowKind

from ..provider import LABEL_PREFIX, ROW_LOST, Answer, Complaint, Ending, Running, error_body
from . import money, quota, status_words
from .blame import is_certain
from .submission import trace_of

RETRIED_STATUSES: Final = frozenset({408, 409, 425, 429})
RETRIED_ORIGINS: Final = frozenset({"batch_expired", ROW_LOST})

TOO_MANY_ROWS: Final = "too_many_tasks"
TOO_FEW_ROWS: Final = "batch_too_small"
LIMITED: Final = 429
LONGEST_REASON: Final = 4096
FAULT_WAIT_S: Final = 5.0
"""How long after a batch that its provider failed for a reason of its own the next one is made; longer each time."""
FILE_WAIT_S: Final = 10.0
"""How long after a validator that did not find the input file (yet) the next batch is made."""

FIRST_LOOK_S: Final = 2.0
LOOK_SHARE_OF_AGE: Final = 0.05
LOOK_LONGEST_FACTOR: Final = 6.0
YOUNG_SHARE_OF_AGE: Final = 0.25
YOUNG_SHORTEST_SHARE: Final = 0.25
"""Where nobody named an interval, a young batch is looked at sooner: after this share of it at the soonest."""
GRID_LEAST_S: Final = 1.0
"""Shorter intervals are left as they are: waiting for other looks would cost more than it saves."""
SOONER: Final = 0.25
"""By this share of its interval a look may come sooner, to fall together with those of its account's other batches."""
SOONER_YOUNG: Final = 0.5
"""The same of the pause of a batch that is looked at sooner for being young."""
DEFECTS_ALLOWED: Final = 8
"""Failures in a row of our own code on one batch; their pauses add up to some minutes."""
CANCEL_PAUSE_S: Final = 10.0
"""How soon after the first request to cancel the second one follows; each later pause is twice as long."""
CANCEL_PATIENCE: Final = dt.timedelta(minutes=15)
"""OpenAI documents ten minutes until a cancelled batch is."""
STRANGE_PATIENCE: Final = dt.timedelta(days=1)
"""For so long past its completion window a batch is looked at whose status nobody knows."""
SEARCH_PATIENCE: Final = dt.timedelta(days=1)
"""For so long past its completion window a batch is searched for whose create was not answered."""
RUN_PATIENCE: Final = dt.timedelta(days=30)
"""The same of any other batch that does not end; no provider promises to keep results longer."""
REQUESTS_KEPT: Final = dt.timedelta(days=34)
"""A day less than a request in flight is kept in Redis, so that its caller gets an error and not silence."""
LONGEST_WINDOW: Final = 4
OVERDUE: Final = "batch_overdue"
UNREADABLE: Final = "batch_results_unreadable"
UNSENT: Final = "batch_not_submitted"
UNFOUND: Final = "batch_not_found_again"
DEFECT: Final = "batch_step_failed"
LOST_PATIENCE: Final = 10
FINAL: Final = {OVERDUE: 504, UNSENT: 504, UNFOUND: 504, UNREADABLE: 502, DEFECT: 500}
"""Codes of ours with which a batch ends so that none of its requests is run again -> status."""
LOST_AFTER: Final = dt.timedelta(minutes=15)
KEY_REFUSED: Final = frozenset({401, 403})
FILE_PATIENCE: Final = 10
"""Creates in a row that may fail for an input file that is not seen."""
FORGOTTEN_PATIENCE_S: Final = 10.0


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


def interval_s(batch: Batch, shortest_s: float, least_s: float = 0.0) -> float:
    """Return the shortest time between two looks at a batch; `least_s` is what its provider asks for."""
    return max(batch.poll_s or shortest_s, least_s)


def next_look_s(
    batch: Batch,
    shortest_s: float,
    now: dt.datetime,
    least_s: float = 0.0,
    *,
    account: str = "",
    elapsed_s: float = 0.0,
    unnamed: bool = False,
) -> float:
    """Return in how many seconds to look again at a running batch that was looked at `elapsed_s` after `now`.

    The pause is the batch's interval at least, longer as the batch ages, and six intervals at most. The looks of one
    account fall on a common grid, so that one sweep of the provider's list serves them all: up to a quarter of an
    interval sooner than the pause says, or up to an interval later. The look after the first may come sooner than that:
    nothing but the first was sooner than asked. `unnamed` = the interval is a default of ours: a young batch is then
    looked at sooner, on slots that are closer.
    """
    floor, age = interval_s(batch, shortest_s, least_s), now - (batch.submitted_at or now)
    pause = pace_s(batch, shortest_s, now, least_s, unnamed=unnamed)
    if not account or floor < GRID_LEAST_S:
        return pause
    young = age.total_seconds() < floor and pause >= floor
    share = 1 - SOONER if pause >= floor else SOONER_YOUNG
    soonest = max(min(pause, floor) * (SOONER if young else share), least_s * (1 - SOONER))
    return _on_grid(now.timestamp(), pause, floor, max(soonest, elapsed_s), account) - elapsed_s


def pace_s(
    batch: Batch, shortest_s: float, now: dt.datetime, least_s: float = 0.0, *, unnamed: bool = False
) -> float:
    """Return how long to wait between two looks at a batch of this age, wherever the slots of its account are."""
    floor, age = interval_s(batch, shortest_s, least_s), now - (batch.submitted_at or now)
    pause = _look_s(floor, age)
    if not unnamed or batch.poll_s:
        return pause
    return min(pause, max(floor * YOUNG_SHORTEST_SHARE, age.total_seconds() * YOUNG_SHARE_OF_AGE, least_s))


def _on_grid(now: float, pause: float, floor: float, soonest: float, account: str) -> float:
    """Return the pause that ends at the account's last slot within it, or at the first that is not too soon.

    Slots are one interval apart, two or four for pauses of so many, and a half or a quarter for shorter ones: slots of
    the wider grids are slots of the narrower ones, so that old batches and young ones meet.
    """
    width = floor * 2.0 ** math.floor(math.log2(pause / floor))
    digest = hashlib.blake2b(account.encode(), digest_size=4).digest()
    phase = int.from_bytes(digest) % 2**24
    to_slot = pause - (now + pause - phase) % width
    return to_slot + width * max(0, math.ceil((soonest - to_slot) / width))


def turn(batch: Batch) -> tuple[bool, dt.datetime]:
    """Return what sorts batches by when each is to be looked at by itself, and not through a list.

    Those that are to be cancelled come first, as a cancel waits for its end. Then those whose last such look is longest
    ago; a new batch has its turn after the old ones, which a stream of new ones must not keep from theirs.
    """
    return not batch.cancel_requested, batch.confirmed_at or batch.submitted_at or batch.created_at


def held_look_s(batch: Batch, shortest_s: float, now: dt.datetime) -> float:
    """Return in how many seconds a batch that waits for room asks again: as often as the others are looked at."""
    return _look_s(batch.poll_s or shortest_s, now - batch.created_at)


def _look_s(floor: float, age: dt.timedelta) -> float:
    return min(max(floor, age.total_seconds() * LOOK_SHARE_OF_AGE), max(floor * LOOK_LONGEST_FACTOR, floor))


def first_look_s(batch: Batch, shortest_s: float) -> float:
    """Return in how many seconds to look at a created batch first: soon, because validation fails within seconds."""
    return min(batch.poll_s or shortest_s, FIRST_LOOK_S)


def may_create_again(batch: Batch, patience_s: float, now: dt.datetime) -> bool:
    """Return whether a lost create is so old that a search without a result proves that it made no batch."""
    if batch.create_at is not None:
        return (now - batch.create_at).total_seconds() >= patience_s
    if batch.doubted_at is not None:
        return (now - batch.doubted_at).total_seconds() >= forgotten_patience_s(patience_s)
    return True


def early_is_due(batch: Batch, seen: Running) -> bool:
    """Return whether there may be more early results than at the last reading."""
    return seen.n_done == 0 or seen.n_done != batch.early.n_done


def file_is_dead(batch: Batch) -> bool:
    """Return whether an input file has been invisible for so long that it is uploaded again, which happens once."""
    return batch.n_stumbles >= FILE_PATIENCE // 2 and not batch.former_file_id


def forgotten_patience_s(patience_s: float) -> float:
    """Return after how many seconds a create that was on its way when Redis forgot it shows in a search."""
    return min(patience_s, FORGOTTEN_PATIENCE_S)


def defect_lasts(batch: Batch, where: str) -> bool:
    """Return whether a step has failed for the same defect of ours so often that waiting longer helps nobody."""
    return batch.error == where and batch.n_stumbles >= DEFECTS_ALLOWED


def step_defect(batch: Batch, where: str) -> Complaint:
    """Return why the callers of a batch are answered on which our own code fails again and again."""
    there = (
        f"; {batch.spec.provider} may have run it as {batch.provider_batch_id}"
        if batch.provider_batch_id
        else ""
    )
    n_failures = batch.n_stumbles + 1
    message = (
        f"batchling itself failed {n_failures} times in a row on batch {batch.batch_id} ({where}){there}"
    )
    return Complaint(code=DEFECT, message=message)


def cancel_is_due(batch: Batch, now: dt.datetime) -> bool:
    """Return whether the provider is to be asked (again) to cancel a running batch: with pauses that double."""
    if not batch.cancel_requested:
        return False
    if batch.n_cancels == 0 or batch.cancel_asked_at is None:
        return True
    pause_s = CANCEL_PAUSE_S * 2.0 ** min(batch.n_cancels - 1, 16)
    return (now - batch.cancel_asked_at).total_seconds() >= pause_s


def cancel_is_over(batch: Batch, now: dt.datetime) -> bool:
    """Return whether the callers of a batch hear of its cancel although the provider has not confirmed it."""
    if not batch.cancel_requested or batch.cancel_at is None:
        return False
    return batch.cancel_again or now - batch.cancel_at >= CANCEL_PATIENCE


def unconfirmed_sentence(batch: Batch) -> str:
    """Return what a batch says of itself that ended here before its provider confirmed the cancel."""
    provider = batch.spec.provider
    return (
        f"cancelled; {provider} has not confirmed the cancel (asked {batch.n_cancels} times): batch "
        f"{batch.provider_batch_id} may go on there, and {provider} may bill for it"
    )


def run_is_over(batch: Batch, status: str, now: dt.datetime) -> bool:
    """Return whether a running batch has outlasted its completion window by so much that its callers are answered."""
    patience = RUN_PATIENCE if status_words.is_known(status) else STRANGE_PATIENCE
    begun = batch.submitted_at or batch.created_at
    return now - begun >= min(window(batch.spec.completion_window) + patience, REQUESTS_KEPT)


def submission_is_over(batch: Batch, now: dt.datetime) -> bool:
    """Return whether the callers of a batch are answered that cannot be submitted: it was tried for a whole window.

    Where a create may have been sent, a day longer: then a batch that it made has ended, and its rows show whose it is.
    """
    if now - batch.created_at >= REQUESTS_KEPT:
        return True
    return batch.unable_since is not None and now - batch.unable_since >= _submission_patience(batch)


def unsubmitted(batch: Batch, reason: str) -> Complaint:
    """Return why the callers of a batch are answered that its provider surely has not; `reason` is the last one."""
    provider = batch.spec.provider
    message = (
        f"batchling could not submit batch {batch.batch_id} to {provider}, so nothing was paid: {reason}"
    )
    return Complaint(code=UNSENT, message=message)


def unfound(batch: Batch, label: str, reason: str) -> Complaint:
    """Return why the callers of a batch are answered that its provider may have; `reason` is the last one."""
    provider, hours = batch.spec.provider, _submission_patience(batch) // dt.timedelta(hours=1)
    message = (
        f"{provider} did not answer the create of batch {batch.batch_id}, and a search of {hours} hours did not show "
        f"whether it made the batch: {reason.rstrip('.')}. Nothing was created again. A batch with the label "
        f"{label} there is this one, and {provider} may bill for it"
    )
    return Complaint(code=UNFOUND, message=message)


def may_be_made(batch: Batch) -> bool:
    """Return whether a create may have been sent for a batch that is not submitted."""
    return trace_of(batch).may_be_made


def _submission_patience(batch: Batch) -> dt.timedelta:
    return window(batch.spec.completion_window) + (SEARCH_PATIENCE if may_be_made(batch) else dt.timedelta())


def overdue(batch: Batch, status: str) -> Complaint:
    """Return why the callers of a batch are answered that should have ended long ago."""
    provider, hours = batch.spec.provider, window(batch.spec.completion_window) // dt.timedelta(hours=1)
    message = (
        f"{provider} still reports the status {status!r} of batch {batch.provider_batch_id}, long after its completion "
        f"window of {hours} hours. It may yet end there, and {provider} may bill for it"
    )
    return Complaint(code=OVERDUE, message=message)


def why_it_runs(batch: Batch, status: str) -> str:
    """Return why a running batch is still waited for, if there is a special reason; else ''."""
    provider = batch.spec.provider
    if batch.cancel_requested:
        minutes = CANCEL_PATIENCE // dt.timedelta(minutes=1)
        return (
            f"cancel requested; {provider} has not confirmed it yet. Callers are answered {minutes} minutes after the "
            f"request, or when `batchling cancel {batch.batch_id}` is run again"
        )
    if status_words.is_known(status):
        return ""
    ends = window(batch.spec.completion_window) + STRANGE_PATIENCE
    return (
        f"{provider} reports the status {status!r}, which batchling does not know. It looks at the batch until "
        f"{ends // dt.timedelta(hours=1)} hours after its submission; `batchling cancel {batch.batch_id}` gives it up"
    )


def window(said: str) -> dt.timedelta:
    """Return a completion window such as `24h` or `7d` as a duration; a day for any other text."""
    hours = {"h": 1, "d": 24}.get(said[-1:], 0)
    number = said[:-1]
    known = hours > 0 and number.isascii() and number.isdigit() and len(number) <= LONGEST_WINDOW
    return dt.timedelta(hours=int(number) * hours) if known else dt.timedelta(days=1)


def given_up(batch: Batch, now: dt.datetime) -> bool:
    """Return whether a batch counts as lost: the provider has denied many times, and for long, that it knows it."""
    if batch.denied_since is None:
        return False
    return batch.n_denied >= LOST_PATIENCE and now - batch.denied_since >= LOST_AFTER


def parked_sentence(batch: Batch, reason: str, status: int) -> str:
    """Return the sentence on a paid batch whose looks are refused with a status, and what to do about it."""
    provider, batch_id = batch.spec.provider, batch.batch_id
    if money.is_lacking(status, reason):
        until, way = "the account can pay", f"`batchling retry {batch_id}` looks at once"
    elif status in KEY_REFUSED:
        until, way = "the key is accepted", f"put the key right (`batchling retry {batch_id}` looks at once)"
    else:
        until, way = f"{provider} answers otherwise", f"`batchling retry {batch_id}` looks at once"
    return (
        f"{reason.rstrip('.')}. Batch {batch_id} may be paid for and waits until {until}: {way}, "
        f"or give the batch up with `batchling cancel {batch_id}`."
    )


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
            return _fate_of_failed(batch, ending, request_id, attempt, max_attempts)
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


def error_sentence(ending: Ending, outcome: Outcome) -> str:
    """Return the provider's reason for a batch that did not complete, in one sentence, or ''."""
    if ending.complaints:
        return _words(ending.complaints[0])
    if ending.body:
        return ending.body[:500]
    return "" if outcome is Outcome.COMPLETED else f"the provider reports the batch as {outcome.value}"


def _fate_of_failed(
    batch: Batch, ending: Ending, request_id: RequestId, attempt: int, max_attempts: int
) -> RowFate:
    final = next((complaint for complaint in ending.complaints if complaint.code in FINAL), None)
    if final is not None:
        return _blamed(final)
    named = [complaint for complaint in ending.complaints if complaint.request_id is not None]
    if named:
        return _fate_beside_named(batch, named, ending, request_id, attempt, max_attempts)
    if attempt < max_attempts and _is_own_fault(ending):
        return Requeue(counts=True, wait_s=0.0 if batch.n_succeeded else FAULT_WAIT_S * attempt**2)
    if ending.status:
        return Refuse(status=ending.status, body=ending.body.encode(), origin="provider")
    if over_quota(ending) is not None and not ending.hopeless:
        return Requeue(counts=False)
    if too_many_rows(batch, ending):
        return Requeue(counts=False, halved=True)
    if any(c.param == "file_id" and c.line is None for c in ending.complaints) and attempt < max_attempts:
        return Requeue(counts=True, wait_s=FILE_WAIT_S)
    # It ran and broke off: the requests that it left count as expired.
    if (batch.n_succeeded or batch.n_failed) and attempt < max_attempts:
        return Requeue(counts=True)
    if ending.complaints:
        return _blamed(ending.complaints[0])
    reason = batch.error or f"Batch {batch.batch_id} failed and the provider gave no reason."
    return _refusal(400, "batch_failed", reason)


def _fate_beside_named(
    batch: Batch,
    named: list[Complaint],
    ending: Ending,
    request_id: RequestId,
    attempt: int,
    max_attempts: int,
) -> RowFate:
    mine = next((complaint for complaint in named if complaint.request_id == request_id), None)
    if mine is None:
        if all(is_certain(complaint) for complaint in named):
            return Requeue(counts=False)
        # A complaint that passes over the first row is about the rows it names. Halved, because a provider may validate
        # in any order: if it names another row each round, it refuses at most two batches a row, and not all rows.
        if not batch.n_succeeded and all(c.line is not None and c.line > 1 for c in named):
            return Requeue(counts=False, halved=True)
        # Any other code might name the next row in the next round, and so on for ever.
        if attempt < max_attempts:
            return Requeue(counts=True)
    if ending.status:
        return Refuse(status=ending.status, body=ending.body.encode(), origin="provider")
    return _blamed(mine or named[0])


def too_few_rows(provider: str, n_lines: int, min_rows: int) -> Ending:
    """Return the ending of a batch that is smaller than its provider accepts; no row is invented to fill it."""
    message = (
        f"{provider} takes batches of {min_rows} requests or more, and this one has {n_lines}: nothing was sent. "
        "Send more requests together or raise batch_window_seconds, or say on_too_few='realtime'."
    )
    return Ending(complaints=(Complaint(code=TOO_FEW_ROWS, message=message),))


def _blamed(complaint: Complaint) -> Refuse:
    body = error_body(complaint.code, _words(complaint), complaint.param)
    origin = TOO_FEW_ROWS if complaint.code == TOO_FEW_ROWS else "batch_failed"
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


def _words(complaint: Complaint) -> str:
    return complaint.message or complaint.code


def label_of(namespace: str, batch_id: BatchId) -> str:
    """Return the label that finds a batch at its provider: ASCII, at most 64 characters."""
    safe = "".join(c if c.isascii() and (c.isalnum() or c in "-_") else "-" for c in namespace)
    return f"{LABEL_PREFIX}{safe[:24]}-{batch_id}"
