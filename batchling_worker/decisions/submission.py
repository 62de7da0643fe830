"""Decides what a step of a submission does first, and what it does if a search finds no batch: no input or output.

Within the states `sealed` and `submitting` a batch leaves one of five traces of what earlier steps may have sent:

| trace | known by | first | if the search finds no batch |
|---|---|---|---|
| untouched | it is sealed | create, or cancel | |
| begun | it is submitting; no create was recorded | search, or cancel | create |
| armed | a create was recorded | search | create, cancel or end |
| forgotten | another run of Redis opened it | search | doubt it, and wait |
| doubted | it was forgotten, and not found | search | create, cancel or end |
"""

from __future__ import annotations

import datetime as dt
import enum
from typing import Final

from batchling_client.wire.keys import BatchId
from batchling_client.wire.records.batch import Batch
from batchling_client.wire.states import BatchState

from ..provider import LABEL_PREFIX

SENT_TWICE_AFTER: Final = dt.timedelta(seconds=0.3)
"""The official SDKs, which gateways call providers with, pause for 0.375 s at least before they send a call again."""

LISTED_AFTER: Final = dt.timedelta(seconds=30)
"""So long after its create a batch is in every list."""


class Trace(enum.Enum):
    """What earlier steps may have sent to the provider."""

    UNTOUCHED = enum.auto()
    """Nothing: the batch is sealed."""
    BEGUN = enum.auto()
    """An input file at most: its submission began, and no create was recorded."""
    ARMED = enum.auto()
    """A create: it was recorded, and its answer was not."""
    FORGOTTEN = enum.auto()
    """Perhaps a create: another run of Redis opened the batch, and a restart may have lost the record."""
    DOUBTED = enum.auto()
    """Perhaps a create: the batch was forgotten, a search did not find it, and this run of Redis has recorded that."""

    @property
    def may_be_made(self) -> bool:
        """Whether a create may have been sent."""
        return self not in (Trace.UNTOUCHED, Trace.BEGUN)


class Move(enum.Enum):
    """What the step does next."""

    SEARCH = enum.auto()
    CREATE = enum.auto()
    DOUBT = enum.auto()
    CANCEL = enum.auto()
    END = enum.auto()
    """The batch was tried for long enough: its callers get an error."""


def trace_of(batch: Batch) -> Trace:
    """Return the trace of a batch that is sealed or submitting."""
    if batch.create_at is not None:
        return Trace.ARMED
    if batch.server and batch.server_now and batch.server != batch.server_now:
        return Trace.FORGOTTEN
    if batch.doubted_at is not None:
        return Trace.DOUBTED
    return Trace.BEGUN if batch.state is BatchState.SUBMITTING else Trace.UNTOUCHED


def first(trace: Trace, *, cancelled: bool) -> Move:
    """Return the first move; `cancelled` = nobody wants the batch any more."""
    if cancelled and not trace.may_be_made:
        return Move.CANCEL
    return Move.CREATE if trace is Trace.UNTOUCHED else Move.SEARCH


def unfound(trace: Trace, *, cancelled: bool, is_over: bool) -> Move:
    """Return the move after a search that found no batch; `is_over` = the batch was tried for long enough."""
    if trace is Trace.FORGOTTEN:
        return Move.DOUBT
    if cancelled:
        return Move.CANCEL
    return Move.END if is_over else Move.CREATE


def may_be_made(batch: Batch) -> bool:
    """Return whether a create may have been sent for a batch that is not submitted."""
    return trace_of(batch).may_be_made


def doubles_are_due(batch: Batch, now: dt.datetime) -> bool:
    """Return whether a submitted batch is to be searched for doubles that a gateway made of one create.

    This is due at the first look, and at the first look after half a minute, when slow lists show them; never if the
    create was answered so soon that the gateway can have sent it only once.
    """
    if batch.create_at is None or batch.submitted_at is None:
        return False
    if batch.submitted_at - batch.create_at < SENT_TWICE_AFTER:
        return False
    late = batch.submitted_at + LISTED_AFTER
    return not batch.provider_status or batch.updated_at < late <= now


def label_of(namespace: str, batch_id: BatchId) -> str:
    """Return the label that finds a batch at its provider: ASCII, at most 64 characters."""
    safe = "".join(c if c.isascii() and (c.isalnum() or c in "-_") else "-" for c in namespace)
    return f"{LABEL_PREFIX}{safe[:24]}-{batch_id}"
