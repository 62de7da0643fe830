"""One batch as people see it: a status in one word, why it is there, and what happens next."""

from __future__ import annotations

import datetime as dt
import enum
import re
from typing import Annotated, Final

import msgspec

from ..wire.keys import BatchId, LaneId, ProviderBatchId
from ..wire.records.account import Circuit
from ..wire.records.batch import Batch
from ..wire.states import BatchState, Outcome
from .sent_again import n_may_be_paid_twice

_WINDOW: Final = re.compile(r"(\d+)([hd])")
_HOURS: Final = {"h": 1, "d": 24}
WINDOW_GRACE: Final = dt.timedelta(minutes=30)
"""Providers end a batch at its window and need some time to write its results."""


class Status(enum.StrEnum):
    """What a batch is doing, for people; `state` is its state of record."""

    COLLECTING = "collecting"
    """It is open for more requests."""
    QUEUED = "queued"
    """It is sealed, and due for its submission."""
    SENDING = "sending"
    WAITING = "waiting"
    """Something outside of it holds it up: `why` says what."""
    RUNNING = "running"
    READING = "reading"
    """It has ended at its provider, and its results are being read."""
    CANCELLING = "cancelling"
    HELD = "held"
    """It has ended, and its results cannot be read: a person has to see to it."""
    REFUSED = "key refused"
    """Its provider refuses its API key."""
    OVERDUE = "overdue"
    """Its completion window is over, and it still runs."""
    QUARANTINED = "quarantined"
    DONE = "done"
    DONE_WITH_FAILURES = "done with failures"
    MOVED_ON = "moved on"
    """All its requests went on to other batches."""
    FAILED = "failed"
    CANCELLED = "cancelled"


NEED_YOU: Final = frozenset({Status.QUARANTINED, Status.HELD, Status.REFUSED, Status.OVERDUE})
"""Nothing but a person, or a provider who has failed so far, moves these on."""
OF_THOSE_OVER: Final = frozenset(
    {Status.DONE, Status.DONE_WITH_FAILURES, Status.MOVED_ON, Status.FAILED, Status.CANCELLED}
)
"""The statuses of batches that are over; an unfinished batch has one of the others."""


class TimelineEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that happened to a batch."""

    at: Annotated[dt.datetime, msgspec.Meta(description="when it happened")]
    what: Annotated[str, msgspec.Meta(description="what happened, in a few words")]


class BatchView(msgspec.Struct, frozen=True, kw_only=True):
    """A batch, as `batchling batches --json` prints it."""

    batch_id: Annotated[BatchId, msgspec.Meta(description="batchling's ID of the batch")]
    provider: Annotated[str, msgspec.Meta(description="name of the provider, as in the settings")]
    model: Annotated[str, msgspec.Meta(description="model that all its requests name")]
    endpoint: Annotated[str, msgspec.Meta(description="path at the provider, such as `/v1/chat/completions`")]
    state: Annotated[BatchState, msgspec.Meta(description="state of record; the last three are final")]
    status: Annotated[Status, msgspec.Meta(description="what it is doing, in a word for people")]
    why: Annotated[str | None, msgspec.Meta(description="why it waits or failed; null if nothing is wrong")]
    next: Annotated[str | None, msgspec.Meta(description="what happens next; null once it is over")]
    next_look_at: Annotated[
        dt.datetime | None, msgspec.Meta(description="when a worker looks at it next; null if none will")
    ]
    provider_batch_id: Annotated[
        ProviderBatchId | None,
        msgspec.Meta(description="the provider's ID of the batch; null until it is created there"),
    ]
    provider_status: Annotated[
        str | None, msgspec.Meta(description="the status in the provider's own word, as last seen")
    ]
    n_requests: Annotated[
        int, msgspec.Meta(description="requests in the batch, those dropped or moved since included")
    ]
    n_succeeded: Annotated[int, msgspec.Meta(description="requests answered with a success")]
    n_failed: Annotated[int, msgspec.Meta(description="requests answered with an error")]
    n_requeued: Annotated[
        int, msgspec.Meta(description="requests moved to another batch for another attempt")
    ]
    n_waiting: Annotated[
        int, msgspec.Meta(description="requests that still wait for an answer in this batch")
    ]
    n_done: Annotated[
        int, msgspec.Meta(description="requests the provider was through with at the last look")
    ]
    n_sent_again: Annotated[
        int,
        msgspec.Meta(
            description="requests of it that were sent to the provider once more, counted each time"
        ),
    ]
    n_may_be_paid_twice: Annotated[
        int, msgspec.Meta(description="those among them that the provider may have billed before, too")
    ]
    created_at: Annotated[dt.datetime, msgspec.Meta(description="when its first request was queued")]
    updated_at: Annotated[dt.datetime, msgspec.Meta(description="when anything about it last changed")]
    submitted_at: Annotated[
        dt.datetime | None, msgspec.Meta(description="when its provider took it; null before that")
    ]
    settled_at: Annotated[dt.datetime | None, msgspec.Meta(description="when it was over; null before that")]
    error: Annotated[str | None, msgspec.Meta(description="what holds it up now, or what last went wrong")]
    lane_id: Annotated[LaneId, msgspec.Meta(description="ID of its lane, as in `batchling lanes`")]
    credential: Annotated[str, msgspec.Meta(description="fingerprint of the API key it runs under")]
    moved_to: Annotated[
        BatchId | None, msgspec.Meta(description="the batch in which its unanswered requests continue")
    ]
    quarantined_at: Annotated[
        dt.datetime | None,
        msgspec.Meta(description="when it was quarantined because workers died on it; null otherwise"),
    ]
    wire_version: Annotated[int, msgspec.Meta(description="version of the Redis records it is stored in")]

    @property
    def title(self) -> str:
        """The provider and the model."""
        return f"{self.provider}/{self.model}"

    @property
    def needs_you(self) -> bool:
        """Whether a person has to act."""
        return self.status in NEED_YOU

    @property
    def n_live(self) -> int:
        """How many requests the batch has, without those that were dropped or moved on."""
        return self.n_succeeded + self.n_failed + self.n_waiting

    @property
    def n_through(self) -> int:
        """How many requests have a success, or until they are read, how many its provider reports as done."""
        running = self.n_done if self.state is BatchState.SUBMITTED else 0
        return max(self.n_succeeded, running - self.n_failed)

    def age(self, now: dt.datetime) -> dt.timedelta:
        """Return for how long it has been under way, or was."""
        return max(dt.timedelta(), (self.settled_at or now) - self.created_at)


def view_of(
    batch: Batch,
    *,
    now: dt.datetime,
    next_look_at: dt.datetime | None,
    circuit: Circuit | None = None,
    version: int,
) -> BatchView:
    """Return the view of a batch; `circuit` is that of its account or lane, if one is open."""
    status = status_of(batch, now, circuit)
    why = " ".join(batch.error.split()) or (_why(batch, status, circuit))
    return BatchView(
        batch_id=batch.batch_id,
        provider=batch.spec.provider,
        model=batch.spec.model,
        endpoint=batch.spec.endpoint,
        state=batch.state,
        status=status,
        why=why or None,
        next=_next(batch, status, next_look_at, now),
        next_look_at=next_look_at,
        provider_batch_id=batch.provider_batch_id,
        provider_status=batch.provider_status or None,
        n_requests=batch.n_requests,
        n_succeeded=batch.n_succeeded,
        n_failed=batch.n_failed,
        n_requeued=batch.n_requeued,
        n_waiting=max(0, batch.n_open),
        n_done=batch.n_done,
        n_sent_again=sum(batch.sent_again.values()),
        n_may_be_paid_twice=n_may_be_paid_twice(batch.sent_again),
        created_at=batch.created_at,
        updated_at=batch.updated_at,
        submitted_at=batch.submitted_at,
        settled_at=batch.settled_at,
        error=batch.error or None,
        lane_id=batch.lane_id,
        credential=batch.spec.fingerprint,
        moved_to=batch.moved_to,
        quarantined_at=batch.quarantined_at,
        wire_version=version,
    )


def status_of(batch: Batch, now: dt.datetime, circuit: Circuit | None = None) -> Status:
    """Return what a batch is doing; the first that holds of what stops it, then of what it waits for."""
    if batch.state.terminal:
        return _how_it_ended(batch)
    if batch.quarantined_at is not None:
        return Status.QUARANTINED
    if batch.held_since is not None:
        return Status.HELD
    if circuit is not None and circuit.until is not None and circuit.status:
        return Status.REFUSED
    if batch.cancel_requested:
        return Status.CANCELLING
    if is_overdue(batch, now):
        return Status.OVERDUE
    if batch.error and batch.n_open > 0:
        return Status.WAITING
    return {
        BatchState.OPEN: Status.COLLECTING,
        BatchState.SEALED: Status.QUEUED,
        BatchState.SUBMITTING: Status.SENDING,
        BatchState.SUBMITTED: Status.RUNNING,
    }.get(batch.state, Status.READING)


def _how_it_ended(batch: Batch) -> Status:
    live = batch.n_requests - batch.n_dropped
    if batch.n_requeued and batch.n_requeued >= live:
        return Status.MOVED_ON
    if batch.state is BatchState.SETTLED:
        return Status.DONE_WITH_FAILURES if batch.n_failed else Status.DONE
    return Status.CANCELLED if batch.state is BatchState.CANCELLED else Status.FAILED


def window_of(batch: Batch) -> dt.timedelta | None:
    """Return the time in which the provider promises answers; None if its words are unknown."""
    found = _WINDOW.fullmatch(batch.spec.completion_window)
    return dt.timedelta(hours=int(found[1]) * _HOURS[found[2]]) if found else None


def is_overdue(batch: Batch, now: dt.datetime) -> bool:
    """Return whether a submitted batch still runs after its window and a grace."""
    window = window_of(batch)
    if batch.state is not BatchState.SUBMITTED or batch.submitted_at is None or window is None:
        return False
    return now > batch.submitted_at + window + WINDOW_GRACE


def timeline_of(batch: Batch) -> tuple[TimelineEntry, ...]:
    """Return what happened to a batch, oldest first; lines that cannot be read are left out."""
    found = []
    for line in batch.timeline.splitlines():
        at, _, what = line.partition(" ")
        if at.isascii() and at.isdigit() and len(at) < 15 and what:
            found.append(TimelineEntry(at=dt.datetime.fromtimestamp(int(at) / 1000, tz=dt.UTC), what=what))
    return tuple(found)


def _why(batch: Batch, status: Status, circuit: Circuit | None) -> str:
    if status is Status.REFUSED and circuit is not None:
        return circuit.why
    if status is Status.OVERDUE:
        return f"its completion window of {batch.spec.completion_window} is over, and it still runs at its provider"
    if status is Status.MOVED_ON and batch.moved_to is not None:
        return f"its requests went on in {batch.moved_to}"
    return ""


def _next(batch: Batch, status: Status, look: dt.datetime | None, now: dt.datetime) -> str | None:
    """Return what happens next, without the time, which is `next_look_at`."""
    if batch.state.terminal:
        return None
    if status is Status.QUARANTINED:
        return "nothing, until you retry or cancel it"
    if status is Status.HELD:
        return "its results are read again; `batchling retry` reads them now"
    if status is Status.REFUSED:
        return "its key is tried again; `batchling retry` tries it now"
    if look is None:
        return "a worker notices that it is on no schedule"
    match batch.state:
        case BatchState.OPEN:
            return "it is sealed, unless more calls come before"
        case BatchState.SEALED | BatchState.SUBMITTING:
            return "its submission is tried again" if batch.error else "it is submitted"
        case BatchState.SUBMITTED:
            return "its provider is asked to cancel it" if batch.cancel_requested else _promise(batch)
        case _:
            failed = batch.outcome not in (Outcome.COMPLETED, None)
            return "its requests are answered, or queued again" if failed else "its results are read"


def _promise(batch: Batch) -> str:
    window = window_of(batch)
    if window is None or batch.submitted_at is None:
        return "its provider is asked how far it is"
    by = batch.submitted_at + window
    return f"its provider is asked how far it is; answers are promised by {by:%Y-%m-%d %H:%M} UTC"
