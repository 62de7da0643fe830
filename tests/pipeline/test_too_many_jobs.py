"""Bedrock limits concurrent jobs: a batch that finds no free job is created later, and no caller gets an error."""

from __future__ import annotations

import json

import pytest

from batchling_worker.sandbox.world.faults import RefuseCreate
from tests.deployment import Deployment

FULL = "ServiceQuotaExceededException"


async def test_a_batch_that_finds_all_jobs_taken_is_created_later(deployment: Deployment) -> None:
    words = "You have reached the quota of in-progress batch inference jobs for this model."
    fault = RefuseCreate(status=400, code=FULL, message=words, times=2)
    deployment.sandbox.faults.add(fault)
    deployment.fork()
    ids = await deployment.ask(100, provider="bedrock")

    results = await deployment.answered(ids)

    assert deployment.sandbox.faults.n_struck(RefuseCreate) == 2
    assert {result.status for result in results} == {200}
    [batch] = await deployment.settled()
    assert (batch.n_succeeded, batch.n_requeued) == (100, 0)
    assert await deployment.told() == deployment.billed() == dict.fromkeys(ids, 1)


@pytest.mark.parametrize(
    "words",
    [
        "The number of records exceeds the quota of records per batch inference job.",
        "The batch inference job size exceeds the quota.",
        "The input file is larger than the quota allows.",
    ],
)
async def test_callers_get_an_error_for_an_input_too_large_for_a_job(
    deployment: Deployment, words: str
) -> None:
    deployment.sandbox.faults.add(RefuseCreate(status=400, code=FULL, message=words))
    deployment.fork()
    ids = await deployment.ask(100, provider="bedrock")

    results = await deployment.answered(ids)

    assert {(result.status, result.origin) for result in results} == {(400, "provider")}
    assert words in json.dumps(json.loads(results[0].body))
    assert deployment.sandbox.ledger().totals.n_batches == 0
