"""Admit and teach: the sum of own tokens in flight stays under the learned limit, even if a batch never signs off."""

from __future__ import annotations

import asyncio
import random

import pytest

from batchling_client.wire.account_scripts import AccountScripts, Admission
from batchling_client.wire.keys import BatchId
from batchling_client.wire.records.account import Quota
from batchling_client.wire.states import IN_FLIGHT_STATES, BatchState, Verdict
from batchling_worker.account_store import AccountStore
from batchling_worker.decisions import quota

from .byhand import KEEP_MS, ByHand, ids, out

QUOTA = "q1"
TRUSTED_MS = 3_600_000


async def quota_of(byhand: ByHand) -> Quota:
    return await AccountStore(byhand.redis, byhand.keys).quota_of(QUOTA)


async def admit(byhand: ByHand, batch_id: BatchId, token: int, tokens: int, *, rows: int = 2) -> Admission:
    return await AccountScripts(byhand.redis, byhand.keys).admit(
        quota_id=QUOTA,
        batch_id=batch_id,
        token=token,
        lane_id=byhand.lane_id,
        tokens=tokens,
        divisible=rows > 1,
        account="a1",
        turn_ms=60_000,
        step_ms=60_000,
        keep_ms=KEEP_MS,
        others=list((await quota_of(byhand)).in_flight),
    )


async def asked(byhand: ByHand, batch_id: BatchId, tokens: int, *, rows: int = 2) -> Admission:
    """A worker claims the batch and asks for room."""
    return await admit(byhand, batch_id, await byhand.claimed(batch_id), tokens, rows=rows)


async def teach(
    byhand: ByHand,
    batch_id: BatchId,
    limit: int,
    *,
    alone: bool = False,
    hold_ms: int = 0,
    trusted_ms: int = TRUSTED_MS,
) -> tuple[int, int]:
    return await AccountScripts(byhand.redis, byhand.keys).teach(
        quota_id=QUOTA,
        batch_id=batch_id,
        limit=limit,
        alone=alone,
        hold_ms=hold_ms,
        trusted_ms=trusted_ms,
        row_ms=60_000,
        why="full",
        keep_ms=KEEP_MS,
    )


async def taught(byhand: ByHand, limit: int, *, trusted_ms: int = TRUSTED_MS) -> None:
    """A limit that a batch, gone by now, has met."""
    batch_id = await byhand.sealed(ids(1))
    assert (await asked(byhand, batch_id, 1)).verdict is Verdict.OK
    await teach(byhand, batch_id, limit, trusted_ms=trusted_ms)


async def oldest_first(byhand: ByHand, n: int) -> list[BatchId]:
    """Sealed batches; ids of one millisecond are in no order."""
    return sorted([await byhand.sealed(ids(2)) for _ in range(n)])


async def test_without_a_limit_everything_is_let_in(byhand: ByHand) -> None:
    for _ in range(3):
        assert (await asked(byhand, await byhand.sealed(ids(2)), 10**9)).verdict is Verdict.OK
    assert (await quota_of(byhand)).n_tokens == 3 * 10**9


async def test_under_a_limit_the_sum_in_flight_stays_under_it_and_asking_again_adds_nothing(
    byhand: ByHand,
) -> None:
    await taught(byhand, 100)
    first, second, third = await oldest_first(byhand, 3)

    assert (await asked(byhand, first, 60)).verdict is Verdict.OK
    assert (await asked(byhand, first, 60)).verdict is Verdict.OK
    refused = await asked(byhand, second, 50)

    assert (refused.verdict, refused.n_others, refused.tokens_in_flight, refused.limit) == (
        Verdict.HELD,
        1,
        60,
        100,
    )
    assert (await asked(byhand, third, 40)).verdict is Verdict.HELD, "the oldest that waits goes first"
    assert (await quota_of(byhand)).n_tokens == 60


async def test_many_askers_at_once_never_exceed_the_limit(byhand: ByHand) -> None:
    await taught(byhand, 100)
    batch_ids = [await byhand.sealed(ids(2)) for _ in range(30)]
    random.shuffle(batch_ids)

    await asyncio.gather(*(asked(byhand, one, 30) for one in batch_ids))

    assert (await quota_of(byhand)).n_tokens in (60, 90)


async def test_whatever_state_a_batch_leaves_for_its_room_is_free_without_a_word(byhand: ByHand) -> None:
    await taught(byhand, 100)
    for state in BatchState:
        if state in IN_FLIGHT_STATES or state is BatchState.OPEN:
            continue
        [one] = ids(1)
        batch_id = await byhand.sealed([one])
        assert (await asked(byhand, batch_id, 100)).verdict is Verdict.OK
        token = await byhand.claimed(batch_id)
        await byhand.ended(batch_id, token)
        if state.terminal:
            token = await byhand.claimed(batch_id)
            await byhand.deliver(batch_id, token, [out(one)])
            await byhand.settle(batch_id, token, state)
    cancelled = await byhand.sealed(ids(1))
    assert (await asked(byhand, cancelled, 100)).verdict is Verdict.OK
    await byhand.cancel(cancelled)

    assert (await asked(byhand, await byhand.sealed(ids(1)), 100)).verdict is Verdict.OK

    assert len((await quota_of(byhand)).in_flight) == 1


async def test_a_record_that_is_gone_takes_no_room(byhand: ByHand) -> None:
    await taught(byhand, 100)
    lost = await byhand.sealed(ids(1))
    await asked(byhand, lost, 100)
    await byhand.redis.unlink(byhand.keys.batch(lost))

    assert (await asked(byhand, await byhand.sealed(ids(1)), 100)).verdict is Verdict.OK


async def test_a_batch_at_the_provider_keeps_its_room(byhand: ByHand) -> None:
    await taught(byhand, 100)
    batch_id = await byhand.sealed(ids(1))
    await asked(byhand, batch_id, 100)
    token = await byhand.claimed(batch_id)
    await byhand.scripts.intend(batch_id=batch_id, token=token, label="l")
    assert (await asked(byhand, await byhand.sealed(ids(1)), 1, rows=1)).verdict is Verdict.HELD
    token = await byhand.claimed(batch_id)
    await byhand.submitted(batch_id, token)
    assert (await asked(byhand, await byhand.sealed(ids(1)), 1, rows=1)).verdict is Verdict.HELD


async def test_what_would_not_fit_alone_is_to_be_split_and_one_row_may_try_alone(byhand: ByHand) -> None:
    await taught(byhand, 100)
    large = await byhand.sealed(ids(2))
    answer = await asked(byhand, large, 101)
    assert (answer.verdict, answer.limit) == (Verdict.LARGE, 100)

    small = await byhand.sealed(ids(1))
    assert (await asked(byhand, small, 10)).verdict is Verdict.OK
    row = await byhand.sealed(ids(1))
    assert (await asked(byhand, row, 101, rows=1)).verdict is Verdict.HELD
    await byhand.ended(small, await byhand.claimed(small))
    assert (await asked(byhand, row, 101, rows=1)).verdict is Verdict.OK


async def test_a_turn_that_nobody_takes_up_lapses(byhand: ByHand) -> None:
    await taught(byhand, 100)
    running, dead, other = await oldest_first(byhand, 3)
    await asked(byhand, running, 60)
    assert (await asked(byhand, dead, 50)).verdict is Verdict.HELD
    assert (await asked(byhand, other, 40)).verdict is Verdict.HELD
    await byhand.redis.hset(byhand.keys.quota(QUOTA), "turn_until", "1")
    assert (await asked(byhand, other, 40)).verdict is Verdict.OK


async def test_a_limit_is_only_lowered_while_it_is_trusted(byhand: ByHand) -> None:
    await taught(byhand, 100)
    await taught(byhand, 500)
    assert (await quota_of(byhand)).limit == 100
    await taught(byhand, 40)
    assert (await quota_of(byhand)).limit == 40
    await byhand.redis.hset(byhand.keys.quota(QUOTA), "trusted_until", "1")
    batch_id = await byhand.sealed(ids(1))
    await asked(byhand, batch_id, 1)
    await teach(byhand, batch_id, 500)
    assert (await quota_of(byhand)).limit == 500


async def test_an_old_limit_is_exceeded_by_one_batch_at_a_time(byhand: ByHand) -> None:
    """All that wait at once would all be refused where it was not raised."""
    await taught(byhand, 100, trusted_ms=0)
    first, second, third = await oldest_first(byhand, 3)
    assert (await asked(byhand, first, 80)).verdict is Verdict.OK
    assert (await asked(byhand, second, 80)).verdict is Verdict.OK
    assert (await quota_of(byhand)).limit == 160
    assert (await asked(byhand, third, 80)).verdict is Verdict.HELD


async def test_a_refusal_is_counted_once_however_often_it_is_reported(byhand: ByHand) -> None:
    batch_id = await byhand.sealed(ids(2))
    await asked(byhand, batch_id, 50)
    for _ in range(3):
        assert (await teach(byhand, batch_id, 25, alone=True, hold_ms=60_000))[0] == 1
    quota = await quota_of(byhand)
    assert (quota.limit, quota.in_flight, quota.n_alone) == (25, {}, 1)


async def test_a_quota_that_others_fill_is_held_for_everybody(byhand: ByHand) -> None:
    batch_id = await byhand.sealed(ids(1))
    await asked(byhand, batch_id, 50)
    await teach(byhand, batch_id, 0, alone=True, hold_ms=60_000)
    answer = await asked(byhand, await byhand.sealed(ids(1)), 1)
    assert (answer.verdict, answer.why) == (Verdict.HELD, "full")
    assert 0 < answer.held_until_ms - await byhand.now_ms() <= 60_000


async def test_refusals_beside_others_in_flight_end_a_row_of_them(byhand: ByHand) -> None:
    for n in (1, 2):
        batch_id = await byhand.sealed(ids(1))
        await asked(byhand, batch_id, 50)
        assert (await teach(byhand, batch_id, 0, alone=True))[0] == n
    batch_id = await byhand.sealed(ids(1))
    await asked(byhand, batch_id, 50)
    assert await teach(byhand, batch_id, 0) == (0, 0)


@pytest.mark.parametrize("state", list(BatchState))
async def test_admission_is_fenced_and_ends_with_the_submission(byhand: ByHand, state: BatchState) -> None:
    batch_id = await byhand.in_state(state, ids(1))
    token = int((await byhand.fields(batch_id))[b"token"])
    before = await byhand.everything()

    assert (await admit(byhand, batch_id, token - 1, 5)).verdict is Verdict.STALE
    assert await byhand.everything() == before
    fresh = (await admit(byhand, batch_id, token, 5)).verdict

    ours = state in (BatchState.SEALED, BatchState.SUBMITTING)
    assert fresh is (Verdict.OK if ours else Verdict.STALE)
    assert (await byhand.everything() != before) is ours


async def test_a_worker_goes_above_an_old_limit_once_in_five_minutes(byhand: ByHand) -> None:
    batch_id = await byhand.sealed(ids(2))
    batch = await byhand.batch(batch_id)
    key = byhand.keys.quota(quota.quota_id("a1", batch.spec.model))
    await byhand.redis.execute_command("HSET", key, "limit", 1, "trusted_until", 0)

    store = AccountStore(byhand.redis, byhand.keys)
    admission = await store.admit(batch, await byhand.claimed(batch_id), "a1", 1.0)

    now = await byhand.now_ms()
    assert admission.verdict is Verdict.OK
    trusted_until = int(await byhand.redis.execute_command("HGET", key, "trusted_until"))
    assert now + 200_000 < trusted_until <= now + 300_000
