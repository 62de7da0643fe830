"""Finds batches and runs by id, cancels and retries batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from ..errors import BatchlingError
from ..views.inspection import Inspection, RunRecord
from ..wire.keys import BatchId, RunId
from ..wire.records.batch import Batch
from ..wire.scripts import A_PERSON, Scripts
from ..wire.states import BatchState, Verdict

NO_ENDING: Final = b"{}"
"""What is known of the end of a batch that no provider has seen: nothing."""

MOST_LISTED: Final = 3
SHORTEST_PREFIX: Final = 4
"""A shorter beginning of an id names nothing: `cancel b` would mean whatever batch there is."""


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
        """Return what `batchling cancel --json` prints."""
        return {"cancelled": list(self.batch_ids), "too_late": list(self.too_late)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Retried:
    """The outcome of a retry: batches that are due now, batches in a running step, and batches that are over."""

    batch_ids: tuple[BatchId, ...]
    busy: tuple[BatchId, ...]
    too_late: tuple[BatchId, ...]
    done: tuple[str, ...] = ()
    """What was done with each batch that is due now, and what follows, a sentence each."""

    def as_json(self) -> dict[str, object]:
        """Return what `batchling retry --json` prints."""
        return {
            "retried": list(self.batch_ids),
            "busy": list(self.busy),
            "too_late": list(self.too_late),
            "done": list(self.done),
        }

    def lines(self) -> list[str]:
        """Return the same as lines of text."""
        return [*self.done, *(f"Batch {one} is left: a worker is at it at this moment." for one in self.busy)]


def _unsaid(_: str) -> None:
    """Print nothing."""


async def find(
    inspection: Inspection, name: str, *, warn: Callable[[str], object] = _unsaid
) -> Batch | RunRecord:
    """Return the batch or run that a person names; raise `UnknownId` if there is none, or more than one.

    `name` is an id, a run's name, a provider's id of a batch, or the beginning of an id: the first that fits. Of
    several runs with that name it is the newest, and `warn` is given a sentence about the others.
    """
    found = await inspection.batch(BatchId(name)) or await inspection.run(RunId(name))
    if found is None:
        batch_ids, run_ids = await _meant(inspection, name, warn)
        found = await inspection.batch(batch_ids[0]) if batch_ids else None
        found = await inspection.run(run_ids[0]) if run_ids else found
    if found is None and inspection.unreadable:
        raise UnknownId(inspection.unreadable[0])
    if found is None:
        raise UnknownId(
            f"There is no batch and no run {name!r} here: `batchling batches` and `batchling runs` list their ids."
        )
    return found


async def run_named(
    inspection: Inspection, name: str, *, warn: Callable[[str], object] = _unsaid
) -> RunId | None:
    """Return the newest run of that name, else the run whose id begins with it, None if there is none.

    A program or file that is run again under its name has the answers of its earlier runs. `warn` is given a sentence
    about other runs of that name. Raises `UnknownId` if several ids begin with it.
    """
    called = await _newest_called(inspection, name, warn)
    if called is not None:
        return called
    if len(name) < SHORTEST_PREFIX:
        return None
    _, run_ids = await inspection.ids_beginning_with(name)
    return _single(f"runs have ids that begin with {name!r}", run_ids)


async def _newest_called(inspection: Inspection, name: str, warn: Callable[[str], object]) -> RunId | None:
    called = await inspection.runs_called(name)
    if len(called) > 1:
        others = ", ".join(called[1 : MOST_LISTED + 1]) + (", ..." if len(called) > MOST_LISTED + 1 else "")
        warn(
            f"{len(called)} runs are called {name!r}: {called[0]} is the newest and is used. To choose another, "
            f"give its id: {others}."
        )
    return called[0] if called else None


async def _meant(
    inspection: Inspection, name: str, warn: Callable[[str], object]
) -> tuple[list[BatchId], list[RunId]]:
    """Return the batch or run that a name other than an id stands for; both are empty if there is none."""
    called = await _newest_called(inspection, name, warn)
    if called is not None:
        return [], [called]
    if not name:
        return [], []
    at_provider = await inspection.batches_at_provider(name)
    if _single(f"batches have the id {name!r} at their providers", at_provider) is not None:
        return at_provider, []
    if len(name) < SHORTEST_PREFIX:
        return [], []
    batch_ids, run_ids = await inspection.ids_beginning_with(name)
    _single(f"ids begin with {name!r}", [*batch_ids, *run_ids])
    return batch_ids, run_ids


_Id = TypeVar("_Id", bound=str)


def _single(what: str, ids: Sequence[_Id]) -> _Id | None:
    """Return the only id, None if there is none; raise `UnknownId` if there are several."""
    if len(ids) > 1:
        newest = ", ".join(ids[:MOST_LISTED])
        raise UnknownId(f"{len(ids)} {what}: give one id in full, newest first: {newest}.")
    return ids[0] if ids else None


async def cancel(scripts: Scripts, batch: Batch, *, by: str = A_PERSON) -> Cancelled:
    """Request the cancellation of a whole batch, other runs' requests included; `by` says who wants it, and how.

    Requests that were not submitted yet are answered with an error at once; the others as the batch ends.
    """
    verdict = await scripts.cancel(
        batch_id=batch.batch_id,
        lane_id=batch.lane_id,
        ending=NO_ENDING,
        error=f"Batch {batch.batch_id} was cancelled by {by}.",
        by=by,
    )
    named = (batch.batch_id,)
    return Cancelled(
        batch_ids=named if verdict is Verdict.OK else (), too_late=() if verdict is Verdict.OK else named
    )


async def retry(
    inspection: Inspection,
    scripts: Scripts,
    name: str,
    *,
    by: str = A_PERSON,
    warn: Callable[[str], object] = _unsaid,
) -> Retried:
    """Retry a waiting or quarantined batch now, or all batches of a run; raise `UnknownId`.

    Reopen a batch that is over and left requests without an answer, to read its results once more; the provider runs
    nothing again. If a run is named, reopen only those of its batches that did not end well.
    """
    found = await find(inspection, name, warn=warn)
    batches: Sequence[Batch] = found.batches if isinstance(found, RunRecord) else (found,)
    by_verdict: dict[Verdict, list[BatchId]] = {}
    done = []
    for batch in batches:
        verdict = await scripts.retry(batch_id=batch.batch_id, account=batch.account, by=by)
        what = _what_follows(batch)
        ended_well = batch.state is BatchState.SETTLED and not batch.n_failed
        if verdict is Verdict.TOO_LATE and not (ended_well and isinstance(found, RunRecord)):
            verdict = await scripts.reopen(batch_id=batch.batch_id, by=by)
            what = "is reopened: its results are read once more, and nothing is run again"
        if verdict is Verdict.OK:
            done.append(f"Batch {batch.batch_id} {what}.")
        by_verdict.setdefault(verdict, []).append(batch.batch_id)
    return Retried(
        batch_ids=tuple(by_verdict.pop(Verdict.OK, ())),
        busy=tuple(by_verdict.pop(Verdict.BUSY, ())),
        too_late=tuple(batch_id for late in by_verdict.values() for batch_id in late),
        done=tuple(done),
    )


def _what_follows(batch: Batch) -> str:
    """Return what a retry does with a batch that is not over, and what its next step is."""
    next_step = {
        BatchState.OPEN: "it is sealed and submitted",
        BatchState.SEALED: "it is submitted",
        BatchState.SUBMITTING: "its submission continues",
        BatchState.SUBMITTED: "its provider is asked about it",
        BatchState.ENDED: "its results are read",
    }.get(batch.state, "it continues")
    if batch.quarantined_at is not None:
        return f"is out of quarantine and due now: {next_step}"
    return f"is due now: {next_step}"
