"""Seal: a batch closes once, for ever, and the lane is free for the next."""

from __future__ import annotations

import asyncio

from batchling_client.wire.ids import new_batch_id
from batchling_client.wire.states import BatchState, Verdict

from .byhand import ByHand, ids, row


async def test_a_seal_frees_the_lane_and_makes_the_batch_due(byhand: ByHand) -> None:
    batch_id = await byhand.opened(ids(2))
    assert await byhand.seal(batch_id, await byhand.claimed(batch_id)) is Verdict.OK

    assert (await byhand.batch(batch_id)).state is BatchState.SEALED
    [claim] = await byhand.claims(batch_id)
    assert (claim.state, claim.n_missed) == (BatchState.SEALED, 1)
    other = await byhand.opened(ids(1))
    assert other != batch_id


async def test_two_seals_at_once_close_one_batch_once(byhand: ByHand) -> None:
    batch_id = await byhand.opened(ids(1))
    token = await byhand.claimed(batch_id)
    verdicts = await asyncio.gather(*(byhand.seal(batch_id, token) for _ in range(5)))
    assert sorted(verdicts) == [Verdict.OK] + [Verdict.STALE] * 4


async def test_a_seal_does_not_close_the_lanes_next_batch(byhand: ByHand) -> None:
    """A batch of which the lane no longer knows is sealed all the same, and the new open one stays open."""
    batch_id = await byhand.opened(ids(1))
    await byhand.redis.execute_command("UNLINK", byhand.keys.lane(byhand.lane_id))
    newer = await byhand.opened(ids(1))

    assert await byhand.seal(batch_id, await byhand.claimed(batch_id)) is Verdict.OK

    reply = await byhand.enqueue([row(one) for one in ids(1)], into=newer)
    assert reply.verdict is Verdict.OK


async def test_a_request_that_comes_while_the_batch_is_claimed_for_sealing_is_not_lost(
    byhand: ByHand,
) -> None:
    batch_id = await byhand.opened(ids(1))
    token = await byhand.claimed(batch_id)
    late = ids(1)

    reply = await byhand.enqueue([row(one) for one in late], into=batch_id)
    assert reply.verdict is Verdict.OK
    assert await byhand.seal(batch_id, token) is Verdict.OK

    assert (await byhand.ids_of(batch_id))[-1:] == late
    assert (await byhand.enqueue([row(one) for one in ids(1)], into=batch_id)).verdict is Verdict.USED
    assert (await byhand.enqueue([row(one) for one in ids(1)], into=new_batch_id())).verdict is Verdict.OK
