"""Forget: a request is dropped only where nobody will ever answer it."""

from __future__ import annotations

import asyncio

import pytest

from batchling_client.wire.ids import new_batch_id
from batchling_client.wire.keys import BatchId, RequestId
from batchling_client.wire.states import BatchState, Placement, Verdict

from .byhand import KEEP_MS, ByHand, ids, out, row


async def forget(byhand: ByHand, one: RequestId, batch_id: BatchId) -> Verdict:
    return await byhand.scripts.forget(request_id=one, batch_id=batch_id)


@pytest.mark.parametrize("state", [state for state in BatchState if not state.terminal])
async def test_what_a_living_batch_may_yet_answer_is_kept(byhand: ByHand, state: BatchState) -> None:
    [one] = ids(1)
    batch_id = await byhand.in_state(state, [one])
    before = await byhand.everything()
    assert await forget(byhand, one, batch_id) is Verdict.LIVES
    assert await byhand.everything() == before


async def stranded(byhand: ByHand) -> tuple[RequestId, BatchId]:
    """A request that its batch has left behind, as one whose row is damaged is."""
    [one] = ids(1)
    batch_id = await byhand.over([one])
    await byhand.settle(batch_id, await byhand.claimed(batch_id))
    return one, batch_id


async def test_what_a_batch_left_behind_may_be_asked_for_again(byhand: ByHand) -> None:
    one, batch_id = await stranded(byhand)
    joined = await byhand.enqueue([row(one)], into=new_batch_id())
    assert joined.placements == (Placement.JOINED,)

    assert await forget(byhand, one, batch_id) is Verdict.OK

    assert await byhand.place(one) is None
    assert (await byhand.enqueue([row(one)], into=new_batch_id())).placements == (Placement.QUEUED,)


async def test_two_who_forget_at_once_drop_once(byhand: ByHand) -> None:
    one, batch_id = await stranded(byhand)
    verdicts = await asyncio.gather(*(forget(byhand, one, batch_id) for _ in range(5)))
    assert sorted(verdicts) == [Verdict.GONE] * 4 + [Verdict.OK]


async def test_a_request_that_has_moved_or_is_answered_is_left_alone(byhand: ByHand) -> None:
    [one, other] = ids(2)
    source = await byhand.over([one, other])
    token = await byhand.claimed(source)
    await byhand.requeue(source, token, [row(one, attempt=2)])
    await byhand.deliver(source, token, [out(other)])
    await byhand.settle(source, token)
    before = await byhand.everything()

    assert await forget(byhand, one, source) is Verdict.GONE
    assert await forget(byhand, other, source) is Verdict.GONE
    assert await byhand.everything() == before


async def test_of_a_batch_that_is_gone_it_may_be_asked_for_again(byhand: ByHand) -> None:
    [one] = ids(1)
    batch_id = await byhand.opened([one])
    await byhand.redis.execute_command("UNLINK", byhand.keys.batch(batch_id))
    assert await forget(byhand, one, batch_id) is Verdict.OK


@pytest.mark.parametrize("damage", [("HSET", "state", "paused"), ("HSET", "state", ""), ("HDEL", "state")])
async def test_a_state_that_is_not_known_is_a_workers_to_judge(
    byhand: ByHand, damage: tuple[str, ...]
) -> None:
    [one] = ids(1)
    batch_id = await byhand.at_provider([one])
    command, *words = damage
    await byhand.redis.execute_command(command, byhand.keys.batch(batch_id), *words)
    assert await forget(byhand, one, batch_id) is Verdict.LIVES
    assert await byhand.place(one) is not None


async def test_of_a_batch_that_was_given_up_it_may_have_been_paid_for(byhand: ByHand) -> None:
    [one] = ids(1)
    batch_id = await byhand.at_provider([one])
    token = await byhand.claimed(batch_id)
    await byhand.scripts.give_up(batch_id=batch_id, token=token, error="damaged", keep_ms=KEEP_MS)
    assert await forget(byhand, one, batch_id) is Verdict.UNREADABLE
    assert await byhand.place(one) is None


async def test_where_something_else_stands_for_the_batch_it_may_have_been_paid_for(byhand: ByHand) -> None:
    [one] = ids(1)
    batch_id = await byhand.at_provider([one])
    await byhand.redis.execute_command("SET", byhand.keys.batch(batch_id), "foreign", "EX", 3600)
    assert await forget(byhand, one, batch_id) is Verdict.UNREADABLE
    await byhand.redis.execute_command("UNLINK", byhand.keys.batch(batch_id))
