"""A batch that may be paid for is never given up because a key is refused: it waits, says why, and continues."""

from __future__ import annotations

from collections.abc import AsyncIterator
from unittest.mock import AsyncMock

import pytest

from batchling_client.operate import steering
from batchling_client.views.inspection import Inspection
from batchling_client.wire.keys import BatchId, RequestId
from batchling_client.wire.records.batch import Batch
from batchling_client.wire.states import BatchState
from batchling_worker.provider import NotFound
from batchling_worker.sandbox.world.faults import RefuseKey, RefusePoll
from tests.deployment import Deployment

from .hand import Hand
from .test_rereading import asked, to_its_end

LONG_AGO = 1_000_000
PAID = [BatchState.SUBMITTING, BatchState.SUBMITTED, BatchState.ENDED]


@pytest.fixture
async def hand(deployment: Deployment) -> AsyncIterator[Hand]:
    async with Hand(deployment) as steps:
        yield steps


async def refused(
    deployment: Deployment, hand: Hand, state: BatchState, status: int
) -> tuple[BatchId, list[RequestId]]:
    """A batch that has been paid for, in this state, and a key that is refused from now on and was for very long."""
    batch_id, ids = await asked(deployment, 5)
    await hand.bring(batch_id, state)
    hand.torn_at = ""
    message = "Incorrect API key provided."
    deployment.sandbox.faults.add(RefuseKey(status=status, times=None, message=message))
    denied = ("n_denied", 50, "denied_since", LONG_AGO)
    await deployment.redis.execute_command("HSET", deployment.keys.batch(batch_id), *denied)
    return batch_id, ids


async def several_steps(hand: Hand, batch_id: BatchId) -> Batch:
    for _ in range(4):
        await hand.step(batch_id)
    return await hand.batch(batch_id)


@pytest.mark.parametrize(
    ("status", "message", "words"),
    [
        (400, "This id is malformed.", "waits until groq answers otherwise: `batchling retry"),
        (407, "Proxy Authentication Required", "waits until groq answers otherwise: `batchling retry"),
        (402, "Insufficient Balance", "waits until the account can pay: `batchling retry"),
    ],
)
async def test_what_a_paid_batch_waits_for_is_named(
    deployment: Deployment, hand: Hand, status: int, message: str, words: str
) -> None:
    batch_id, _ = await asked(deployment, 5)
    await hand.bring(batch_id, BatchState.SUBMITTED)
    deployment.sandbox.faults.add(RefusePoll(status=status, times=None, message=message))
    error = (await several_steps(hand, batch_id)).error
    assert message in error
    assert words in error


async def test_a_batch_is_not_lost_that_its_list_shows_and_its_looks_do_not(
    deployment: Deployment, hand: Hand, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = await deployment.ask(5, provider="anthropic")
    [batch] = await deployment.batches()
    await hand.bring(batch.batch_id, BatchState.SUBMITTED)
    unknown = AsyncMock(return_value=NotFound())
    with monkeypatch.context() as patched:
        patched.setattr("batchling_worker.dialects.inline_batches.InlineBatches._look_at", unknown)
        denied = ("n_denied", 50, "denied_since", LONG_AGO)
        await deployment.redis.execute_command("HSET", deployment.keys.batch(batch.batch_id), *denied)
        await hand.step(batch.batch_id)
        waiting = await hand.batch(batch.batch_id)
        assert waiting.state is BatchState.SUBMITTED
        assert f"may be {waiting.label}" in waiting.error
    ended = await to_its_end(hand, batch.batch_id)
    assert ended.n_succeeded == 5
    assert deployment.billed() == dict.fromkeys(ids, 1)


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize("state", PAID)
async def test_a_paid_batch_waits_for_its_key_and_goes_on_at_a_retry(
    deployment: Deployment, hand: Hand, state: BatchState, status: int
) -> None:
    batch_id, ids = await refused(deployment, hand, state, status)

    parked = await several_steps(hand, batch_id)

    assert parked.state is state
    assert "Incorrect API key provided" in parked.error
    assert f"waits until the key is accepted: put the key right (`batchling retry {batch_id}`" in parked.error
    assert await deployment.results(ids) == [None] * 5
    assert len(await hand.store.redis.lrange(deployment.keys.rows(batch_id), 0, -1)) == 5
    deployment.sandbox.faults.clear()
    inspection = Inspection(deployment.redis, deployment.keys)
    await steering.retry(inspection, deployment.scripts, batch_id)
    batch = await to_its_end(hand, batch_id)
    assert (batch.n_succeeded, batch.error) == (5, "")
    assert deployment.billed() == dict.fromkeys(ids, 1)


@pytest.mark.parametrize("state", PAID)
async def test_a_person_may_give_up_a_batch_whose_key_is_refused(
    deployment: Deployment, hand: Hand, state: BatchState
) -> None:
    batch_id, ids = await refused(deployment, hand, state, 401)
    parked = await several_steps(hand, batch_id)

    await deployment.scripts.cancel(
        batch_id=batch_id, lane_id=parked.lane_id, ending=b"{}", error="Given up by hand."
    )
    batch = await to_its_end(hand, batch_id)

    assert batch.state is BatchState.CANCELLED
    assert [result.status for result in await deployment.answered(ids)] == [499] * 5


@pytest.mark.parametrize("state", PAID)
async def test_it_is_given_up_when_window_and_retention_are_over(
    deployment: Deployment, hand: Hand, state: BatchState
) -> None:
    batch_id, ids = await refused(deployment, hand, state, 401)
    times = ("submitted_at", LONG_AGO, "create_at", LONG_AGO, "created_at", LONG_AGO)
    await deployment.redis.execute_command("HSET", deployment.keys.batch(batch_id), *times)

    batch = await to_its_end(hand, batch_id)

    assert batch.state is BatchState.FAILED
    results = await deployment.answered(ids)
    assert {result.status for result in results} == {401}
    assert b"Incorrect API key provided" in results[0].body
