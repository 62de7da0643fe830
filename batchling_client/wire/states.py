"""The states of a batch (`BatchState`), every change between them (`CHANGES`), and what scripts answer (`Verdict`)."""

from __future__ import annotations

import enum
from typing import Final, NamedTuple


class BatchState(enum.StrEnum):
    """Life of a batch: `open -> sealed -> submitting -> submitted -> ended -> settled | failed | cancelled`."""

    OPEN = "open"
    SEALED = "sealed"
    SUBMITTING = "submitting"
    SUBMITTED = "submitted"
    ENDED = "ended"
    SETTLED = "settled"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def terminal(self) -> bool:
        """Nothing leaves this state."""
        return self in TERMINAL_STATES


TERMINAL_STATES = frozenset({BatchState.SETTLED, BatchState.FAILED, BatchState.CANCELLED})
LIVING_STATES = frozenset(BatchState) - TERMINAL_STATES
IN_FLIGHT_STATES = frozenset({BatchState.SEALED, BatchState.SUBMITTING, BatchState.SUBMITTED})
"""Those in which a batch that was let into a quota of enqueued tokens counts against it."""


class Change(NamedTuple):
    """A change of a batch's state, and the script that makes it."""

    script: str
    sources: tuple[BatchState, ...]
    """() = there was no batch."""
    target: BatchState
    when: str


_OPEN, _SEALED, _ENDED = BatchState.OPEN, BatchState.SEALED, BatchState.ENDED
_SUBMITTING, _SUBMITTED = BatchState.SUBMITTING, BatchState.SUBMITTED
_LIVING: Final = tuple(state for state in BatchState if not state.terminal)
_TERMINAL: Final = tuple(state for state in BatchState if state.terminal)

CHANGES: Final = (
    Change("enqueue", (), _OPEN, "the first request of a lane's next batch comes"),
    Change("requeue", (), _OPEN, "a request that an ended batch left open needs the next batch"),
    Change("enqueue", (_OPEN,), _SEALED, "it is full, or a request withdrawn from it is queued elsewhere"),
    Change("requeue", (_OPEN,), _SEALED, "it is full"),
    Change("adopt", (_OPEN,), _SEALED, "a request withdrawn from it returns to a reopened batch"),
    Change("seal", (_OPEN,), _SEALED, "its linger is over"),
    Change("cancel", (_OPEN,), _SEALED, "it is cancelled, and an earlier run of Redis may have submitted it"),
    Change("intend", (_SEALED,), _SUBMITTING, "its submission begins"),
    Change(
        "release", (_SUBMITTING,), _SEALED, "its submission failed before anything was stored at the provider"
    ),
    Change("hold", (_SUBMITTING,), _SEALED, "its create was refused for a full quota"),
    Change("submitted", (_SUBMITTING,), _SUBMITTED, "the provider has made it"),
    Change("ended", (_SEALED, _SUBMITTING, _SUBMITTED), _ENDED, "it has ended, at the provider or before"),
    Change("drop", (_OPEN, _SEALED), _ENDED, "the last of its requests is cancelled"),
    Change("cancel", (_OPEN, _SEALED), _ENDED, "it is cancelled"),
    Change("cancel", (_SUBMITTING, _SUBMITTED), _ENDED, "it is quarantined, and cancelled twice"),
    Change("settle", (_ENDED,), BatchState.SETTLED, "every request is answered or has moved on"),
    Change(
        "settle",
        (_ENDED,),
        BatchState.FAILED,
        "every request of a refused or lost batch is answered or has moved on",
    ),
    Change("settle", (_ENDED,), BatchState.CANCELLED, "every request of a cancelled batch is answered"),
    Change("give_up", _LIVING, BatchState.FAILED, "its record cannot be read"),
    Change("reopen", _TERMINAL, _SUBMITTED, "a person wants its results read again"),
)
"""Every change; a script that changes states names them in its header, and `docs/how-it-works.md` draws them."""


QUARANTINED: Final = "quarantined"
SETTLED_WITH_FAILURES: Final = "settled_with_failures"
LISTS: Final = (QUARANTINED, *(state.value for state in BatchState), SETTLED_WITH_FAILURES)
"""The lists of batches that `_moved.lua` keeps for each lane: a batch is in one of them."""


class Outcome(enum.StrEnum):
    """How a batch ended at the provider, in words shared by all providers."""

    COMPLETED = "completed"
    FAILED = "failed"
    EXPIRED = "expired"
    CANCELLED = "cancelled"
    LOST = "lost"
    SPLIT = "split"
    """Too large for the quota: nobody was asked to run it, and its requests go on in smaller batches."""


class Verdict(enum.StrEnum):
    """What a script answered; NOT_ON_DISK is OK without the confirmation that was asked for."""

    OK = "OK"
    NOT_ON_DISK = "NOT_ON_DISK"
    STALE = "STALE"
    TAKEN = "TAKEN"
    MOVED = "MOVED"
    USED = "USED"
    UNSEALED = "UNSEALED"
    MAILBOXES = "MAILBOXES"
    JOINED = "JOINED"
    TOO_LATE = "TOO_LATE"
    GONE = "GONE"
    HELD = "HELD"
    LARGE = "LARGE"
    OPEN = "OPEN"
    PARKED = "PARKED"
    LIVES = "LIVES"
    UNREADABLE = "UNREADABLE"
    OVER = "OVER"
    ALONE = "ALONE"
    QUARANTINED = "QUARANTINED"
    BUSY = "BUSY"


class Placement(enum.StrEnum):
    """Where enqueue found or put a request."""

    QUEUED = "Q"
    JOINED = "J"
    LATE = "L"
    """Joined to a batch that is being cancelled: the end of that batch does not answer this request."""
    ANSWERED = "D"


class RowKind(enum.StrEnum):
    """What a result means for its request: answered, failed for good, or worth another attempt."""

    SUCCESS = "S"
    FAILURE = "F"
    RETRY = "R"
