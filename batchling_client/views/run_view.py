"""One run as people see it: what became of its requests, and the tokens of its answers."""

from __future__ import annotations

import datetime as dt
import enum
from typing import Annotated

import msgspec

from ..wire.keys import RunId
from .inspection import RunRecord
from .sent_again import SentAgainCount, counts_of, n_may_be_paid_twice


class RunStatus(enum.StrEnum):
    """What a run is doing, by its counts."""

    RUNNING = "running"
    """Answers are still to come, whether its program waits for them or not."""
    DONE = "done"
    DONE_WITH_FAILURES = "done with failures"
    WITHDRAWN = "withdrawn"
    """All its requests were withdrawn before they were sent."""
    UNKNOWN = "unknown"
    """It began under a release that did not count."""


class RunView(msgspec.Struct, frozen=True, kw_only=True):
    """One run; its requests are its own, while its batches may hold those of other runs too."""

    run_id: Annotated[RunId, msgspec.Meta(description="id of the run, as in `run.id`")]
    name: Annotated[str | None, msgspec.Meta(description="the name given to `batchify` or `submit`")]
    status: Annotated[
        RunStatus,
        msgspec.Meta(
            description="`running`, `done`, `done with failures`, `withdrawn`; `unknown` for a run of an old release"
        ),
    ]
    started_at: Annotated[dt.datetime, msgspec.Meta(description="when its first request was queued")]
    n_requests: Annotated[int, msgspec.Meta(description="requests of the run, each once")]
    n_reused: Annotated[
        int, msgspec.Meta(description="those that earlier runs had made, answered or still running")
    ]
    n_succeeded: Annotated[int, msgspec.Meta(description="answered with a success")]
    n_failed: Annotated[int, msgspec.Meta(description="answered with an error")]
    n_withdrawn: Annotated[int, msgspec.Meta(description="withdrawn before they were sent")]
    n_waiting: Annotated[int, msgspec.Meta(description="not answered yet")]
    n_input: Annotated[
        int, msgspec.Meta(description="tokens of the prompts of its answers, those of caches included")
    ]
    n_cached: Annotated[int, msgspec.Meta(description="tokens of prompts that were read from a cache")]
    n_output: Annotated[int, msgspec.Meta(description="tokens of its answers, those of reasoning included")]
    n_unmetered: Annotated[int, msgspec.Meta(description="answers that report no tokens")]
    n_batches: Annotated[int, msgspec.Meta(description="batches into which it has put requests")]
    n_sent_again: Annotated[
        int,
        msgspec.Meta(
            description="requests of it that were sent to the provider once more, counted each time"
        ),
    ]
    n_may_be_paid_twice: Annotated[
        int, msgspec.Meta(description="those among them that the provider may have billed before, too")
    ]
    sent_again: Annotated[tuple[SentAgainCount, ...], msgspec.Meta(description="the same by reason")]


def run_view(record: RunRecord) -> RunView:
    """Return the view of a run's record."""
    tokens = record.tokens
    return RunView(
        run_id=record.run_id,
        name=record.name or None,
        status=_status(record),
        started_at=record.started_at,
        n_requests=record.n_requests,
        n_reused=record.n_reused,
        n_succeeded=record.n_succeeded,
        n_failed=record.n_failed,
        n_withdrawn=record.n_withdrawn,
        n_waiting=record.n_waiting,
        n_input=tokens.n_input,
        n_cached=tokens.n_cached,
        n_output=tokens.n_output,
        n_unmetered=tokens.n_unmetered,
        n_batches=record.n_batches,
        n_sent_again=sum(record.sent_again.values()),
        n_may_be_paid_twice=n_may_be_paid_twice(record.sent_again),
        sent_again=counts_of(record.sent_again),
    )


def _status(record: RunRecord) -> RunStatus:
    if not record.is_counted:
        return RunStatus.UNKNOWN
    if record.n_waiting:
        return RunStatus.RUNNING
    if record.n_failed:
        return RunStatus.DONE_WITH_FAILURES
    return RunStatus.DONE if record.n_succeeded else RunStatus.WITHDRAWN
