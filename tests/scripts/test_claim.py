"""Claim: a batch is held by one claimer for one lease, and never forgotten."""

from __future__ import annotations

import asyncio

import pytest

from batchling_client.wire.keys import BatchId
from batchling_client.wire.states import BatchState, Verdict

from .byhand import KEEP_MS, LEASE_MS, ByHand, ids, out


async def test_two_claimers_never_hold_one_batch(byhand: ByHand) -> None:
    batches = [await byhand.sealed(ids(1))]
    await byhand.due(batches[0])

    won = await asyncio.gather(*(byhand.claims(*batches) for _ in range(20)))

    assert [len(claims) for claims in won].count(1) == 1
    assert sum(len(claims) for claims in won) == 1


async def test_a_claim_that_expired_is_due_again_under_a_higher_token(byhand: ByHand) -> None:
    batch_id = await byhand.sealed(ids(1))
    [first] = await byhand.claims(batch_id)
    assert await byhand.claims(batch_id) == []

    await byhand.due(batch_id)
    [second] = await byhand.claims(batch_id)

    assert second.token > first.token
    assert await byhand.begin(batch_id, first.token) is None
    assert await byhand.begin(batch_id, second.token) is not None


async def test_a_token_that_a_fail_over_has_forgotten_is_not_given_out_again(byhand: ByHand) -> None:
    batch_id = await byhand.sealed(ids(1))
    behind = await byhand.redis.execute_command("DUMP", byhand.keys.batch(batch_id))
    lost = [await byhand.claimed(batch_id) for _ in range(5)]
    started_ms = await byhand.now_ms()

    await byhand.redis.execute_command("RESTORE", byhand.keys.batch(batch_id), KEEP_MS, behind, "REPLACE")
    while await byhand.now_ms() <= started_ms + len(lost):
        await byhand.redis.execute_command("PING")
    token = await byhand.claimed(batch_id)

    assert token > max(lost)
    for old in lost:
        assert await byhand.begin(batch_id, old) is None


async def test_the_lease_is_counted_from_the_servers_time(byhand: ByHand) -> None:
    batch_id = await byhand.sealed(ids(1))
    before = await byhand.now_ms()
    await byhand.claims(batch_id, lease_ms=5_000_000_000)
    assert await byhand.next_look(batch_id) == pytest.approx(before + 5_000_000_000, abs=2000)


async def test_a_batch_that_is_not_due_is_left_alone(byhand: ByHand) -> None:
    batch_id = await byhand.at_provider(ids(1))
    await byhand.progress(batch_id, await byhand.claimed(batch_id), delay_s=60)
    before = await byhand.everything()
    assert await byhand.claims(batch_id) == []
    assert await byhand.everything() == before


@pytest.mark.parametrize("state", [state for state in BatchState if state.terminal])
async def test_terminal_batches_are_never_due(byhand: ByHand, state: BatchState) -> None:
    batch_id = await byhand.in_state(state, ids(1))
    assert await byhand.next_look(batch_id) is None
    assert await byhand.claims(batch_id) == []


async def test_a_batch_whose_record_is_gone_leaves_the_schedule(byhand: ByHand) -> None:
    ghost = BatchId("b-gone")
    await byhand.redis.zadd(byhand.keys.schedule, {ghost: 0})
    assert await byhand.claims(ghost) == []
    assert await byhand.next_look(ghost) is None
    assert await byhand.fields(ghost) == {}


async def test_claims_that_nobody_begins_are_counted_until_one_does(byhand: ByHand) -> None:
    batch_id = await byhand.sealed(ids(1))
    missed = []
    for _ in range(3):
        await byhand.due(batch_id)
        [claim] = await byhand.claims(batch_id)
        missed.append(claim.n_missed)
    await byhand.begin(batch_id, claim.token)
    await byhand.due(batch_id)
    [after] = await byhand.claims(batch_id)
    assert (missed, after.n_missed) == ([1, 2, 3], 1)


async def test_a_claim_tells_whether_the_results_are_collected(byhand: ByHand) -> None:
    batch_id = await byhand.over(ids(1))
    [before] = await byhand.claims(batch_id)
    await byhand.scripts.collected(batch_id=batch_id, token=before.token)
    [after] = await byhand.claims(batch_id)
    assert (before.state, before.collected) == (BatchState.ENDED, False)
    assert (after.state, after.collected) == (BatchState.ENDED, True)


async def test_extend_keeps_a_batch_from_other_claimers(byhand: ByHand) -> None:
    batch_id = await byhand.sealed(ids(1))
    token = await byhand.claimed(batch_id)
    await byhand.due(batch_id)
    assert await byhand.scripts.extend(batch_id=batch_id, token=token, lease_ms=LEASE_MS) is Verdict.OK
    assert await byhand.claims(batch_id) == []


async def test_a_late_extend_does_not_put_a_settled_batch_back_on_the_schedule(byhand: ByHand) -> None:
    [one] = ids(1)
    batch_id = await byhand.over([one])
    token = await byhand.claimed(batch_id)
    await byhand.deliver(batch_id, token, [out(one)])
    await byhand.settle(batch_id, token)
    assert await byhand.scripts.extend(batch_id=batch_id, token=token, lease_ms=1) is Verdict.STALE
    assert await byhand.next_look(batch_id) is None
