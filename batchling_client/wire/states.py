"""The state of a batch (`BatchState`) and the outcome of a script (`Verdict`)."""

from __future__ import annotations

import enum
from typing import Final


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
    MOVED = "MOVED"
    USED = "USED"
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
