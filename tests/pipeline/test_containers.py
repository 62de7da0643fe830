"""A create that appends: it may break off between any two pieces, and all rows run once, in one place."""

from __future__ import annotations

import json

import pytest

from batchling_client.wire.states import BatchState
from batchling_worker.providers.xai import APPEND_SETTLES, PIECE_ROWS
from batchling_worker.sandbox.world.faults import (
    DropCreateAnswer,
    DropCreateRequest,
    FailCreateAnswer,
    Fault,
    RefuseCreate,
    RefuseKey,
)
from tests.deployment import Deployment
from tests.waiting import wait_until

N_ROWS = 2 * PIECE_ROWS + 50
"""Three pieces."""


@pytest.fixture
def deployment(deployment: Deployment) -> Deployment:
    """On a busy machine a lease of a second would run out in the middle, and another worker make a container too."""
    deployment.env["BATCHLING_LEASE_SECONDS"] = "10"
    return deployment


def n_containers(deployment: Deployment) -> int:
    return deployment.sandbox.ledger().calls["xai POST /batches"]


@pytest.mark.parametrize(
    "fault",
    [
        DropCreateAnswer(after=1),
        DropCreateRequest(after=1),
        FailCreateAnswer(status=500, after=2),
        RefuseCreate(status=429, after=1),
        RefuseCreate(status=503, after=2),
    ],
    ids=["answer lost", "request lost", "500 though done", "429", "503"],
)
async def test_an_append_that_goes_wrong_in_the_middle_goes_on_in_the_same_container(
    deployment: Deployment, fault: Fault
) -> None:
    deployment.sandbox.faults.add(fault)
    deployment.fork()
    ids = await deployment.ask(N_ROWS, provider="xai", linger_ms=2000)

    results = await deployment.answered(ids)
    assert {result.status for result in results} == {200}
    [batch] = await deployment.settled()
    assert (batch.n_succeeded, batch.n_requeued) == (N_ROWS, 0)
    assert n_containers(deployment) == 1
    assert deployment.billed() == dict.fromkeys(ids, 1)


@pytest.mark.parametrize("status", [400, 412])
async def test_rows_of_a_piece_that_is_refused_after_others_go_into_another_batch(
    deployment: Deployment, status: int
) -> None:
    deployment.sandbox.faults.add(RefuseCreate(status=status, after=1))
    deployment.fork()
    ids = await deployment.ask(PIECE_ROWS + 50, provider="xai", linger_ms=2000)

    async def submitted() -> bool:
        return any(batch.state is BatchState.SUBMITTED for batch in await deployment.batches())

    await wait_until(submitted, description="the batch is what its container holds")
    # For a while it is not sure that no more rows are in there.
    deployment.sandbox.clock.advance(APPEND_SETTLES.total_seconds())

    assert {result.status for result in await deployment.answered(ids)} == {200}
    first, second = await deployment.settled()
    assert (first.n_succeeded, first.n_requeued, second.n_succeeded) == (PIECE_ROWS, 50, 50)
    assert deployment.billed() == dict.fromkeys(ids, 1)


async def test_a_container_whose_id_was_never_stored_is_filled(
    deployment: Deployment,
) -> None:
    deployment.env["BATCHLING_LEASE_SECONDS"] = "0.3"
    doomed = deployment.fork(crash_at="submit.uploaded")
    ids = await deployment.ask(40, provider="xai")
    await deployment.fork_died(doomed)
    deployment.fork(crash_at="submit.uploaded")

    assert {result.status for result in await deployment.answered(ids)} == {200}
    assert n_containers(deployment) == 1
    assert deployment.billed() == dict.fromkeys(ids, 1)


async def test_a_container_that_redis_has_forgotten_half_filled_is_filled_to_the_end(
    deployment: Deployment,
) -> None:
    deployment.sandbox.faults.add(RefuseCreate(status=503, retry_after="600", after=1))
    deployment.fork()
    ids = await deployment.ask(N_ROWS, provider="xai", linger_ms=2000)

    async def half() -> bool:
        return deployment.sandbox.ledger().totals.n_batches == 1 and any(
            batch.n_stumbles for batch in await deployment.batches()
        )

    await wait_until(half, description="a piece is there, the next was refused")
    [batch] = await deployment.batches()
    assert batch.state is BatchState.SUBMITTING
    key = deployment.keys.batch(batch.batch_id)
    await deployment.redis.execute_command("HDEL", key, "input_file_id", "create_at", "account", "n_lines")

    assert {result.status for result in await deployment.answered(ids, hurried=True)} == {200}
    [batch] = await deployment.settled()
    assert (batch.n_succeeded, batch.n_requeued) == (N_ROWS, 0)
    assert n_containers(deployment) == 1
    assert deployment.billed() == dict.fromkeys(ids, 1)


async def test_callers_of_a_model_without_batches_get_an_error(deployment: Deployment) -> None:
    deployment.fork()
    ids = await deployment.ask(3, provider="xai", model="grok-4.5")
    results = await deployment.answered(ids)
    assert {(result.status, result.origin) for result in results} == {(400, "provider")}
    assert "not supported for batch" in json.loads(results[0].body)["error"]
    assert deployment.sandbox.ledger().totals.n_batches == 0


async def test_a_key_that_is_refused_with_400_parks_its_account(deployment: Deployment) -> None:
    deployment.sandbox.faults.add(
        RefuseKey(status=400, body='{"code":"bad","error":"Incorrect API key provided"}', times=None)
    )
    deployment.fork()
    ids = await deployment.ask(2, provider="xai")
    assert {result.status for result in await deployment.answered(ids)} == {401}
    assert "key_refused" in deployment.worker_logs()


async def test_rows_for_responses_are_answered_with_responses(deployment: Deployment) -> None:
    deployment.fork()
    ids = await deployment.ask(5, provider="xai", endpoint="/v1/responses")
    for result in await deployment.answered(ids):
        body = json.loads(result.body)
        assert (body["object"], body["status"]) == ("response", "completed")
        assert body["output"][0]["content"][0]["text"]
