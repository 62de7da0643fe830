"""A worker dies hard at any crash point, with any provider: every request is answered and billed once."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pytest

import batchling_worker
from batchling_client.wire.states import BatchState, Verdict
from batchling_worker import providers
from batchling_worker.sandbox.world.faults import (
    DropCreateAnswer,
    FailRows,
    Fault,
    RefuseDownload,
    StickBatch,
)
from tests.crash_points import EXIT_CODE
from tests.deployment import SLOW_MODEL, Deployment
from tests.form import Ability, names
from tests.waiting import wait_until

from .test_rereading import retried

EARLY = tuple(name for name in names() if providers.load(name).facts.early_results)
STUCK_S = 3600.0
"""Until the test has this time pass, once the worker has died."""
POINTS: dict[str, list[Fault]] = {
    "submit.intended": [],
    "submit.written": [],
    "submit.uploaded": [],
    "submit.file_stored": [],
    "submit.before_arm": [],
    "submit.armed": [],
    "submit.created": [],
    "submit.owned": [],
    "submit.searched": [DropCreateAnswer()],
    "submit.committed": [],
    "poll.progressed": [StickBatch(seconds=STUCK_S)],
    "poll.early_chunk": [StickBatch(state="in_progress", seconds=STUCK_S, done=0.6)],
    "poll.early_read": [StickBatch(state="in_progress", seconds=STUCK_S, done=0.6)],
    "poll.ended": [],
    "poll.recorded": [],
    "collect.chunk": [],
    "collect.delivered": [],
    "collect.recorded": [],
    "collect.unread": [RefuseDownload(status=500)],
    "settle.kept": [FailRows(n=9, status=500)],
    "settle.chunk": [],
    "settle.requeued": [FailRows(n=9, status=500)],
    "settle.walked": [],
    "settle.settled": [],
}
"""Each point with the weather in which a worker comes by."""
CANCEL_POINTS = ("poll.before_cancel", "poll.cancel_asked")
REOPEN_POINTS = ("poll.adopting", "poll.adopted")
N_ROWS = 140
"""More than one chunk."""


@pytest.fixture
async def hasty(deployment: Deployment) -> Deployment:
    deployment.env["BATCHLING_LEASE_SECONDS"] = "0.3"
    return deployment


def patient(deployment: Deployment, point: str) -> int:
    """Starts a worker that dies at a point, with a lease that a busy machine does not make it lose before."""
    return deployment.fork(crash_at=point, lease_seconds="60")


def test_every_point_of_the_worker_is_died_at() -> None:
    folder = Path(batchling_worker.__file__).parent
    named = {
        point
        for source in folder.rglob("*.py")
        for point in re.findall(r"\breach\(\s*\"([^\"]*)\"", source.read_text(encoding="utf-8"))
    }
    assert named == {*POINTS, *CANCEL_POINTS, *REOPEN_POINTS}


def _passing(point: str) -> Sequence[str]:
    """The providers whose batches come by at a point."""
    if point.startswith("poll.early"):
        return EARLY
    if point == "collect.unread":
        return names(Ability.OPENAI_FILES)
    if point in ("settle.kept", "settle.requeued"):
        # A few of the failed rows go into another batch.
        able = names(Ability.ROW_STATUSES)
        return [name for name in able if providers.load(name).facts.min_rows == 1]
    return names()


@pytest.mark.parametrize(
    ("any_provider", "point"),
    [(name, point) for point in POINTS for name in _passing(point)],
)
async def test_death_at_any_point_answers_and_bills_once(
    hasty: Deployment, any_provider: str, point: str
) -> None:
    hasty.sandbox.faults.add(*POINTS[point])
    doomed = patient(hasty, point)
    ids = await hasty.ask(N_ROWS, provider=any_provider)

    assert await hasty.fork_died(doomed) == EXIT_CODE
    if any(isinstance(fault, StickBatch) for fault in POINTS[point]):
        hasty.sandbox.clock.advance(STUCK_S)
    await hasty.due()
    hasty.fork(crash_at=point)

    results = await hasty.answered(ids)
    assert {result.status for result in results} == {200}
    await hasty.settled()
    assert hasty.sandbox.ledger().billed() == dict.fromkeys(ids, 1)


@pytest.mark.parametrize("point", CANCEL_POINTS)
async def test_death_around_a_cancel_leaves_nobody_waiting(
    hasty: Deployment, provider: str, point: str
) -> None:
    hasty.sandbox.faults.add(StickBatch(state="in_progress", done=0.5))
    doomed = patient(hasty, point)
    ids = await hasty.ask(N_ROWS, provider=provider, model=SLOW_MODEL)
    await wait_until(lambda: _at_provider(hasty), description="the batch is at the provider")
    [batch] = await hasty.batches()
    verdict = await hasty.scripts.cancel(
        batch_id=batch.batch_id, lane_id=batch.lane_id, ending=b"{}", error="by a person"
    )
    assert verdict is Verdict.OK

    assert await hasty.fork_died(doomed) == EXIT_CODE
    await hasty.due()
    hasty.fork(crash_at=point)

    results = await hasty.answered(ids)
    assert {(result.status, result.origin) for result in results} <= {
        (200, "provider"),
        (499, "batch_cancelled"),
    }
    [batch] = await hasty.settled()
    assert len(hasty.sandbox.batches()) == 1
    done = {one for one, result in zip(ids, results, strict=True) if result.status == 200}
    assert set(hasty.sandbox.ledger().billed()) == done


@pytest.mark.parametrize("point", REOPEN_POINTS)
async def test_death_while_a_batch_is_reopened_answers_and_bills_once(hasty: Deployment, point: str) -> None:
    hasty.sandbox.faults.add(RefuseDownload(status=500, times=None))
    first = hasty.fork()
    ids = await hasty.ask(N_ROWS)
    await wait_until(lambda: _held(hasty), description="its results are held")
    [batch] = await hasty.batches()
    await hasty.scripts.cancel(
        batch_id=batch.batch_id, lane_id=batch.lane_id, ending=b"{}", error="by a person"
    )
    assert {result.status for result in await hasty.answered(ids)} == {499}
    await hasty.settled()
    hasty.kill_fork(first)
    hasty.sandbox.faults.clear()
    doomed = patient(hasty, point)
    assert (await retried(hasty, batch.batch_id)).batch_ids == (batch.batch_id,)

    assert await hasty.fork_died(doomed) == EXIT_CODE
    await hasty.due()
    hasty.fork(crash_at=point)

    [settled] = await hasty.settled()
    assert (settled.n_succeeded, settled.n_failed) == (N_ROWS, 0)
    assert {result.status for result in await hasty.answered(ids)} == {200}
    assert hasty.sandbox.ledger().billed() == dict.fromkeys(ids, 1)


@pytest.mark.parametrize("point", ["submit.armed", "submit.created", "collect.chunk"])
async def test_a_celery_worker_that_dies_there_loses_and_doubles_nothing(
    deployment: Deployment, point: str
) -> None:
    doomed = deployment.worker(crash_at=point)
    ids = await deployment.ask(300)

    assert await deployment.died(doomed) == EXIT_CODE
    deployment.worker(crash_at=point)

    results = await deployment.answered(ids)
    assert {result.status for result in results} == {200}
    await deployment.settled()
    assert deployment.billed() == dict.fromkeys(ids, 1)


async def _held(deployment: Deployment) -> bool:
    return any(batch.held_since is not None for batch in await deployment.batches())


async def _at_provider(deployment: Deployment) -> bool:
    return any(batch.state is BatchState.SUBMITTED for batch in await deployment.batches())
