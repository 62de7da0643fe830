"""One lane as people see it: what waits in it, what runs, and what holds it up."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import msgspec

from ..wire.keys import LaneId
from ..wire.states import BatchState
from .batch_list import UNFINISHED, BatchLists, Filter
from .batch_view import BatchView
from .inspection import LaneRecord
from .overview import MOST_READ


class Queue(msgspec.Struct, frozen=True, kw_only=True):
    """The unfinished requests of one lane, counted."""

    n_open: int = 0
    """In the open batch."""
    n_sealed: int = 0
    """In sealed batches that no provider has taken yet."""
    n_running: int = 0
    """At the provider, or in results that are being read."""
    oldest_at: dt.datetime | None = None
    why: str | None = None
    """Why the oldest batch that waits does so."""

    @property
    def n_waiting(self) -> int:
        """How many requests no provider has taken yet."""
        return self.n_open + self.n_sealed


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneView:
    """A lane and its queue."""

    lane: LaneRecord
    queue: Queue

    def as_json(self) -> dict[str, object]:
        """Return what `batchling lanes --json` prints."""
        return {
            **self.lane.as_json(),
            "n_waiting": self.queue.n_waiting,
            "n_open": self.queue.n_open,
            "n_sealed": self.queue.n_sealed,
            "n_running": self.queue.n_running,
            "oldest_at": self.queue.oldest_at.isoformat() if self.queue.oldest_at else None,
            "why": self.queue.why,
        }


async def lanes_of(lists: BatchLists, limit: int) -> list[LaneView]:
    """Return the lanes used last, latest first, with their queues. Raise redis-py's own errors when Redis is away."""
    page = await lists.page(Filter(lists=UNFINISHED), limit=MOST_READ)
    queues = queues_of(page.batches)
    return [
        LaneView(lane=lane, queue=queues.get(lane.lane_id, Queue()))
        for lane in await lists.inspection.lanes(limit)
    ]


def queues_of(batches: Iterable[BatchView]) -> dict[LaneId, Queue]:
    """Return the queues of the lanes that these unfinished batches are in, given oldest first."""
    found: dict[LaneId, Queue] = {}
    for batch in batches:
        queue = found.get(batch.lane_id, Queue(oldest_at=batch.created_at))
        n_open = batch.n_waiting * (batch.state is BatchState.OPEN)
        n_sealed = batch.n_waiting * (batch.state in (BatchState.SEALED, BatchState.SUBMITTING))
        found[batch.lane_id] = msgspec.structs.replace(
            queue,
            n_open=queue.n_open + n_open,
            n_sealed=queue.n_sealed + n_sealed,
            n_running=queue.n_running + batch.n_waiting - n_open - n_sealed,
            why=queue.why or batch.why,
        )
    return found


def tokens_in_words(lane: LaneRecord) -> str:
    """Return the enqueued tokens in flight and the learned limit, both estimated."""
    if lane.quota is None:
        return "-"
    in_flight = f"{lane.quota.n_tokens:,}"
    return f"{in_flight}/{lane.quota.limit:,}" if lane.quota.limit else in_flight


def hold_in_words(lane: LaneRecord, now: dt.datetime, clock: Callable[[dt.datetime], str]) -> str:
    """Return what holds up the lane's batches, until when, and why; '' if nothing does. `clock` spells a time."""
    circuit, quota = lane.circuit, lane.quota
    if circuit is not None and circuit.until is not None:
        until = f" until {clock(circuit.until)}" if circuit.until > now else ", about to be tried"
        return f"{circuit.word}{until}: {circuit.why}"
    if quota is not None and quota.held_until is not None and quota.held_until > now:
        return f"quota full until {clock(quota.held_until)}: {quota.why}"
    return ""
