"""Note: a claimed batch shows why it waits while its step is at work, until the claim ends."""

from __future__ import annotations

import pytest

from batchling_client.wire.keys import BatchId
from batchling_client.wire.states import BatchState, Outcome, Verdict

from .byhand import ByHand, ids

WHY = "groq has not answered for 5 s when asked to look at a batch"


async def noted(byhand: ByHand, state: BatchState = BatchState.SUBMITTED) -> tuple[BatchId, int]:
    batch_id = await byhand.in_state(state, ids(1))
    token = await byhand.claimed(batch_id)
    assert await byhand.scripts.note(batch_id=batch_id, token=token, why=WHY) is Verdict.OK
    return batch_id, token


async def test_a_note_is_shown_before_the_last_error_and_gives_it_back(byhand: ByHand) -> None:
    batch_id = await byhand.at_provider(ids(1))
    token = await byhand.claimed(batch_id)
    await byhand.scripts.release(batch_id=batch_id, token=token, delay_s=0, error="503")
    token = await byhand.claimed(batch_id)
    await byhand.scripts.note(batch_id=batch_id, token=token, why=WHY)
    assert (await byhand.batch(batch_id)).error == WHY

    await byhand.scripts.note(batch_id=batch_id, token=token, why="")

    batch = await byhand.batch(batch_id)
    assert (batch.error, batch.n_stumbles) == ("503", 1)


@pytest.mark.parametrize("state", [BatchState.SEALED, BatchState.SUBMITTED, BatchState.ENDED])
async def test_a_note_ends_with_its_claim(byhand: ByHand, state: BatchState) -> None:
    batch_id, token = await noted(byhand, state)
    await byhand.scripts.release(batch_id=batch_id, token=token, delay_s=0, error="")
    assert (await byhand.batch(batch_id)).error == ""


async def test_a_batch_that_is_settled_keeps_no_note(byhand: ByHand) -> None:
    batch_id = await byhand.over(ids(1), Outcome.COMPLETED)
    token = await byhand.claimed(batch_id)
    await byhand.scripts.note(batch_id=batch_id, token=token, why=WHY)
    await byhand.settle(batch_id, token)
    batch = await byhand.batch(batch_id)
    assert (batch.state, batch.error) == (BatchState.SETTLED, "")


async def test_the_note_of_a_step_that_died_ends_with_the_next_claim(byhand: ByHand) -> None:
    batch_id, _ = await noted(byhand)
    await byhand.claimed(batch_id)
    assert (await byhand.batch(batch_id)).error == ""


async def test_a_stale_claim_notes_nothing(byhand: ByHand) -> None:
    batch_id, token = await noted(byhand)
    await byhand.claimed(batch_id)
    assert await byhand.scripts.note(batch_id=batch_id, token=token, why=WHY) is Verdict.STALE
    assert (await byhand.batch(batch_id)).error == ""
