"""Spend: the files of a batch are noted as needed no more, and claimed when they are due to be deleted."""

from __future__ import annotations

import pytest

from batchling_client.wire.keys import BatchId
from batchling_client.wire.states import BatchState, Verdict

from .byhand import KEEP_MS, ByHand, ids

LATER_MS = 60_000


async def spend(byhand: ByHand, batch_id: BatchId, token: int, inputs_ms: int = 0) -> Verdict:
    return await byhand.scripts.spend(
        batch_id=batch_id, token=token, inputs_ms=inputs_ms, results_ms=LATER_MS, keep_ms=KEEP_MS
    )


async def test_input_files_are_due_first_and_results_later(byhand: ByHand) -> None:
    batch_id = await byhand.over(ids(2))
    assert await spend(byhand, batch_id, await byhand.claimed(batch_id)) is Verdict.OK
    assert await byhand.scripts.claim_spent(most=9, pause_ms=LATER_MS) == [f"inputs:{batch_id}"]
    due = await byhand.redis.zscore(byhand.keys.spent_files, f"results:{batch_id}")
    assert due is not None
    assert 0 < due - await byhand.now_ms() <= LATER_MS


async def test_files_that_were_claimed_are_due_again_after_the_pause(byhand: ByHand) -> None:
    batch_id = await byhand.over(ids(1))
    await spend(byhand, batch_id, await byhand.claimed(batch_id))
    assert len(await byhand.scripts.claim_spent(most=9, pause_ms=0)) == 1
    assert len(await byhand.scripts.claim_spent(most=9, pause_ms=LATER_MS)) == 1
    assert await byhand.scripts.claim_spent(most=9, pause_ms=LATER_MS) == []


async def test_a_claim_takes_no_more_than_it_asks_for(byhand: ByHand) -> None:
    for _ in range(3):
        batch_id = await byhand.over(ids(1))
        await spend(byhand, batch_id, await byhand.claimed(batch_id))
    assert len(await byhand.scripts.claim_spent(most=2, pause_ms=LATER_MS)) == 2
    assert len(await byhand.scripts.claim_spent(most=2, pause_ms=LATER_MS)) == 1


@pytest.mark.parametrize("state", [state for state in BatchState if state is not BatchState.ENDED])
async def test_only_an_ended_batch_has_spent_files(byhand: ByHand, state: BatchState) -> None:
    batch_id = await byhand.in_state(state, ids(2))
    token = int((await byhand.fields(batch_id))[b"token"])
    before = await byhand.everything()
    assert await spend(byhand, batch_id, token) is Verdict.STALE
    assert await byhand.everything() == before


async def test_a_stale_token_changes_nothing(byhand: ByHand) -> None:
    batch_id = await byhand.over(ids(1))
    stale = await byhand.claimed(batch_id)
    await byhand.claimed(batch_id)
    before = await byhand.everything()
    assert await spend(byhand, batch_id, stale) is Verdict.STALE
    assert await byhand.everything() == before


async def test_a_foreign_value_under_the_name_is_put_aside(byhand: ByHand) -> None:
    await byhand.redis.execute_command("SET", byhand.keys.spent_files, "x", "PX", KEEP_MS)
    assert await byhand.scripts.claim_spent(most=9, pause_ms=LATER_MS) == []
    batch_id = await byhand.over(ids(1))
    assert await spend(byhand, batch_id, await byhand.claimed(batch_id)) is Verdict.OK
    assert len(await byhand.scripts.claim_spent(most=9, pause_ms=LATER_MS)) == 1
