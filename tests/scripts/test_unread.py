"""Unread: an ended batch whose results lack rows is handed back; its own error returns when they are complete."""

from __future__ import annotations

import pytest

from batchling_client.wire.keys import BatchId
from batchling_client.wire.states import BatchState, Outcome, Verdict

from .byhand import ByHand, ids, out


async def unread(byhand: ByHand, batch_id: BatchId, token: int, *, held: bool = False) -> Verdict:
    return await byhand.scripts.unread(
        batch_id=batch_id, token=token, delay_s=60, ending=b"{}", why="lacks rows", held_back=held
    )


async def test_it_is_looked_at_later_and_says_why(byhand: ByHand) -> None:
    batch_id = await byhand.over(ids(2))

    assert await unread(byhand, batch_id, await byhand.claimed(batch_id)) is Verdict.OK
    first = await byhand.batch(batch_id)
    assert await unread(byhand, batch_id, await byhand.claimed(batch_id)) is Verdict.OK

    batch = await byhand.batch(batch_id)
    assert (batch.state, batch.error, batch.n_unread) == (BatchState.ENDED, "lacks rows", 2)
    assert (batch.unread_since, batch.held_since) == (first.unread_since, None)
    look = await byhand.next_look(batch_id)
    assert look is not None
    assert 50_000 < look - await byhand.now_ms() <= 60_000


@pytest.mark.parametrize("state", [state for state in BatchState if state is not BatchState.ENDED])
async def test_only_an_ended_batch_is_read(byhand: ByHand, state: BatchState) -> None:
    batch_id = await byhand.in_state(state, ids(2))
    token = int((await byhand.fields(batch_id))[b"token"])
    before = await byhand.everything()

    assert await unread(byhand, batch_id, token) is Verdict.STALE
    assert await byhand.everything() == before


async def test_a_stale_token_changes_nothing(byhand: ByHand) -> None:
    batch_id = await byhand.over(ids(2))
    stale = await byhand.claimed(batch_id)
    await byhand.claimed(batch_id)
    before = await byhand.everything()

    assert await unread(byhand, batch_id, stale) is Verdict.STALE
    assert await byhand.everything() == before


async def test_the_end_of_the_reading_brings_the_batchs_own_error_back(byhand: ByHand) -> None:
    [one] = ids(1)
    batch_id = await byhand.over([one], Outcome.EXPIRED)
    await unread(byhand, batch_id, await byhand.claimed(batch_id), held=True)
    token = await byhand.claimed(batch_id)
    await byhand.deliver(batch_id, token, [out(one)])

    await byhand.scripts.collected(batch_id=batch_id, token=token, error="it expired")

    batch = await byhand.batch(batch_id)
    assert (batch.error, batch.n_unread, batch.unread_since, batch.held_since) == (
        "it expired",
        0,
        None,
        None,
    )


@pytest.mark.parametrize("way", ["held", "parked"])
async def test_a_held_batch_ends_at_once_when_a_person_cancels_it(byhand: ByHand, way: str) -> None:
    batch_id = await byhand.over(ids(2))
    assert await byhand.cancel(batch_id) is Verdict.TOO_LATE
    token = await byhand.claimed(batch_id)
    if way == "held":
        await unread(byhand, batch_id, token, held=True)
    else:
        await byhand.scripts.hold(batch_id=batch_id, token=token, delay_s=0, why="no", parked=True)

    assert await byhand.cancel(batch_id) is Verdict.OK

    batch = await byhand.batch(batch_id)
    assert (batch.state, batch.outcome, batch.held_since) == (BatchState.ENDED, Outcome.CANCELLED, None)


async def test_a_retry_reads_a_held_batch_several_times_more(byhand: ByHand) -> None:
    batch_id = await byhand.over(ids(2))
    await unread(byhand, batch_id, await byhand.claimed(batch_id), held=True)

    assert await byhand.scripts.retry(batch_id=batch_id) is Verdict.OK

    batch = await byhand.batch(batch_id)
    assert (batch.n_unread, batch.unread_since) == (0, None)
    assert await byhand.claims(batch_id)
