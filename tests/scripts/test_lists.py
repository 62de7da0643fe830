"""The lists of batches and their timelines show what happened, and damage to them costs no request."""

from __future__ import annotations

import secrets
from typing import Any

import pytest

from batchling_client.wire.keys import BatchId
from batchling_client.wire.records.batch import UNENDED_ALLOWED
from batchling_client.wire.states import (
    LISTS,
    QUARANTINED,
    SETTLED_WITH_FAILURES,
    BatchState,
    Outcome,
    RowKind,
    Verdict,
)

from .byhand import ByHand, ids, out, row


async def quarantined(byhand: ByHand) -> BatchId:
    batch_id = await byhand.sealed(ids(1))
    for _ in range(UNENDED_ALLOWED + 1):
        token = await byhand.claimed(batch_id)
        await byhand.begin(batch_id, token, nonce=secrets.token_hex(8))
    return batch_id


@pytest.mark.parametrize("state", BatchState)
async def test_a_batch_is_in_the_list_of_its_state_and_in_no_other(byhand: ByHand, state: BatchState) -> None:
    batch_id = await byhand.in_state(state, ids(2))

    assert await byhand.listed() == {batch_id: [state.value]}


async def test_a_quarantined_batch_is_in_a_list_of_its_own_until_it_is_retried(byhand: ByHand) -> None:
    batch_id = await quarantined(byhand)
    assert await byhand.listed() == {batch_id: [QUARANTINED]}

    assert await byhand.scripts.retry(batch_id=batch_id) is Verdict.OK

    assert await byhand.listed() == {batch_id: ["sealed"]}


async def test_a_settled_batch_with_a_failed_request_is_listed_apart(byhand: ByHand) -> None:
    [good, bad] = ids(2)
    batch_id = await byhand.over([good, bad])
    token = await byhand.claimed(batch_id)
    await byhand.deliver(batch_id, token, [out(good), out(bad, RowKind.FAILURE)])
    await byhand.settle(batch_id, token)

    assert await byhand.listed() == {batch_id: [SETTLED_WITH_FAILURES]}


async def test_unfinished_batches_are_listed_by_their_opening_and_those_that_are_over_by_their_end(
    byhand: ByHand,
) -> None:
    first = await byhand.sealed(ids(1))
    second = await byhand.sealed(ids(1))
    sealed = byhand.keys.lane_batches(byhand.lane_id, "sealed")
    opened = [(await byhand.batch(one)).created_at.timestamp() * 1000 for one in (first, second)]
    assert [await byhand.redis.zscore(sealed, one) for one in (first, second)] == pytest.approx(opened)

    await byhand.cancel(second)
    token = await byhand.claimed(second)
    await byhand.settle(second, token, BatchState.CANCELLED)

    over = (await byhand.batch(second)).settled_at
    cancelled = byhand.keys.lane_batches(byhand.lane_id, "cancelled")
    assert over is not None
    assert await byhand.redis.zscore(cancelled, second) == pytest.approx(over.timestamp() * 1000)


async def test_the_timeline_of_a_batch_says_what_happened_in_its_order(byhand: ByHand) -> None:
    batch_id = await byhand.over(ids(1), Outcome.EXPIRED)
    token = await byhand.claimed(batch_id)
    await byhand.scripts.collected(batch_id=batch_id, token=token)
    await byhand.settle(batch_id, await byhand.claimed(batch_id), BatchState.FAILED)

    assert await byhand.timeline(batch_id) == [
        "opened",
        "sealed: no more calls came",
        "submission began",
        "submitted: the provider calls it pb",
        "ended: expired",
        "results read",
        "failed",
    ]


async def test_a_wait_for_one_reason_is_one_line_however_often_it_is_looked_at(byhand: ByHand) -> None:
    batch_id = await byhand.sealed(ids(1))
    for n in range(9):
        token = await byhand.claimed(batch_id)
        await byhand.scripts.hold(batch_id=batch_id, token=token, delay_s=0, why=f"{n} batches are before it")

    assert (await byhand.timeline(batch_id))[2:] == ["waits: 0 batches are before it"]


async def test_a_long_timeline_keeps_how_the_batch_began_and_what_happened_last(byhand: ByHand) -> None:
    batch_id = await byhand.sealed(ids(1))
    words = [f"reason {letter}{other}" for letter in "abcdefgh" for other in "abcdefgh"]
    for why in words:
        token = await byhand.claimed(batch_id)
        await byhand.scripts.hold(batch_id=batch_id, token=token, delay_s=0, why=why)

    lines = await byhand.timeline(batch_id)
    assert len(lines) == 50
    assert lines[:3] == ["opened", "sealed: no more calls came", f"waits: {words[0]}"]
    assert lines[-1] == f"waits: {words[-1]}"


async def test_words_of_a_provider_make_one_short_line_of_a_timeline(byhand: ByHand) -> None:
    batch_id = await byhand.sealed(ids(1))
    token = await byhand.claimed(batch_id)
    why = "line one\nline two\r\n" + "long " * 100
    await byhand.scripts.hold(batch_id=batch_id, token=token, delay_s=0, why=why)

    [line] = (await byhand.timeline(batch_id))[2:]
    assert line.startswith("waits: line one line two long")
    assert len(line) <= 160


async def test_requests_that_move_on_stand_in_both_timelines(byhand: ByHand) -> None:
    [one] = ids(1)
    source = await byhand.over([one])
    token = await byhand.claimed(source)
    await byhand.requeue(source, token, [row(one, attempt=2)], target=BatchId("b-next"))

    assert (await byhand.timeline(source))[-1] == "1 request moved on to b-next"
    assert (await byhand.timeline(BatchId("b-next"))) == ["opened", f"1 request came from {source}"]


@pytest.mark.parametrize("state", BatchState)
async def test_lists_and_timelines_that_are_damaged_cost_no_request(
    byhand: ByHand, state: BatchState
) -> None:
    """Each list holds a string, the timeline holds no text: every move works as before."""
    do: Any = byhand.redis.execute_command
    for name in LISTS:
        await do("SET", byhand.keys.lane_batches(byhand.lane_id, name), "x", "PX", 60_000)
    [one] = ids(1)
    batch_id = await byhand.opened([one])
    await do("HSET", byhand.keys.batch(batch_id), "timeline", b"\xff\x00\n\n", "listed", "\xff")

    await byhand.seal(batch_id, await byhand.claimed(batch_id))
    other = await byhand.in_state(state, ids(1))

    assert (await byhand.batch(batch_id)).state is BatchState.SEALED
    assert (await byhand.batch(other)).state is state
    for name in LISTS:
        await do("UNLINK", byhand.keys.lane_batches(byhand.lane_id, name))
