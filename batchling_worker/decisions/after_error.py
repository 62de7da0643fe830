"""Decides what becomes of a batch whose step ended with an error: values in, values out, `now` passed in."""

from __future__ import annotations

import datetime as dt
import enum
from typing import Final

from batchling_client.wire.records.batch import Batch
from batchling_client.wire.states import BatchState

from ..errors import CreateRefused, NotYet, PermanentError, TemporaryError, Waiting
from . import patience, rereading

SUBMIT_STATES: Final = frozenset({BatchState.SEALED, BatchState.SUBMITTING})


class After(enum.Enum):
    """What becomes of the batch."""

    LOOK_AGAIN = enum.auto()
    """Nothing went wrong: it is due again after the pause that the step asks for."""
    WAIT = enum.auto()
    """It is held for something outside of it."""
    STUMBLE = enum.auto()
    """It is due again after a pause that grows with each error in a row."""
    SEARCH_ONCE_MORE = enum.auto()
    """A create was refused, and an earlier create may have made a batch: a search that finds none lets it end."""
    PARK = enum.auto()
    """It may be paid for and waits until its key is accepted."""
    END_REFUSED = enum.auto()
    """It ends, and its callers get the provider's refusal."""
    END_UNSUBMITTED = enum.auto()
    """It ends: it could not be submitted in time."""
    END_UNREAD = enum.auto()
    """It ends: it may be paid for, and its results can no longer be had."""
    END_CANCELLED = enum.auto()
    """It ends as its callers asked, although the provider did not hear of it."""


def after(
    batch: Batch, error: TemporaryError | PermanentError, now: dt.datetime, *, estranged: bool = False
) -> After:
    """Return what becomes of a batch after an error of its step.

    `estranged` = the batch is another account's, so that a refusal of this account's key says nothing about it.
    """
    if isinstance(error, NotYet):
        return After.LOOK_AGAIN
    if isinstance(error, PermanentError):
        return _after_refusal(batch, error, now)
    if isinstance(error, Waiting) and error.refusal is not None:
        return After.WAIT if estranged else _after_refusal(batch, error.refusal, now)
    if batch.state in SUBMIT_STATES and patience.submission_is_over(batch, now):
        return After.END_UNSUBMITTED
    # An ended batch that waits is read afterwards, which gives a better reason.
    reading_follows = isinstance(error, Waiting) and batch.state is BatchState.ENDED
    if maybe_paid(batch) and rereading.is_over(batch, now) and not reading_follows:
        return After.END_UNREAD
    return After.WAIT if isinstance(error, Waiting) else After.STUMBLE


def maybe_paid(batch: Batch) -> bool:
    """Return whether a batch may have been paid for, so that the first refusal does not end it."""
    return batch.state in (BatchState.SUBMITTED, BatchState.ENDED) or batch.create_at is not None


def _after_refusal(batch: Batch, error: PermanentError, now: dt.datetime) -> After:
    if not maybe_paid(batch):
        return After.END_REFUSED
    if isinstance(error, CreateRefused):
        return After.SEARCH_ONCE_MORE
    if rereading.is_over(batch, now):
        # After a fault of the provider's server its requests would be run again.
        return After.END_UNREAD if error.status >= 500 else After.END_REFUSED
    if batch.cancel_requested and batch.state is not BatchState.ENDED:
        return After.END_CANCELLED
    return After.PARK
