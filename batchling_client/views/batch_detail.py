"""All that is known of one batch, with what happened to it and what a person can do."""

from __future__ import annotations

import datetime as dt
from typing import Annotated
from urllib.parse import quote

import msgspec

from ..wire.keys import RunId
from ..wire.records.batch import Batch
from ..wire.routes import Routes
from ..wire.states import Outcome
from .batch_list import BatchLists
from .batch_view import BatchView, Status, TimelineEntry, timeline_of
from .sent_again import SentAgainCount, counts_of


class RunOfBatch(msgspec.Struct, frozen=True, kw_only=True):
    """A run with requests in a batch."""

    run_id: Annotated[RunId, msgspec.Meta(description="id of the run")]
    name: Annotated[str | None, msgspec.Meta(description="its name; null if it has none")]
    started_at: Annotated[dt.datetime, msgspec.Meta(description="when it queued its first request")]
    n_requests: Annotated[int, msgspec.Meta(description="requests of the run, in all batches")]
    n_waiting: Annotated[
        int, msgspec.Meta(description="requests of the run without an answer, in all batches")
    ]


class BatchDetail(BatchView, frozen=True, kw_only=True):
    """A batch, as `batchling show BATCH --json` prints it: more than the list shows."""

    host: Annotated[str, msgspec.Meta(description="host it is sent to")]
    completion_window: Annotated[str, msgspec.Meta(description="time in which the provider promises answers")]
    n_bytes: Annotated[int, msgspec.Meta(description="bytes of its requests")]
    n_dropped: Annotated[int, msgspec.Meta(description="requests dropped before submission")]
    n_stumbles: Annotated[int, msgspec.Meta(description="failed steps in a row")]
    n_unended: Annotated[int, msgspec.Meta(description="steps in a row that began and never ended")]
    label: Annotated[
        str | None,
        msgspec.Meta(description="label by which it can be found at the provider; null before submission"),
    ]
    input_file_id: Annotated[
        str | None, msgspec.Meta(description="the provider's ID of the uploaded file; null if there is none")
    ]
    ended_at: Annotated[dt.datetime | None, msgspec.Meta(description="when it ended at its provider")]
    outcome: Annotated[
        Outcome | None, msgspec.Meta(description="how it ended at its provider; null before that")
    ]
    cancel_requested: Annotated[bool, msgspec.Meta(description="whether its cancellation was requested")]
    console_url: Annotated[
        str | None,
        msgspec.Meta(description="page of the provider's website that shows it; null if none is known"),
    ]
    sent_again: Annotated[
        tuple[SentAgainCount, ...], msgspec.Meta(description="requests that were sent once more, by reason")
    ]
    runs: Annotated[
        tuple[RunOfBatch, ...],
        msgspec.Meta(description="runs with requests in it, those that wait first; the first 100 of them"),
    ]
    has_more_runs: Annotated[bool, msgspec.Meta(description="whether there are more than these runs")]
    timeline: Annotated[
        tuple[TimelineEntry, ...],
        msgspec.Meta(description="what happened to it, oldest first, at most 50 entries"),
    ]
    commands: Annotated[tuple[str, ...], msgspec.Meta(description="commands that a person may give")]


async def detail_of(lists: BatchLists, batch: Batch) -> BatchDetail | None:
    """Return everything about a batch; None if it is gone. Raise redis-py's own errors when Redis is away."""
    found = await lists.views([batch.batch_id], await lists.lanes())
    if not found:
        return None
    return BatchDetail(
        **{name: getattr(found[0], name) for name in BatchView.__struct_fields__},
        host=batch.spec.host,
        completion_window=batch.spec.completion_window,
        n_bytes=batch.n_bytes,
        n_dropped=batch.n_dropped,
        n_stumbles=batch.n_stumbles,
        n_unended=batch.n_unended,
        label=batch.label or None,
        input_file_id=batch.input_file_id or None,
        ended_at=batch.ended_at,
        outcome=batch.outcome,
        cancel_requested=batch.cancel_requested,
        console_url=console_of(batch),
        sent_again=counts_of(batch.sent_again),
        runs=await _runs_of(lists, batch),
        has_more_runs=batch.has_more_runs,
        timeline=timeline_of(batch),
        commands=commands_of(found[0]),
    )


def console_of(batch: Batch) -> str | None:
    """Return the page of the provider's website that shows a batch; None for other hosts, which it does not show."""
    route = Routes().named(batch.spec.provider)
    if route is None or not batch.provider_batch_id or batch.spec.host not in route.hosts:
        return None
    return route.console.format(quote(batch.provider_batch_id, safe="")) or None


async def _runs_of(lists: BatchLists, batch: Batch) -> tuple[RunOfBatch, ...]:
    """Return the runs that the batch names, those that wait for most answers first."""
    runs = [
        RunOfBatch(
            run_id=one.run_id,
            name=one.name or None,
            started_at=one.started_at,
            n_requests=one.n_requests,
            n_waiting=one.n_waiting if one.is_counted else 0,
        )
        for one in await lists.inspection.runs_named(batch.runs)
    ]
    return tuple(sorted(runs, key=lambda one: (-one.n_waiting, one.started_at)))


def commands_of(batch: BatchView) -> tuple[str, ...]:
    """Return what a person can do about a batch; nothing for a batch that is over and complete."""
    retry, cancel = f"batchling retry {batch.batch_id}", f"batchling cancel {batch.batch_id}"
    if batch.status in (Status.QUARANTINED, Status.HELD, Status.REFUSED, Status.WAITING):
        return (retry, cancel)
    if not batch.state.terminal:
        return () if batch.status is Status.CANCELLING else (cancel,)
    return (retry,) if batch.status in (Status.FAILED, Status.CANCELLED) and batch.provider_batch_id else ()
