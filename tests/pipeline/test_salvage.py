"""Never lost: whatever the result files hold or lack, every caller gets an answer or the provider's reason."""

from __future__ import annotations

import json

import pytest

from batchling_client.wire.states import BatchState
from batchling_worker.sandbox.faults import (
    BlankFileIds,
    BreakRows,
    EmptyFiles,
    ExpireBatch,
    FailBatch,
    FailRows,
    Fault,
    HideOutput,
    LoseRows,
    RepeatRows,
    StrayRows,
    ZeroRows,
)
from tests.deployment import Deployment

RECOVERED: dict[str, tuple[Fault, int]] = {
    "rows missing from both files": (LoseRows(n=7), 7),
    "broken result lines": (BreakRows(n=5), 5),
    "rows with status_code 0": (ZeroRows(n=4), 4),
    "rows failed with 500": (FailRows(n=6, status=500), 6),
    "rows failed with 429": (FailRows(n=6, status=429), 6),
    "half of the batch expired": (ExpireBatch(done=0.5), 20),
    "duplicated rows": (RepeatRows(n=5), 0),
    "rows nobody asked for": (StrayRows(n=5), 0),
    "blank file ids": (BlankFileIds(), 0),
    "empty files": (EmptyFiles(), 0),
    "output hidden at first": (HideOutput(seconds=0.5), 0),
}


@pytest.mark.parametrize("damage", RECOVERED)
async def test_damaged_results_are_salvaged_and_only_the_rest_is_sent_again(
    deployment: Deployment, damage: str
) -> None:
    fault, n_again = RECOVERED[damage]
    deployment.sandbox.faults.add(fault)
    deployment.worker()
    ids = await deployment.ask(40)

    results = await deployment.answered(ids)

    assert {result.status for result in results} == {200}
    batches = await deployment.settled()
    assert [batch.n_requests for batch in batches] == ([40, n_again] if n_again else [40])
    assert sum(batch.n_succeeded for batch in batches) == 40


async def test_a_failed_row_comes_back_as_it_is_and_is_not_sent_again(deployment: Deployment) -> None:
    deployment.worker()
    ids = await deployment.ask(3, prompts=["fine", "fault:400", "fine"])

    results = await deployment.answered(ids)

    assert [result.status for result in results] == [200, 400, 200]
    assert "error" in json.loads(results[1].body)
    [batch] = await deployment.settled()
    assert (batch.n_succeeded, batch.n_failed, batch.state) == (2, 1, BatchState.SETTLED)


async def test_a_row_that_fails_three_times_is_answered_with_its_last_error(deployment: Deployment) -> None:
    deployment.sandbox.faults.add(FailRows(n=1, status=503, times=3))
    deployment.worker()
    ids = await deployment.ask(5)

    results = await deployment.answered(ids)

    assert sorted(result.status for result in results) == [200, 200, 200, 200, 503]
    batches = await deployment.settled()
    assert [batch.n_requests for batch in batches] == [5, 1, 1]


async def test_a_batch_that_fails_as_a_whole_tells_every_caller_why(deployment: Deployment) -> None:
    deployment.sandbox.faults.add(FailBatch(code="model_not_found", message="no such model here", line=1))
    deployment.worker()
    ids = await deployment.ask(12)

    results = await deployment.answered(ids)

    assert {result.origin for result in results} == {"batch_failed"}
    assert {json.loads(result.body)["error"]["message"] for result in results} == {"no such model here"}
    [batch] = await deployment.settled()
    assert batch.state is BatchState.FAILED
    assert batch.error == "no such model here"


async def test_a_named_bad_row_fails_alone_and_the_rest_goes_on(deployment: Deployment) -> None:
    deployment.sandbox.faults.add(FailBatch(code="invalid_json_line", message="line 3 is no JSON", line=3))
    deployment.worker()
    ids = await deployment.ask(6)

    results = await deployment.answered(ids)

    assert [result.status for result in results] == [200, 200, 400, 200, 200, 200]
    batches = await deployment.settled()
    assert [batch.n_requests for batch in batches] == [6, 5]


async def test_a_torn_off_settle_refuses_the_guilty_row_and_no_other(deployment: Deployment) -> None:
    deployment.sandbox.faults.add(
        FailBatch(code="invalid_json_line", message="line 200 is no JSON", line=200)
    )
    doomed = deployment.worker(crash_at="settle.chunk")
    ids = await deployment.ask(300)
    await deployment.died(doomed)
    deployment.worker()

    results = await deployment.answered(ids)

    assert [n for n, result in enumerate(results, start=1) if result.status != 200] == [200]
    await deployment.settled()
    assert set(deployment.billed()) == set(ids) - {ids[199]}


async def test_a_damaged_row_is_told_and_the_rest_goes_on(deployment: Deployment) -> None:
    ids = await deployment.ask(3, prompts=["a" * 3000, "b" * 3000, "c" * 3000], linger_ms=60_000)
    [batch] = await deployment.batches()
    rows = deployment.keys.rows(batch.batch_id)
    packed = await deployment.redis.execute_command("LINDEX", rows, 1)
    await deployment.redis.execute_command("LSET", rows, 1, packed[:-8] + b"\0" * 8)
    await deployment.redis.execute_command("ZADD", deployment.keys.schedule, 0, batch.batch_id)
    deployment.worker()

    results = await deployment.answered(ids)

    assert [(result.status, result.origin) for result in results] == [
        (200, "provider"),
        (400, "batch_row_corrupt"),
        (200, "provider"),
    ]


async def test_a_cancelled_batch_tells_its_callers(deployment: Deployment) -> None:
    ids = await deployment.ask(4, linger_ms=60_000)
    [batch] = await deployment.batches()
    verdict = await deployment.scripts.cancel(
        batch_id=batch.batch_id, lane_id=batch.lane_id, ending=b"{}", error="cancelled by a person"
    )
    deployment.worker()

    results = await deployment.answered(ids)

    assert verdict == "OK"
    assert {result.origin for result in results} == {"batch_cancelled"}
    assert {json.loads(result.body)["error"]["message"] for result in results} == {"cancelled by a person"}
    [batch] = await deployment.settled()
    assert batch.state is BatchState.CANCELLED
    assert deployment.billed() == {}
