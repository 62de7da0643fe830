"""A gateway's 429 may follow a batch that was made: it is searched for before another one is paid for."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

import pytest

from batchling_client.wire.states import BatchState
from batchling_worker import providers
from batchling_worker.sandbox.world.faults import (
    DoubleCreate,
    FailCreateAnswer,
    HideBatch,
    LagList,
    RefuseCreate,
    SlowCreate,
    StickBatch,
)
from tests.deployment import Deployment
from tests.waiting import wait_until

from .hand import Hand
from .test_rereading import asked, stepped

HIDDEN_S = 1.4
"""Longer than the pause until the first search, and shorter than the patience of these tests."""
PATIENCE_S = 1.5
FEWEST = {"bedrock": 100}
"""Requests that a batch needs, where that is more than five."""


@pytest.fixture
async def hand(deployment: Deployment) -> AsyncIterator[Hand]:
    async with Hand(deployment) as steps:
        yield steps


@pytest.mark.parametrize("name", providers.names())
@pytest.mark.parametrize("hides", [LagList, HideBatch])
async def test_a_batch_behind_a_429_that_its_list_hides_is_paid_once(
    deployment: Deployment, name: str, hides: type[LagList | HideBatch]
) -> None:
    deployment.sandbox.faults.add(
        FailCreateAnswer(status=429, message="Rate limit reached."), hides(seconds=HIDDEN_S)
    )
    # The provider hides the batch from its own create on, which a busy machine answers late.
    deployment.fork(reconcile_patience_seconds="8")
    ids = await deployment.ask(FEWEST.get(name, 5), provider=name)

    results = await deployment.answered(ids)

    assert {result.status for result in results} == {200}
    assert deployment.billed() == dict.fromkeys(ids, 1)
    assert deployment.sandbox.faults.n_struck(FailCreateAnswer) == 1


async def test_while_the_batch_is_searched_for_it_says_so_and_no_create_is_sent(
    deployment: Deployment, hand: Hand
) -> None:
    deployment.sandbox.faults.add(RefuseCreate(status=429, message="Rate limit reached.", times=None))
    begun = time.monotonic()
    batch_id, _ = await asked(deployment, 3)

    batch = await stepped(hand, batch_id, until_error="429")

    assert batch.state is BatchState.SUBMITTING
    assert "it is searched for during 2 s before it is created again" in batch.error
    while deployment.sandbox.faults.n_struck(RefuseCreate) < 2:
        await hand.step(batch_id)
    assert time.monotonic() - begun >= PATIENCE_S


async def test_a_second_batch_of_a_gateway_that_answered_is_cancelled_before_it_runs(
    deployment: Deployment, provider: str
) -> None:
    """LiteLLM's client sends a create again after a lost answer, and its second answer is all that a worker sees."""
    deployment.sandbox.faults.add(
        DoubleCreate(),
        SlowCreate(seconds=0.4),
        StickBatch(state="validating", seconds=60.0),
        StickBatch(state="validating", seconds=3.0),
    )
    deployment.fork()
    ids = await deployment.ask(5, provider=provider)

    results = await deployment.answered(ids)

    assert {result.status for result in results} == {200}
    await wait_until(
        lambda: (
            sorted(str(one["status"]) for one in deployment.sandbox.batches()) == ["cancelled", "completed"]
        ),
        description="the batch that nobody reads is cancelled",
    )
    assert deployment.billed() == dict.fromkeys(ids, 1)
