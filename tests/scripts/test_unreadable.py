"""Unreadable: a record that a worker cannot read is left to others for a while."""

from __future__ import annotations

import pytest

from batchling_client.wire.keys import BatchId
from batchling_client.wire.states import BatchState, Verdict

from .byhand import ByHand, ids

LIVING = [state for state in BatchState if not state.terminal]


async def unreadable(byhand: ByHand, batch_id: BatchId, *, patience_ms: int = 60_000) -> Verdict:
    return await byhand.scripts.unreadable(
        batch_id=batch_id, token=await byhand.claimed(batch_id), delay_ms=30_000, patience_ms=patience_ms
    )


@pytest.mark.parametrize("state", LIVING)
async def test_it_is_looked_at_again_after_the_delay(byhand: ByHand, state: BatchState) -> None:
    batch_id = await byhand.in_state(state, ids(1))
    assert await unreadable(byhand, batch_id) is Verdict.OK
    assert await byhand.next_look(batch_id) == pytest.approx(await byhand.now_ms() + 30_000, abs=5_000)
    assert (await byhand.batch(batch_id)).state is state


async def test_patience_is_counted_from_the_first_look_and_keeps_the_claim(byhand: ByHand) -> None:
    batch_id = await byhand.sealed(ids(1))
    await unreadable(byhand, batch_id)
    first = (await byhand.fields(batch_id))[b"unreadable_since"]
    await unreadable(byhand, batch_id)
    assert (await byhand.fields(batch_id))[b"unreadable_since"] == first
    long_ago = await byhand.now_ms() - 60_000
    await byhand.redis.execute_command("HSET", byhand.keys.batch(batch_id), "unreadable_since", long_ago)

    token = await byhand.claimed(batch_id)
    scripts = byhand.scripts
    over = await scripts.unreadable(batch_id=batch_id, token=token, delay_ms=0, patience_ms=60_000)

    assert over is Verdict.OVER
    assert await scripts.extend(batch_id=batch_id, token=token, lease_ms=1000) is Verdict.OK


async def test_a_worker_that_can_read_it_ends_the_count(byhand: ByHand) -> None:
    batch_id = await byhand.at_provider(ids(1))
    await unreadable(byhand, batch_id)
    await byhand.progress(batch_id, await byhand.claimed(batch_id))
    assert b"unreadable_since" not in await byhand.fields(batch_id)
