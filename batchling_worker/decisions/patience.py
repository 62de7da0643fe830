"""Decides how long a batch is tried, searched for, looked at and cancelled: values in, values out, `now` passed in."""

from __future__ import annotations

import datetime as dt
from typing import Final

from batchling_client.wire.records.batch import Batch

from . import status_words, submission

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
LOST_PATIENCE: Final = 10
LOST_AFTER: Final = dt.timedelta(minutes=15)
FILE_PATIENCE: Final = 10
"""Creates in a row that may fail for an input file that is not seen."""
FORGOTTEN_PATIENCE_S: Final = 10.0
SHORTEST_SEARCH_PAUSE_S: Final = 1.0
LONGEST_SEARCH_PAUSE_S: Final = 15.0
SEARCH_GROWTH: Final = 0.25
"""The pause between two searches for a lost create, as a part of its age."""
LAST_SEARCH_S: Final = 0.1
"""How long after the end of the patience the last search is made."""


def may_create_again(batch: Batch, patience_s: float, now: dt.datetime) -> bool:
    """Return whether a lost create is so old that a search without a result proves that it made no batch."""
    if batch.create_at is not None:
        return (now - batch.create_at).total_seconds() >= patience_s
    if batch.doubted_at is not None:
        return (now - batch.doubted_at).total_seconds() >= forgotten_patience_s(patience_s)
    return True


def search_pause_s(batch: Batch, patience_s: float, now: dt.datetime) -> float:
    """Return the pause before the next search for a lost create: it grows with the age of the create.

    The last search comes when the patience is over, so that a create which made nothing is not repeated later.
    """
    since = batch.create_at or batch.doubted_at
    age_s = max(0.0, (now - since).total_seconds()) if since is not None else 0.0
    grown_s = min(max(SHORTEST_SEARCH_PAUSE_S, age_s * SEARCH_GROWTH), LONGEST_SEARCH_PAUSE_S)
    return min(grown_s, max(patience_s - age_s, 0.0) + LAST_SEARCH_S)


def file_is_dead(batch: Batch) -> bool:
    """Return whether an input file has been invisible for so long that it is uploaded again, which happens once."""
    return batch.n_stumbles >= FILE_PATIENCE // 2 and not batch.former_file_id


def forgotten_patience_s(patience_s: float) -> float:
    """Return after how many seconds a create that was on its way when Redis forgot it shows in a search."""
    return min(patience_s, FORGOTTEN_PATIENCE_S)


def defect_lasts(batch: Batch, where: str) -> bool:
    """Return whether a step has failed for the same fates.defect of ours so often that waiting longer helps nobody."""
    return batch.error == where and batch.n_stumbles >= DEFECTS_ALLOWED


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
    return batch.unable_since is not None and now - batch.unable_since >= submission_patience(batch)


def submission_patience(batch: Batch) -> dt.timedelta:
    return window(batch.spec.completion_window) + (
        SEARCH_PATIENCE if submission.may_be_made(batch) else dt.timedelta()
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
