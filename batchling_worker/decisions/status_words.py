"""The words that servers use for the status of a batch, beyond those that their documents name."""

from __future__ import annotations

import re
from typing import Final

from batchling_client.wire.states import Outcome

LONGEST: Final = 64

_ENDS: Final[dict[Outcome, str]] = {
    Outcome.COMPLETED: (
        "completed complete succeeded success successful done finished finalized ended "
        "partially_completed partially_succeeded partial_success partial completed_with_errors "
        "completed_with_failures completed_with_warnings succeeded_with_errors output_ready"
    ),
    Outcome.FAILED: (
        "failed failure error errored faulted crashed aborted rejected invalid validation_failed create_failed "
        "creation_failed partially_failed"
    ),
    Outcome.EXPIRED: "expired timeout timed_out timeout_exceeded deadline_exceeded window_exceeded",
    Outcome.CANCELLED: (
        "cancelled canceled stopped terminated killed revoked deleted cancelled_by_user canceled_by_user "
        "user_cancelled user_canceled"
    ),
}
ENDS: Final = {word: outcome for outcome, words in _ENDS.items() for word in words.split()}
"""A word for an end -> how the batch ended."""
RUNNING: Final = frozenset(
    [
        "validating",
        "validated",
        "in_progress",
        "finalizing",
        "finalising",
        "cancelling",
        "canceling",
        "cancellation_requested",
        "cancel_requested",
        "created",
        "submitted",
        "accepted",
        "received",
        "registered",
        "new",
        "init",
        "initializing",
        "preparing",
        "pending",
        "waiting",
        "queued",
        "in_queue",
        "enqueued",
        "scheduling",
        "scheduled",
        "ready",
        "starting",
        "started",
        "running",
        "active",
        "processing",
        "executing",
        "writing_results",
        "uploading",
        "updating",
        "resuming",
        "paused",
        "pausing",
        "stopping",
        "unspecified",
    ]
)
"""Words for a batch that has not ended."""

_PREFIX: Final = re.compile(r"^(?:(?:batch|job|task)_)?(?:state|status)_")
_HUMP: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_GAP: Final = re.compile(r"[\s-]+")


def plain(word: str) -> str:
    """Return the word in lower case with underscores: `JOB_STATE_TIMED_OUT` and `TimedOut` are both `timed_out`."""
    spelt = _GAP.sub("_", _HUMP.sub("_", word[:LONGEST].strip())).lower()
    return _PREFIX.sub("", spelt)


def outcome_of(word: str) -> Outcome | None:
    """Return how a batch with this status has ended; None for a status that is not known to be an end."""
    return ENDS.get(plain(word))


def is_running(word: str) -> bool:
    """Return whether the status is known to belong to a batch that has not ended."""
    return plain(word) in RUNNING


def is_known(word: str) -> bool:
    """Return whether the status is known at all."""
    return is_running(word) or outcome_of(word) is not None
