"""Give up: a batch that cannot be read comes to its end, in whatever state it is said to be."""

from __future__ import annotations

import pytest

from batchling_client.wire.states import BatchState, Verdict

from .byhand import KEEP_MS, ByHand, ids


@pytest.mark.parametrize("said", [*(state for state in BatchState if not state.terminal), "paused"])
async def test_a_batch_in_any_state_comes_to_its_end(byhand: ByHand, said: str) -> None:
    batch_id = await byhand.opened(ids(2))
    await byhand.redis.execute_command("HSET", byhand.keys.batch(batch_id), "state", said)
    token = await byhand.claimed(batch_id)

    done = await byhand.scripts.give_up(batch_id=batch_id, token=token, error="damaged", keep_ms=KEEP_MS)

    assert done is Verdict.OK
    batch = await byhand.batch(batch_id)
    assert (batch.state, batch.error) == (BatchState.FAILED, "damaged")
    assert await byhand.rows_of(batch_id) == []
    assert await byhand.next_look(batch_id) is None
    assert 0 < await byhand.redis.execute_command("PTTL", byhand.keys.batch(batch_id)) <= KEEP_MS
