"""Erase: what is over goes for good; what somebody has asked for again stays."""

from __future__ import annotations

import pytest

from batchling_client.wire.ids import new_batch_id
from batchling_client.wire.states import BatchState, Verdict

from .byhand import ByHand, ids, out


async def over(byhand: ByHand, batch_id: str, state: BatchState = BatchState.SETTLED) -> None:
    """Bring a batch to a terminal state with its hash alone, and off the schedule."""
    await byhand.redis.hset(byhand.keys.batch(batch_id), "state", state.value)
    await byhand.redis.zrem(byhand.keys.schedule, batch_id)


async def test_requests_and_answers_go_and_what_was_asked_for_again_stays(byhand: ByHand) -> None:
    answered, left_behind, again = ids(3)
    old = await byhand.opened([left_behind])
    byhand.use_model("another")
    await byhand.opened([again])
    await byhand.redis.set(byhand.keys.result(answered), out(answered).packed, px=60_000)

    erased = await byhand.scripts.erase(request_ids=[answered, left_behind, again], batch_ids=[old])

    assert (erased.n_answers, erased.n_left) == (1, 1)
    assert await byhand.redis.exists(byhand.keys.result(answered), byhand.keys.request(left_behind)) == 0
    assert await byhand.redis.exists(byhand.keys.request(again)) == 1


@pytest.mark.parametrize("state", list(BatchState))
async def test_only_a_batch_that_is_over_is_erased_with_all_that_is_stored_of_it(
    byhand: ByHand, state: BatchState
) -> None:
    batch_id = await byhand.opened(ids(1))
    keys = byhand.keys
    await over(byhand, batch_id, state)
    await byhand.redis.execute_command("SADD", keys.unanswered(batch_id), "id")
    await byhand.redis.execute_command("HSET", keys.failures(batch_id), "400 code", 1)
    await byhand.redis.execute_command("RPUSH", keys.failed_rows(batch_id), "id 1 400 code message")
    for make in (keys.unanswered, keys.failures, keys.failed_rows):
        await byhand.redis.pexpire(make(batch_id), 60_000)

    verdict = await byhand.scripts.erase_batch(batch_id=batch_id)

    left = await byhand.redis.keys(f"{keys.prefix}*{batch_id}*")
    listed = await byhand.redis.keys(keys.lane_batches(byhand.lane_id, "*"))
    if state.terminal:
        assert verdict is Verdict.OK
        assert left == listed == []
        assert await byhand.redis.zscore(keys.batches, batch_id) is None
    else:
        assert verdict is Verdict.LIVES
        assert keys.batch(batch_id).encode() in left
    assert await byhand.scripts.erase_batch(batch_id=new_batch_id()) is Verdict.GONE


@pytest.mark.parametrize("kind", ["inputs", "results"])
async def test_a_batch_whose_files_have_to_be_deleted_keeps_its_record(byhand: ByHand, kind: str) -> None:
    batch_id = await byhand.opened(ids(1))
    await over(byhand, batch_id)
    await byhand.redis.zadd(byhand.keys.spent_files, {f"{kind}:{batch_id}": 1})

    assert await byhand.scripts.erase_batch(batch_id=batch_id) is Verdict.BUSY
    await byhand.redis.unlink(byhand.keys.spent_files)
    assert await byhand.scripts.erase_batch(batch_id=batch_id) is Verdict.OK
