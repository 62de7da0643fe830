"""Whatever ended a batch here: as long as its provider keeps it, `batchling retry` reads it again, and pays nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from batchling_client.wire.keys import BatchId, Mailbox, RequestId
from batchling_client.wire.states import BatchState, Verdict
from batchling_worker.sandbox.world.faults import RefuseDownload, RefuseKey
from tests.deployment import Deployment

from .hand import Hand
from .test_rereading import asked, one_step, retried, stepped, to_its_end

LONG_AGO = 1_000_000
ENDS = {"cancelled": 499, "given up for its key": 401, "given up for its results": 502}


@pytest.fixture
async def hand(deployment: Deployment) -> AsyncIterator[Hand]:
    async with Hand(deployment) as steps:
        yield steps


async def thrown_away(
    deployment: Deployment, hand: Hand, end: str, n: int = 5
) -> tuple[BatchId, list[RequestId]]:
    """A batch that is over here, with errors for its callers, while its provider has run every request of it."""
    batch_id, ids = await asked(deployment, n)
    if end == "given up for its results":
        deployment.sandbox.faults.add(RefuseDownload(status=500, times=None))
        await stepped(hand, batch_id, until_error="Nothing is run again")
    else:
        await hand.bring(batch_id, BatchState.ENDED)
        deployment.sandbox.faults.add(RefuseKey(status=401, times=None))
        await hand.step(batch_id)
    batch = await hand.batch(batch_id)
    if end == "cancelled":
        await deployment.scripts.cancel(
            batch_id=batch_id, lane_id=batch.lane_id, ending=b"{}", error="Given up by hand."
        )
    else:
        times = ("submitted_at", LONG_AGO, "created_at", LONG_AGO)
        await deployment.redis.execute_command("HSET", deployment.keys.batch(batch_id), *times)
    await to_its_end(hand, batch_id)
    assert {result.status for result in await deployment.answered(ids)} == {ENDS[end]}
    times = (
        "submitted_at",
        int(batch.updated_at.timestamp() * 1000),
        "created_at",
        int(batch.updated_at.timestamp() * 1000),
    )
    await deployment.redis.execute_command("HSET", deployment.keys.batch(batch_id), *times)
    deployment.sandbox.faults.clear()
    return batch_id, ids


@pytest.mark.parametrize("end", ENDS)
async def test_answers_that_the_provider_still_has_replace_the_errors(
    deployment: Deployment, hand: Hand, end: str
) -> None:
    batch_id, ids = await thrown_away(deployment, hand, end)

    assert (await retried(deployment, batch_id)).batch_ids == (batch_id,)
    batch = await to_its_end(hand, batch_id)

    assert {result.status for result in await deployment.answered(ids)} == {200}
    assert (batch.state, batch.n_succeeded, batch.n_failed) == (BatchState.SETTLED, 5, 0)
    assert len(await deployment.batches()) == 1
    assert deployment.billed() == dict.fromkeys(ids, 1)


async def withdrawn(deployment: Deployment, ids: list[RequestId]) -> None:
    """Everybody who waits for these requests gives up."""
    for request_id in ids:
        place = await deployment.redis.execute_command("GET", deployment.keys.request(request_id))
        owner, _, waiting = place.decode().split("|")
        verdict = await deployment.scripts.withdraw(
            request_id=request_id, batch_id=BatchId(owner), mailbox=Mailbox(waiting.partition(":")[0])
        )
        assert verdict is Verdict.OK


@pytest.mark.parametrize("given_up", ["before the first look", "after the first look", "not at all"])
async def test_asked_again_before_the_retry_and_not_sent_yet_a_request_gets_the_answer_that_is_paid_for(
    deployment: Deployment, hand: Hand, given_up: str
) -> None:
    batch_id, ids = await thrown_away(deployment, hand, "cancelled", n=3)
    await deployment.ask(3, again=ids, linger_ms=60_000)
    [other] = [batch.batch_id for batch in await deployment.batches() if batch.batch_id != batch_id]
    if given_up == "before the first look":
        await withdrawn(deployment, ids)

    await retried(deployment, batch_id)
    await one_step(hand, batch_id)
    if given_up == "after the first look":
        await withdrawn(deployment, ids)
    batch = await to_its_end(hand, batch_id)
    await to_its_end(hand, other)
    await deployment.ask(3, again=ids)

    assert {result.status for result in await deployment.answered(ids)} == {200}
    assert (batch.n_succeeded, batch.n_failed) == (3, 0)
    assert len(await deployment.batches()) == 2, "nothing is queued anew"
    assert deployment.billed() == dict.fromkeys(ids, 1)


async def test_what_a_reopened_batch_does_not_hold_is_an_error_again_and_never_run_again(
    deployment: Deployment, hand: Hand
) -> None:
    batch_id, ids = await thrown_away(deployment, hand, "cancelled")
    deployment.sandbox.faults.add(RefuseDownload(status=500, times=None))
    await retried(deployment, batch_id)
    await stepped(hand, batch_id, until_error="Nothing is run again")

    batch = await hand.batch(batch_id)
    await deployment.scripts.cancel(batch_id=batch_id, lane_id=batch.lane_id, ending=b"{}", error="No more.")
    await to_its_end(hand, batch_id)

    assert {result.status for result in await deployment.answered(ids)} == {499}
    assert len(await deployment.batches()) == 1
    deployment.sandbox.faults.clear()
    await retried(deployment, batch_id)
    await to_its_end(hand, batch_id)
    assert {result.status for result in await deployment.answered(ids)} == {200}
    assert deployment.billed() == dict.fromkeys(ids, 1)


async def test_a_reopened_batch_that_its_provider_does_not_know_is_lost_at_once(
    deployment: Deployment, hand: Hand
) -> None:
    batch_id, ids = await thrown_away(deployment, hand, "cancelled")
    deployment.sandbox.reset()
    await retried(deployment, batch_id)

    batch = await to_its_end(hand, batch_id)

    assert batch.state is BatchState.FAILED
    assert {result.status for result in await deployment.answered(ids)} == {502}
    assert len(await deployment.batches()) == 1


@pytest.mark.parametrize("point", ["poll.adopting", "poll.adopted", "collect.chunk", "settle.walked"])
async def test_a_worker_that_dies_over_a_reopened_batch_loses_nothing(
    deployment: Deployment, hand: Hand, point: str
) -> None:
    batch_id, ids = await thrown_away(deployment, hand, "cancelled", n=200)
    await retried(deployment, batch_id)
    hand.torn_at = point
    for _ in range(6):
        await one_step(hand, batch_id)
    assert not (await hand.batch(batch_id)).state.terminal
    hand.torn_at = ""

    batch = await to_its_end(hand, batch_id)

    assert {result.status for result in await deployment.answered(ids)} == {200}
    assert (batch.n_succeeded, batch.n_failed) == (200, 0)
    assert deployment.billed() == dict.fromkeys(ids, 1)


async def test_a_batch_with_nothing_left_to_read_is_not_reopened(deployment: Deployment, hand: Hand) -> None:
    batch_id, _ = await asked(deployment, 2)
    await to_its_end(hand, batch_id)

    assert (await retried(deployment, batch_id)).too_late == (batch_id,)
