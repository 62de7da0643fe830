"""Formats a batch as one line: state, counts, age."""

from __future__ import annotations

import datetime as dt
from typing import Final

from ..wire.records.batch import Batch
from ..wire.shown import shown
from ..wire.states import BatchState

LONGEST: Final = 300
"""So many characters of a provider's words are shown."""


def line_of(batch: Batch, now: dt.datetime) -> str:
    """Return a batch in one line of plain text, with the reason of its end once it has ended."""
    words = [
        shown(f"{batch.spec.provider}/{batch.spec.model}"),
        state_of(batch),
        f"{rows_done(batch)}/{rows_all(batch)}",
        age_of(batch, now),
        shown(batch.provider_batch_id or batch.batch_id),
    ]
    if batch.error and batch.state.terminal:
        words.append(shown(batch.error, LONGEST))
    return "  ".join(words)


def state_of(batch: Batch) -> str:
    """Return a batch's state, followed by `(quarantined)` or, while it runs, by the provider's own status."""
    if batch.quarantined_at is not None:
        return f"{batch.state.value} (quarantined)"
    if batch.state is BatchState.SUBMITTED and batch.provider_status:
        return f"{batch.state.value} ({shown(batch.provider_status, LONGEST)})"
    return batch.state.value


def rows_all(batch: Batch) -> int:
    """Return the number of requests in a batch, without those dropped before submission."""
    return batch.n_requests - batch.n_dropped


def rows_done(batch: Batch) -> int:
    """Return the number of requests answered, or until then those the provider reports as done."""
    return max(batch.n_succeeded + batch.n_failed, 0 if batch.state.terminal else batch.n_done)


def age_of(batch: Batch, now: dt.datetime) -> str:
    """Return how long a batch has been under way, or was: 0:07, 12:30, 3:05:00."""
    return clock((batch.settled_at or now) - batch.created_at)


def clock(length: dt.timedelta) -> str:
    """Return a length of time as 0:07, 12:30 or 3:05:00."""
    seconds = max(0, int(length.total_seconds()))
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
