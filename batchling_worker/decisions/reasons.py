"""Says why a batch waits, or why its callers get an error."""

from __future__ import annotations

import datetime as dt
from typing import Final

from batchling_client.wire import error_words
from batchling_client.wire.records.batch import Batch
from batchling_client.wire.states import Outcome

from ..provider import Complaint, Ending
from . import money, patience, quota, status_words

TOO_FEW_ROWS: Final = "batch_too_small"
OVERDUE: Final = "batch_overdue"
UNREADABLE: Final = "batch_results_unreadable"
UNSENT: Final = "batch_not_submitted"
UNFOUND: Final = "batch_not_found_again"
TOO_MUCH: Final = "batch_answers_too_large"
DEFECT: Final = "batch_step_failed"
KEY_REFUSED: Final = frozenset({401, 403})
OURS: Final = frozenset({TOO_FEW_ROWS, OVERDUE, UNREADABLE, UNSENT, UNFOUND, DEFECT})
"""Codes of complaints whose words are batchling's own."""
LIMITED: Final = 429


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


def too_much(batch: Batch, most: int) -> Complaint:
    """Return why callers are answered whose answers do not fit into what a batch may take in Redis."""
    message = (
        f"the answers of batch {batch.batch_id} take more than the {most:,} bytes that a batch may have in Redis "
        f"(BATCHLING_BATCH_ANSWERS_BYTES). The others stay at {batch.spec.provider} and are not run again: raise the "
        f"setting, and `batchling retry {batch.batch_id}` reads them"
    )
    return Complaint(code=TOO_MUCH, message=message)


def unconfirmed_sentence(batch: Batch) -> str:
    """Return what a batch says of itself that ended here before its provider confirmed the cancel."""
    provider = batch.spec.provider
    return (
        f"cancelled; {provider} has not confirmed the cancel (asked {batch.n_cancels} times): batch "
        f"{batch.provider_batch_id} may go on there, and {provider} may bill for it"
    )


def unsubmitted(batch: Batch, reason: str) -> Complaint:
    """Return why the callers of a batch are answered that its provider surely has not; `reason` is the last one."""
    provider = batch.spec.provider
    message = (
        f"batchling could not submit batch {batch.batch_id} to {provider}, so nothing was paid: {reason}"
    )
    return Complaint(code=UNSENT, message=message)


def unfound(batch: Batch, label: str, reason: str) -> Complaint:
    """Return why the callers of a batch are answered that its provider may have; `reason` is the last one."""
    provider, hours = batch.spec.provider, patience.submission_patience(batch) // dt.timedelta(hours=1)
    message = (
        f"{provider} did not answer the create of batch {batch.batch_id}, and a search of {hours} hours did not show "
        f"whether it made the batch: {reason.rstrip('.')}. Nothing was created again. A batch with the label "
        f"{label} there is this one, and {provider} may bill for it"
    )
    return Complaint(code=UNFOUND, message=message)


def overdue(batch: Batch, status: str) -> Complaint:
    """Return why the callers of a batch are answered that should have ended long ago."""
    provider, hours = (
        batch.spec.provider,
        patience.window(batch.spec.completion_window) // dt.timedelta(hours=1),
    )
    message = (
        f"{provider} still reports the status {status!r} of batch {batch.provider_batch_id}, long after its completion "
        f"window of {hours} hours. It may yet end there, and {provider} may bill for it"
    )
    return Complaint(code=OVERDUE, message=message)


def why_it_runs(batch: Batch, status: str) -> str:
    """Return why a running batch is still waited for, if there is a special reason; else ''."""
    provider = batch.spec.provider
    if batch.cancel_requested:
        minutes = patience.CANCEL_PATIENCE // dt.timedelta(minutes=1)
        return (
            f"cancel requested; {provider} has not confirmed it yet. Callers are answered {minutes} minutes after the "
            f"request, or when `batchling cancel {batch.batch_id}` is run again"
        )
    if status_words.is_known(status):
        return ""
    ends = patience.window(batch.spec.completion_window) + patience.STRANGE_PATIENCE
    return (
        f"{provider} reports the status {status!r}, which batchling does not know. It looks at the batch until "
        f"{ends // dt.timedelta(hours=1)} hours after its submission; `batchling cancel {batch.batch_id}` gives it up"
    )


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


def error_sentence(ending: Ending, outcome: Outcome) -> str:
    """Return the provider's reason for a batch that did not complete, in one sentence, or ''."""
    if ending.complaints:
        return recorded(ending.complaints[0])
    if ending.status:
        return f"the provider refused the batch with {ending.status}"
    return "" if outcome is Outcome.COMPLETED else f"the provider reports the batch as {outcome.value}"


def too_few_rows(provider: str, n_lines: int, min_rows: int) -> Ending:
    """Return the ending of a batch that is smaller than its provider accepts; no row is invented to fill it."""
    message = (
        f"{provider} takes batches of {min_rows} requests or more, and this one has {n_lines}: nothing was sent. "
        "Send more requests together or raise batch_window_seconds, or say on_too_few='realtime'."
    )
    return Ending(complaints=(Complaint(code=TOO_FEW_ROWS, message=message),))


def recorded(complaint: Complaint) -> str:
    """Return what a batch's record and the log hold of a complaint: its words only where they quote no request.

    Words of ours, and words about money or the quota of tokens, are kept; others are left to the callers.
    """
    said = f"{complaint.code} {complaint.message}"
    about_tokens = quota.refusal_in(complaint.message, complaint.code) is not None
    if complaint.code in OURS or about_tokens or money.is_lacking(LIMITED, said):
        return words_of(complaint)
    code = error_words.codes_in({"code": complaint.code, "param": complaint.param}) or "no code"
    line = f" in line {complaint.line}" if complaint.line is not None else ""
    return f"the provider refused the batch{line}: {code}"


def words_of(complaint: Complaint) -> str:
    return complaint.message or complaint.code
