"""Begin: a step starts once for each claim, and only in its states."""

from __future__ import annotations

import asyncio

import pytest

from batchling_client.wire.batches import Batch
from batchling_client.wire.states import BatchState

from .byhand import ByHand, ids


async def test_doubled_begin_is_stale(byhand: ByHand) -> None:
    batch_id = await byhand.sealed(ids(1))
    token = await byhand.claimed(batch_id)

    began = await asyncio.gather(*(byhand.begin(batch_id, token) for _ in range(10)))

    assert [one is not None for one in began].count(True) == 1


async def test_a_late_message_cannot_begin_after_a_newer_claim(byhand: ByHand) -> None:
    batch_id = await byhand.sealed(ids(1))
    old = await byhand.claimed(batch_id)
    new = await byhand.claimed(batch_id)
    assert await byhand.begin(batch_id, old) is None
    assert await byhand.begin(batch_id, new) is not None


async def test_begin_tells_the_whole_batch(byhand: ByHand) -> None:
    batch_id = await byhand.at_provider(ids(2))
    fields = await byhand.begin(batch_id, await byhand.claimed(batch_id), BatchState.SUBMITTED)
    assert fields is not None
    batch = Batch.decode(fields)
    assert (batch.batch_id, batch.state, batch.n_requests) == (batch_id, BatchState.SUBMITTED, 2)
    assert (batch.provider_batch_id, batch.label, batch.spec.model) == ("pb", "label", "m")


@pytest.mark.parametrize("state", [state for state in BatchState if not state.terminal])
async def test_a_step_does_not_start_in_a_state_that_is_not_its_own(
    byhand: ByHand, state: BatchState
) -> None:
    batch_id = await byhand.in_state(state, ids(1))
    token = await byhand.claimed(batch_id)
    others = [other for other in BatchState if other is not state]
    before = await byhand.everything()

    assert await byhand.begin(batch_id, token, *others) is None
    assert await byhand.everything() == before

    assert await byhand.begin(batch_id, token, state) is not None


async def test_a_step_that_keeps_dying_is_counted(byhand: ByHand) -> None:
    batch_id = await byhand.sealed(ids(1))
    for _ in range(3):
        await byhand.begin(batch_id, await byhand.claimed(batch_id))
    assert (await byhand.batch(batch_id)).n_unended == 3

    token = await byhand.claimed(batch_id)
    await byhand.scripts.release(batch_id=batch_id, token=token, delay_ms=0)
    assert (await byhand.batch(batch_id)).n_unended == 0
