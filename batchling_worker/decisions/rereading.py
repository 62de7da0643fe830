"""Decides what a reading of an ended batch's results proves: values in, values out, `now` passed in.

A row that the results lack may have been answered and paid for: its file may be shown late, a gateway may have sent a
page of its own, a list may have called the batch ended too soon. So such a batch is looked at and read again for a
while. Afterwards only rows that nothing counts as answered are run again; a batch whose answers are counted and cannot
be read is held.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Final, TypeAlias

from batchling_client.wire.records.batch import Batch
from batchling_client.wire.states import Outcome

from ..errors import TemporaryError, WorkerError
from ..provider import Ending
from . import patience

FIRST_PAUSE_S: Final = 1.0
READINGS_AT_LEAST: Final = 4
"""No pause is longer than the patience divided by this."""
HELD_FIRST_S: Final = 60.0
HELD_LONGEST_S: Final = 3600.0
PROVIDERS_KEEP: Final = dt.timedelta(days=30)
"""No provider promises to keep results longer."""
LONGEST_ASKED_S: Final = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What one reading of all result files brought."""

    n_answered: int = 0
    """Requests answered by this reading."""
    n_retry: int = 0
    """Requests whose row says that they are worth another attempt."""
    n_unknown: int = 0
    """Rows of requests that are not in this batch (any more), those answered before included."""
    n_ok: int = 0
    """Rows that the provider answered with a 2xx."""
    n_foreign: int = 0
    """Rows with a 2xx that name no request of ours."""
    n_too_large: int = 0
    """Rows whose answer is too long to be read."""
    failure: WorkerError | None = None
    """What kept a result file, or the rest of it, from being read."""
    running: bool = False
    """Whether the last look showed the batch as running still."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """How a batch stands after a reading."""

    n_left: int
    """Requests that still wait in it, those worth another attempt included."""
    n_succeeded: int
    n_failed: int
    n_gone: int = 0
    """Requests that left it unanswered: given up, or in another batch now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Complete:
    """What the results left open may be settled."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadAgain:
    """The batch is looked at and its results are read again after a pause; `held` = nothing of it is ever run again."""

    delay_s: float
    why: str
    held: bool = False


Verdict: TypeAlias = Complete | ReadAgain


def judge(batch: Batch, ending: Ending, reading: Reading, tally: Tally, patience_s: float) -> Verdict:
    """Return what follows from a reading; a batch that did not run or is lost has no results to read again."""
    n_unexplained = tally.n_left - reading.n_retry
    if n_unexplained <= 0 or not _owes_answers(batch, ending, reading, tally):
        return Complete()
    if reading.running or _waited_s(batch) < patience_s or batch.n_unread < READINGS_AT_LEAST - 1:
        pause_s = max(_pause_s(batch.n_unread, patience_s), _asked_for_s(reading))
        return ReadAgain(delay_s=pause_s, why=_why(n_unexplained, reading))
    if _counts_answers(ending, reading, tally):
        return ReadAgain(
            delay_s=_held_pause_s(batch.n_unread), why=held_sentence(batch, ending, reading), held=True
        )
    return Complete()


def in_doubt(batch: Batch, ending: Ending, reading: Reading, tally: Tally) -> bool:
    """Return whether an answer may yet come out of the files of a batch that was read to its end.

    They are deleted only where the provider itself showed the end, or surely made no batch, every file was read, and
    nothing that the provider counts as answered is missing.
    """
    left_out = reading.n_foreign or reading.n_too_large
    if not ending.certain or reading.failure is not None or reading.running or left_out:
        return True
    if batch.provider_batch_id is None or tally.n_left <= reading.n_retry:
        return False
    if batch.outcome is Outcome.COMPLETED:
        return True
    if ending.n_succeeded is None:
        return batch.outcome is not Outcome.FAILED or bool(ending.results)
    return ending.n_succeeded > _n_ok(reading, tally)


def _owes_answers(batch: Batch, ending: Ending, reading: Reading, tally: Tally) -> bool:
    """Return whether the results may hold more than was read; for an incomplete batch, only counts can show it."""
    if batch.provider_batch_id is None or batch.outcome in (None, Outcome.LOST, Outcome.SPLIT):
        return False
    if batch.outcome is Outcome.COMPLETED or reading.failure is not None:
        return True
    return (ending.n_succeeded or 0) > _n_ok(reading, tally)


def _counts_answers(ending: Ending, reading: Reading, tally: Tally) -> bool:
    """Return whether requests that were not found may be among those that the provider counts as answered.

    Where every file was read, and rows of ours are in them, a row that is missing is missing for good. Rows that came
    before the end, of a file that the batch does not name any more, do not show that every file was read.
    """
    found_none = not (tally.n_succeeded + tally.n_failed + reading.n_retry)
    if found_none and reading.n_foreign:
        return True
    if ending.n_succeeded is not None and ending.n_succeeded <= _n_ok(reading, tally):
        return False
    return reading.failure is not None or found_none or not ending.results


def _n_ok(reading: Reading, tally: Tally) -> int:
    """Return how many answers of this batch are known; more rows mean that another batch's file was sent."""
    n_at_most = tally.n_succeeded + tally.n_failed + tally.n_gone + reading.n_retry
    return max(tally.n_succeeded, min(reading.n_ok, n_at_most))


def _waited_s(batch: Batch) -> float:
    if batch.unread_since is None or batch.read_at is None:
        return 0.0
    return (batch.read_at - batch.unread_since).total_seconds()


def _pause_s(n_unread: int, patience_s: float) -> float:
    return min(FIRST_PAUSE_S * 2.0 ** min(n_unread, 16), max(patience_s / READINGS_AT_LEAST, 0.1))


def _asked_for_s(reading: Reading) -> float:
    """Return the pause that the provider asked for, in seconds, at most minutes."""
    asked_s = reading.failure.delay_s if isinstance(reading.failure, TemporaryError) else None
    return min(asked_s or 0.0, LONGEST_ASKED_S)


def _held_pause_s(n_unread: int) -> float:
    return min(HELD_FIRST_S * 1.5 ** min(n_unread, 16), HELD_LONGEST_S)


def _why(n_unexplained: int, reading: Reading) -> str:
    if reading.running:
        return "the provider shows the batch as running again"
    if reading.failure is not None:
        return f"results cannot be read yet: {reading.failure.recorded}"
    return f"{n_unexplained} requests are in no result file yet"


def held_sentence(batch: Batch, ending: Ending, reading: Reading) -> str:
    """Return the sentence on a held batch, and what to do about it."""
    counted = "answers" if ending.n_succeeded is None else f"{ending.n_succeeded} answers"
    failure = reading.failure
    reason = failure.recorded.rstrip(".") if failure else "no result names a request of this batch"
    return (
        f"{batch.spec.provider} has {counted} in batch {batch.provider_batch_id} that cannot be read: {reason}. "
        f"Nothing is run again. `batchling retry {batch.batch_id}` reads the results again, "
        f"`batchling cancel {batch.batch_id}` gives them up."
    )


def is_over(batch: Batch, now: dt.datetime) -> bool:
    """Return whether an unreadable batch is given up: its completion window and the provider's retention are over."""
    begun = batch.submitted_at or batch.create_at or batch.created_at
    ends_at = begun + patience.window(batch.spec.completion_window) + PROVIDERS_KEEP
    return now >= min(ends_at, batch.created_at + patience.REQUESTS_KEPT)
