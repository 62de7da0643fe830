"""The state of a deployment on one screen: what needs a person, what waits by itself, what runs."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterable, Sequence
from typing import Annotated, Final

import msgspec

from ..wire.keys import BatchId
from ..wire.records.row_and_result import CorruptRecord, WorkerPresence
from ..wire.states import BatchState
from .batch_detail import commands_of
from .batch_list import FAILED, OVER, UNFINISHED, BatchLists, Filter
from .batch_view import NEED_YOU, BatchView, Status
from .pace import Pace
from .sent_again import SentAgainCount, counts_of, n_may_be_paid_twice

MOST_READ: Final = 5_000
"""So many unfinished batches are read, the oldest: the counts are exact beyond that, the reasons are theirs."""
_VARYING: Final = re.compile(r"\S*\d\S*")
"""Ids, times and counts: two batches that differ in them wait for one reason."""


class Group(msgspec.Struct, frozen=True, kw_only=True):
    """Batches of one model that are in one situation, for one reason."""

    provider: Annotated[str, msgspec.Meta(description="name of the provider")]
    model: Annotated[str, msgspec.Meta(description="model of the batches")]
    credential: Annotated[str, msgspec.Meta(description="fingerprint of their API key")]
    status: Annotated[Status, msgspec.Meta(description="what they are doing")]
    why: Annotated[
        str | None, msgspec.Meta(description="why, in the words of the oldest; null if nothing is wrong")
    ]
    next: Annotated[str | None, msgspec.Meta(description="what happens next with the oldest")]
    next_look_at: Annotated[
        dt.datetime | None, msgspec.Meta(description="when that is; null if nobody looks")
    ]
    commands: Annotated[tuple[str, ...], msgspec.Meta(description="commands that a person may give")]
    n_batches: Annotated[int, msgspec.Meta(description="batches of the group")]
    n_requests: Annotated[
        int, msgspec.Meta(description="their requests without those that moved on or were dropped")
    ]
    n_waiting: Annotated[int, msgspec.Meta(description="their requests without an answer")]
    n_done: Annotated[
        int, msgspec.Meta(description="requests answered, or done at the provider as last seen")
    ]
    oldest_batch_id: Annotated[BatchId, msgspec.Meta(description="ID of the oldest batch of the group")]
    oldest_at: Annotated[dt.datetime, msgspec.Meta(description="when its first request was queued")]


class Overview(msgspec.Struct, frozen=True, kw_only=True):
    """A deployment, as `batchling status --json` prints it."""

    namespace: Annotated[str, msgspec.Meta(description="name of the deployment")]
    redis_at: Annotated[str, msgspec.Meta(description="where its Redis is, without a password")]
    n_workers: Annotated[int, msgspec.Meta(description="workers alive")]
    n_waiting: Annotated[int, msgspec.Meta(description="requests without an answer")]
    oldest_at: Annotated[
        dt.datetime | None, msgspec.Meta(description="when the oldest of them was queued; null if none")
    ]
    lag_s: Annotated[float, msgspec.Meta(description="seconds by which the most overdue look is late")]
    pace: Annotated[Pace, msgspec.Meta(description="what came in during the last hour")]
    n_sent_again: Annotated[
        int,
        msgspec.Meta(
            description="requests on record that were sent to the provider once more, counted each time"
        ),
    ]
    n_may_be_paid_twice: Annotated[
        int, msgspec.Meta(description="those among them that the provider may have billed before, too")
    ]
    sent_again: Annotated[tuple[SentAgainCount, ...], msgspec.Meta(description="the same by reason")]
    n_unfinished: Annotated[int, msgspec.Meta(description="batches that are not over")]
    n_over: Annotated[int, msgspec.Meta(description="batches that are over and still on record")]
    n_over_with_failures: Annotated[
        int, msgspec.Meta(description="those among them that failed or hold failures")
    ]
    n_unread: Annotated[
        int,
        msgspec.Meta(description="unfinished batches beyond the oldest 5,000, which the groups leave out"),
    ]
    needs_you: Annotated[tuple[Group, ...], msgspec.Meta(description="batches that wait for a person")]
    waits: Annotated[
        tuple[Group, ...], msgspec.Meta(description="what waits for something that passes by itself")
    ]
    running: Annotated[tuple[Group, ...], msgspec.Meta(description="what is under way")]
    troubles: Annotated[
        tuple[str, ...], msgspec.Meta(description="what is wrong with the deployment itself, a sentence each")
    ]

    @property
    def is_healthy(self) -> bool:
        """Whether nobody has to act."""
        return not (self.needs_you or self.troubles)


NO_WORKER: Final = "No worker is alive, and requests wait."
LATE_S: Final = 30.0
"""Looks that are later than this are not made in time: a worker is too few, or stands still."""


async def overview_of(lists: BatchLists, *, namespace: str, redis_at: str, n_older: int = 0) -> Overview:
    """Look at everything once. Raise redis-py's own errors when Redis is away."""
    lanes = await lists.lanes()
    page = await lists.page(Filter(lists=UNFINISHED), limit=MOST_READ, lanes=lanes)
    now, lag_s = await lists.clock_and_lag()
    everything = Filter()
    try:
        workers: Sequence[WorkerPresence] = await lists.inspection.workers()
        other_version = False
    except CorruptRecord:
        workers, other_version = (), True
    n_unfinished = lanes.n(UNFINISHED, everything)
    n_waiting = sum(batch.n_waiting for batch in page.batches)
    troubles = []
    if other_version:
        troubles.append("A worker of another version is alive: run one version here and in the workers.")
    elif not workers and n_unfinished:
        troubles.append(NO_WORKER)
    elif lag_s > LATE_S and workers:
        troubles.append(
            f"Looks at batches are {lag_s:,.0f} s late: start more workers, or see why they stand still."
        )
    if await lists.inspection.is_full():
        troubles.append(
            "Redis is full: raise its `maxmemory`; workers cannot store answers until it has room."
        )
    if n_older:
        troubles.append(f"{n_older:,} batches of an older version wait: `batchling doctor` says for what.")
    groups = _grouped(page.batches)
    return Overview(
        namespace=namespace,
        redis_at=redis_at,
        n_workers=len(workers),
        n_waiting=n_waiting,
        oldest_at=min((batch.created_at for batch in page.batches if batch.n_waiting), default=None),
        lag_s=lag_s,
        pace=await lists.pace(now),
        n_sent_again=sum(lanes.sent_again.values()),
        n_may_be_paid_twice=n_may_be_paid_twice(lanes.sent_again),
        sent_again=counts_of(lanes.sent_again),
        n_unfinished=n_unfinished,
        n_over=lanes.n(OVER, everything),
        n_over_with_failures=lanes.n(FAILED, everything),
        n_unread=max(0, n_unfinished - len(page.batches)),
        needs_you=tuple(one for one in groups if one.status in NEED_YOU),
        waits=tuple(one for one in groups if one.status is Status.WAITING),
        running=tuple(
            one for one in groups if one.status not in NEED_YOU and one.status is not Status.WAITING
        ),
        troubles=tuple(troubles),
    )


def _grouped(batches: Iterable[BatchView]) -> list[Group]:
    """Return the batches by model, key, status and reason; each group begins with its oldest batch."""
    by_cause: dict[tuple[str, str, str, str], list[BatchView]] = {}
    for batch in batches:
        cause = (
            _VARYING.sub("#", batch.why or "") if batch.needs_you or batch.status is Status.WAITING else ""
        )
        by_cause.setdefault((batch.title, batch.credential, batch.status, cause), []).append(batch)
    groups = [_group(some) for some in by_cause.values()]
    return sorted(groups, key=lambda one: one.oldest_at)


def _group(some: Sequence[BatchView]) -> Group:
    oldest = some[0]
    return Group(
        provider=oldest.provider,
        model=oldest.model,
        credential=oldest.credential,
        status=oldest.status,
        why=oldest.why,
        next=oldest.next,
        next_look_at=oldest.next_look_at,
        commands=commands_of(oldest) if oldest.needs_you else (),
        n_batches=len(some),
        n_requests=sum(one.n_live for one in some),
        n_waiting=sum(one.n_waiting for one in some),
        n_done=sum(_n_done(one) for one in some),
        oldest_batch_id=oldest.batch_id,
        oldest_at=oldest.created_at,
    )


def _n_done(batch: BatchView) -> int:
    """Return how many requests are answered, or until then how many the provider reports as done."""
    running = batch.n_done if batch.state is BatchState.SUBMITTED else 0
    return max(batch.n_succeeded + batch.n_failed, running)
