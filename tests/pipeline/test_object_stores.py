"""Bedrock and Vertex, whose files lie in object stores: results that cannot be read, lost rows, a refused key."""

from __future__ import annotations

import pytest

from batchling_client.wire.keys import RequestId
from batchling_client.wire.records.batch import Batch
from batchling_client.wire.states import BatchState
from batchling_worker.sandbox.world.faults import BreakRows, LoseRows, RefuseDownload, RefuseKey, StickBatch
from tests.deployment import Deployment
from tests.waiting import wait_until

N = {"bedrock": 100, "vertex": 5}
"""Bedrock takes no smaller batch."""
WITHIN_S = 90.0


@pytest.fixture(params=N)
def name(request: pytest.FixtureRequest) -> str:
    chosen: str = request.param
    return chosen


async def asked(deployment: Deployment, name: str) -> list[RequestId]:
    deployment.fork()
    return await deployment.ask(N[name], provider=name, rows=N[name])


async def only(deployment: Deployment) -> Batch:
    [batch] = await deployment.batches()
    return batch


async def state(deployment: Deployment, wanted: BatchState) -> Batch:
    async def is_there() -> bool:
        return any(batch.state is wanted for batch in await deployment.batches())

    await wait_until(is_there, description=f"a batch is {wanted}", within_s=WITHIN_S)
    return next(batch for batch in await deployment.batches() if batch.state is wanted)


async def test_results_that_are_refused_for_a_while_are_paid_for_once(
    deployment: Deployment, name: str
) -> None:
    deployment.sandbox.faults.add(RefuseDownload(status=500, times=3))
    ids = await asked(deployment, name)
    results = await deployment.answered(ids, within_s=WITHIN_S)
    assert {result.status for result in results} == {200}
    assert deployment.billed() == dict.fromkeys(ids, 1)


async def test_the_key_is_refused_while_the_job_runs_and_taken_again(
    deployment: Deployment, name: str
) -> None:
    deployment.sandbox.faults.add(StickBatch(state="in_progress", seconds=3.0, done=0.0))
    ids = await asked(deployment, name)
    await state(deployment, BatchState.SUBMITTED)
    deployment.sandbox.faults.add(RefuseKey(status=403, times=None, message="Access denied."))

    async def is_parked() -> bool:
        return "batchling retry" in (await only(deployment)).error

    await wait_until(is_parked, description="the batch says what to do", within_s=WITHIN_S)
    assert not any(await deployment.results(ids))

    deployment.sandbox.faults.clear()
    batch = await only(deployment)
    await deployment.scripts.retry(batch_id=batch.batch_id, account=batch.account)
    await deployment.hurry()
    results = await deployment.answered(ids, within_s=WITHIN_S)
    assert {result.status for result in results} == {200}
    assert deployment.billed() == dict.fromkeys(ids, 1)


async def test_rows_that_the_job_lost_or_broke_are_run_again_and_no_others(
    deployment: Deployment, name: str
) -> None:
    deployment.sandbox.faults.add(LoseRows(n=1), BreakRows(n=1))
    ids = await asked(deployment, name)
    results = await deployment.answered(ids, within_s=WITHIN_S)
    # Two rows are too few for another Bedrock job: their callers get an error.
    n_again = 0 if name == "bedrock" else 2
    assert [result.status for result in results].count(200) == len(ids) - 2 + n_again
    assert sum(deployment.billed().values()) == len(ids) + n_again
