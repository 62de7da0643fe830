"""Finds batches and runs by id; cancels and retries batches at a person's wish."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from .credentials import KEEP_MS
from .errors import BatchlingError
from .inspection import Inspection, RunRecord
from .wire.batches import Batch
from .wire.keys import BatchId, RunId
from .wire.scripts import Scripts
from .wire.states import BatchState, Verdict

NO_ENDING: Final = b"{}"
"""What is known of the end of a batch that no provider has seen: nothing."""

MOST_LISTED: Final = 3


class UnknownId(BatchlingError):
    """Neither a batch nor a run has this id."""

    code = "unknown_id"
    sentence = "Neither a batch nor a run has this id."


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancelled:
    """What became of a wish to cancel: the batches that are being cancelled, and those that had ended already."""

    batch_ids: tuple[BatchId, ...]
    too_late: tuple[BatchId, ...]

    def as_json(self) -> dict[str, object]:
        """What `batchling cancel --json` prints."""
        return {"cancelled": list(self.batch_ids), "too_late": list(self.too_late)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Retried:
    """What became of a wish to retry: the batches looked at now, those a worker is at, and those that are over."""

    batch_ids: tuple[BatchId, ...]
    busy: tuple[BatchId, ...]
    too_late: tuple[BatchId, ...]

    def as_json(self) -> dict[str, object]:
        """What `batchling retry --json` prints."""
        return {"retried": list(self.batch_ids), "busy": list(self.busy), "too_late": list(self.too_late)}


async def find(inspection: Inspection, name: str) -> Batch | RunRecord:
    """The batch or run of that id, or the run of that name; raises `UnknownId`."""
    found = await inspection.batch(BatchId(name)) or await inspection.run(RunId(name))
    called = None if found is not None else await run_called(inspection, name)
    if called is not None:
        found = await inspection.run(called)
    if found is None and inspection.unreadable:
        raise UnknownId(inspection.unreadable[0])
    if found is None:
        raise UnknownId(
            f"There is no batch and no run {name!r} here: `batchling batches` and `batchling runs` list their ids."
        )
    return found


async def run_called(inspection: Inspection, name: str) -> RunId | None:
    """Return the run of that name, None if there is none; raises `UnknownId` if several have it."""
    called = await inspection.runs_called(name)
    if len(called) > 1:
        newest = ", ".join(called[:MOST_LISTED])
        raise UnknownId(
            f"{len(called)} runs are called {name!r}: give the id of one, newest first: {newest}."
        )
    return called[0] if called else None


async def cancel(scripts: Scripts, batch: Batch) -> Cancelled:
    """Asks for a batch to be cancelled as a whole, with the requests that other runs have in it.

    What no provider was told of is answered with an error at once; what was, as its end there says.
    """
    verdict = await scripts.cancel(
        batch_id=batch.batch_id,
        lane_id=batch.lane_id,
        ending=NO_ENDING,
        error=f"Batch {batch.batch_id} was cancelled with `batchling cancel`.",
    )
    named = (batch.batch_id,)
    return Cancelled(
        batch_ids=named if verdict is Verdict.OK else (), too_late=() if verdict is Verdict.OK else named
    )


async def retry(inspection: Inspection, scripts: Scripts, name: str) -> Retried:
    """Has a batch, or every batch of a run, looked at now, quarantined ones too; raises `UnknownId`.

    One that is over and left requests without an answer is reopened: its results are read once more, and nothing of it
    is run again. Of a run, only batches that did not end well are.
    """
    found = await find(inspection, name)
    batches: Sequence[Batch] = found.batches if isinstance(found, RunRecord) else (found,)
    by_verdict: dict[Verdict, list[BatchId]] = {}
    for batch in batches:
        verdict = await scripts.retry(batch_id=batch.batch_id, account=batch.account)
        ended_well = batch.state is BatchState.SETTLED and not batch.n_failed
        if verdict is Verdict.TOO_LATE and not (ended_well and isinstance(found, RunRecord)):
            verdict = await scripts.reopen(batch_id=batch.batch_id, keep_ms=KEEP_MS)
        by_verdict.setdefault(verdict, []).append(batch.batch_id)
    return Retried(
        batch_ids=tuple(by_verdict.pop(Verdict.OK, ())),
        busy=tuple(by_verdict.pop(Verdict.BUSY, ())),
        too_late=tuple(batch_id for late in by_verdict.values() for batch_id in late),
    )
