"""Enqueued tokens: a full quota is waited for, its limit is learned from refusals, and nobody gets an error for it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from batchling_client.views.inspection import Inspection
from batchling_client.wire.keys import RequestId
from batchling_client.wire.records.batch import Batch
from batchling_client.wire.states import BatchState, Outcome
from batchling_worker.sandbox import Limits
from batchling_worker.sandbox.world.faults import FailBatch, StickBatch
from tests.deployment import MODEL, SLOW_MODEL, Deployment
from tests.waiting import wait_until

PROMPT = "x" * 400
ROW_TOKENS = 150
"""What a row with this prompt counts at the sandbox, which counts its line; by our own measure a fifth less."""
ROWS = 5

MODES = {
    "validation, with a figure": Limits(),
    "validation, without a figure": Limits(quota_named=False),
    "create, without a figure": Limits(quota_at_create=True, quota_named=False),
}


def limited(deployment: Deployment, n_rows: int, mode: str = "validation, with a figure") -> None:
    """The sandbox takes so many rows of one key and model at a time."""
    given = MODES[mode]
    deployment.sandbox.limits = Limits(
        max_enqueued_tokens=n_rows * ROW_TOKENS,
        quota_at_create=given.quota_at_create,
        quota_named=given.quota_named,
    )


async def ask(deployment: Deployment, n: int, *, rows: int = ROWS, model: str = MODEL) -> list[RequestId]:
    return await deployment.ask(n, prompts=[PROMPT] * n, rows=rows, model=model)


def n_refused(deployment: Deployment) -> int:
    """Batches that were refused for the quota, at their validation or at their create."""
    batches, page = deployment.sandbox.batches(), deployment.sandbox.ledger()
    failed = sum("token_limit_exceeded" in json.dumps(batch["errors"]) for batch in batches)
    return failed + page.calls.get("groq POST /batches", 0) - len(page.batches)


async def lane_of(deployment: Deployment, model: str = MODEL) -> dict[str, Any]:
    lanes = await Inspection(deployment.redis, deployment.keys).lanes(10)
    return next(lane.as_json() for lane in lanes if lane.spec.model == model)


async def held(deployment: Deployment, model: str = MODEL) -> Batch:
    """The first batch that says that it waits for room."""
    found: list[Batch] = []

    async def one_waits() -> bool:
        found[:] = [
            batch
            for batch in await deployment.batches()
            if batch.spec.model == model and batch.error.startswith(("held", "waiting for token quota"))
        ]
        return bool(found)

    await wait_until(one_waits, description=f"a batch of {model} waits for room", within_s=30)
    return found[0]


@pytest.mark.parametrize("mode", MODES)
async def test_more_than_the_quota_takes_is_answered_in_full_with_few_refusals(
    deployment: Deployment, mode: str
) -> None:
    limited(deployment, 3 * ROWS, mode)
    ids = await ask(deployment, 8 * ROWS)
    deployment.worker()

    results = await deployment.answered(ids, within_s=50)

    assert {result.status for result in results} == {200}
    await deployment.settled()
    assert deployment.billed() == dict.fromkeys(ids, 1)
    assert n_refused(deployment) <= 8


async def test_once_the_limit_is_known_hardly_anything_is_refused(deployment: Deployment) -> None:
    limited(deployment, 3 * ROWS)
    deployment.sandbox.faults.add(StickBatch(state="in_progress", seconds=3600, done=0.0, times=None))
    deployment.worker()
    first = await ask(deployment, 5 * ROWS)
    # The fifth too, unless the limit is known before it is sent.
    await wait_until(
        lambda: n_refused(deployment) >= 1, description="the fourth is refused at its validation", within_s=30
    )
    deployment.sandbox.faults.clear()
    deployment.sandbox.clock.advance(3600)
    await deployment.answered(first)
    await deployment.settled()
    before = n_refused(deployment)
    quota = (await lane_of(deployment))["quota"]
    most = 0

    async def all_answered() -> bool:
        nonlocal most
        most = max(most, (await lane_of(deployment))["quota"]["tokens_in_flight"])
        return all(await deployment.results(ids))

    ids = await ask(deployment, 12 * ROWS)
    await wait_until(all_answered, description="the second wave is answered", within_s=50)

    assert 0 < most <= quota["limit_tokens"]
    assert n_refused(deployment) - before <= 1, "our measure may still be a little off"


async def test_two_models_of_one_key_do_not_hold_each_other(deployment: Deployment) -> None:
    limited(deployment, ROWS)
    deployment.sandbox.faults.add(StickBatch(model=MODEL, state="in_progress", seconds=3600, done=0.0))
    deployment.worker()
    first = await ask(deployment, ROWS)
    await deployment.room_is_taken()
    first += await ask(deployment, ROWS)
    waiting = await held(deployment)

    others = await ask(deployment, ROWS, model=SLOW_MODEL)
    results = await deployment.answered(others)

    assert {result.status for result in results} == {200}
    assert waiting.state is BatchState.SEALED
    assert "another batch uses" in waiting.error
    assert "token quota" in waiting.error
    assert sum(result is not None for result in await deployment.results(first)) == 0
    assert (await lane_of(deployment))["quota"]["n_batches_in_flight"] == 1
    deployment.sandbox.clock.advance(3600)
    assert {result.status for result in await deployment.answered(first)} == {200}


async def test_a_batch_larger_than_the_limit_is_split_before_anybody_is_asked_again(
    deployment: Deployment,
) -> None:
    limited(deployment, 2 * ROWS)
    deployment.worker()
    first = await ask(deployment, 6 * ROWS, rows=1000)
    await deployment.answered(first)
    await deployment.settled()
    n_calls = n_refused(deployment)

    second = await ask(deployment, 6 * ROWS, rows=1000)
    results = await deployment.answered(second)

    assert {result.status for result in results} == {200}
    batches = await deployment.settled()
    split = [batch for batch in batches if batch.outcome is Outcome.SPLIT]
    assert split[-1].n_requests == 6 * ROWS
    assert (split[-1].state, split[-1].provider_batch_id) == (BatchState.SETTLED, None)
    assert split[-1].error.startswith("split: about")
    assert deployment.billed() == dict.fromkeys(first + second, 1)
    assert n_refused(deployment) - n_calls <= 1


@pytest.mark.parametrize("mode", ["validation, with a figure", "create, without a figure"])
async def test_a_row_that_never_fits_fails_with_the_providers_words(
    deployment: Deployment, mode: str
) -> None:
    limited(deployment, 2, mode)
    deployment.worker()
    [long] = await deployment.ask(1, prompts=["y" * 4000])

    [result] = await deployment.answered([long])

    assert result.status in (400, 429)
    error = json.loads(result.body)["error"]
    assert error["code"] == "token_limit_exceeded"
    assert "Enqueued token limit reached" in error["message"]
    assert deployment.billed() == {}
    after = await ask(deployment, 1)
    assert [one.status for one in await deployment.answered(after)] == [200], "and holds nobody up"


async def test_one_row_that_own_batches_leave_no_room_for_waits(deployment: Deployment) -> None:
    limited(deployment, 2, "validation, without a figure")
    deployment.sandbox.faults.add(StickBatch(state="in_progress", seconds=3600, done=0.0))
    deployment.worker()
    first = await ask(deployment, 2)
    await deployment.room_is_taken()
    row = await ask(deployment, 1)
    await held(deployment)
    deployment.sandbox.clock.advance(3600)

    results = await deployment.answered(first + row)

    assert {result.status for result in results} == {200}
    assert n_refused(deployment) == 1


async def test_refusals_cost_no_attempt(deployment: Deployment) -> None:
    """Somebody else's batches fill the quota: more refusals in a row than a request has attempts."""
    deployment.sandbox.faults.add(
        FailBatch(message="Enqueued token limit reached. Limit: 90,000 enqueued tokens.", times=4)
    )
    deployment.worker()
    ids = await ask(deployment, 2)

    results = await deployment.answered(ids, within_s=50)

    assert {result.status for result in results} == {200}
    assert [batch.n_requests for batch in await deployment.settled()] == [2] * 5
