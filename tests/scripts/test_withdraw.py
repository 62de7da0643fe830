"""Withdraw: a request that nobody waits for is dropped before submission only, and coming back costs nothing."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from batchling_client.wire.ids import new_batch_id, new_mailbox
from batchling_client.wire.keys import BatchId
from batchling_client.wire.states import BatchState, Placement, Verdict

from .byhand import SPEC, ByHand, ids, row
from .model import MOST_NAMED

EARLY = (BatchState.OPEN, BatchState.SEALED)
LATE = (BatchState.SUBMITTING, BatchState.SUBMITTED, BatchState.ENDED)


@pytest.mark.parametrize("state", [*EARLY, *LATE])
async def test_withdrawn_request_is_dropped_only_before_submission(byhand: ByHand, state: BatchState) -> None:
    [one, other] = ids(2)
    batch_id = await byhand.in_state(state, [one, other])

    verdict = await byhand.withdraw(one, batch_id)

    place = await byhand.place(one)
    assert (verdict is Verdict.OK) is (state in EARLY)
    assert bool(place and place.startswith(f"{batch_id}|")) is (state in LATE)
    assert verdict is (Verdict.OK if state in EARLY else Verdict.TOO_LATE)
    assert (await byhand.batch(batch_id)).n_dropped == (1 if state in EARLY else 0)
    assert await byhand.place(other) == f"{batch_id}|1|{byhand.mailbox}"


@pytest.mark.parametrize("state", EARLY)
async def test_what_another_redis_had_opened_may_be_at_its_provider_and_goes_on(
    byhand: ByHand, state: BatchState
) -> None:
    [one] = ids(1)
    batch_id = await byhand.in_state(state, [one])
    await byhand.opened_elsewhere(batch_id)
    before = await byhand.everything()
    assert await byhand.withdraw(one, batch_id) is Verdict.TOO_LATE
    assert await byhand.everything() == before


@pytest.mark.parametrize("state", EARLY)
async def test_a_second_withdrawal_finds_nothing(byhand: ByHand, state: BatchState) -> None:
    [one] = ids(1)
    batch_id = await byhand.in_state(state, [one])
    await byhand.withdraw(one, batch_id)
    before = await byhand.everything()
    assert await byhand.withdraw(one, batch_id) is Verdict.GONE
    assert await byhand.withdraw(one, BatchId("")) is Verdict.GONE
    assert await byhand.everything() == before


async def test_a_request_that_others_wait_for_goes_on_for_them(byhand: ByHand) -> None:
    [one] = ids(1)
    batch_id = await byhand.opened([one])
    other = new_mailbox()
    await byhand.enqueue([row(one)], into=batch_id, mailbox=other)

    assert await byhand.withdraw(one, batch_id) is Verdict.JOINED

    assert await byhand.place(one) == f"{batch_id}|1|{other}"
    assert await byhand.redis.execute_command("PTTL", byhand.keys.request(one)) > 0


@pytest.mark.parametrize("state", EARLY)
async def test_an_unnamed_waiter_withdraws_from_nobody_and_nobody_from_them(
    byhand: ByHand, state: BatchState
) -> None:
    [one] = ids(1)
    batch_id = await byhand.in_state(state, [one])
    came = [new_mailbox() for _ in range(MOST_NAMED)]
    for mailbox in came:
        await byhand.enqueue([row(one)], into=new_batch_id(), mailbox=mailbox)

    assert await byhand.withdraw(one, batch_id) is Verdict.JOINED
    assert await byhand.place(one) == f"{batch_id}|1|+,{','.join(came)}"

    for mailbox in came:
        assert await byhand.withdraw(one, batch_id, mailbox) is Verdict.JOINED
    assert await byhand.place(one) == f"{batch_id}|1|+"
    assert (await byhand.batch(batch_id)).n_dropped == 0

    await byhand.enqueue([row(one)], into=new_batch_id())
    assert await byhand.place(one) == f"{batch_id}|1|+,{byhand.mailbox}"


async def test_a_request_that_moved_meanwhile_is_not_touched(byhand: ByHand) -> None:
    [one] = ids(1)
    batch_id = await byhand.opened([one])
    assert await byhand.withdraw(one, new_batch_id()) is Verdict.GONE
    assert await byhand.place(one) == f"{batch_id}|1|{byhand.mailbox}"


async def test_asked_for_again_in_the_same_batch_it_has_one_row_and_is_paid_for_once(byhand: ByHand) -> None:
    """Two rows of one custom_id would have the provider refuse the whole batch, or bill the request twice."""
    [one, other] = ids(2)
    batch_id = await byhand.opened([one, other])
    await byhand.withdraw(one, batch_id)

    reply = await byhand.enqueue([row(one)], into=batch_id)

    assert reply.placements == (Placement.QUEUED,)
    assert await byhand.ids_of(batch_id) == [one, other]
    assert await byhand.place(one) == f"{batch_id}|1|{byhand.mailbox}"
    batch = await byhand.batch(batch_id)
    assert (batch.n_requests, batch.n_dropped) == (2, 0)


async def test_asked_for_again_after_the_seal_it_goes_into_the_next_batch_only(byhand: ByHand) -> None:
    [one] = ids(1)
    sealed = await byhand.opened([one])
    await byhand.withdraw(one, sealed)
    await byhand.seal(sealed, await byhand.claimed(sealed))

    batch_id = await byhand.opened([one])

    assert await byhand.place(one) == f"{batch_id}|1|{byhand.mailbox}"
    assert await byhand.ids_of(batch_id) == [one]
    assert (await byhand.batch(sealed)).n_dropped == 1


async def test_asked_for_again_by_a_client_with_a_wrong_guess_it_is_sent_to_the_open_batch(
    byhand: ByHand,
) -> None:
    [one] = ids(1)
    batch_id = await byhand.opened([one])
    await byhand.withdraw(one, batch_id)

    moved = await byhand.enqueue([row(one)], into=new_batch_id())
    assert (moved.verdict, moved.open_batch) == (Verdict.MOVED, batch_id)

    await byhand.enqueue([row(one)], into=batch_id)
    assert await byhand.ids_of(batch_id) == [one]


async def test_a_moved_request_that_comes_back_keeps_its_attempt(byhand: ByHand) -> None:
    [one] = ids(1)
    source = await byhand.over([one])
    target = new_batch_id()
    await byhand.requeue(source, await byhand.claimed(source), [row(one, attempt=2)], target=target)

    await byhand.withdraw(one, target)
    await byhand.enqueue([row(one)], into=target)

    assert await byhand.place(one) == f"{target}|2|{byhand.mailbox}"
    assert [row.attempt for row in await byhand.rows_of(target)] == [2]


async def test_a_withdrawal_and_a_submission_at_once_agree_on_what_is_sent(byhand: ByHand) -> None:
    """A reader of the rows after the intent sees every drop that was granted."""
    asked = ids(40)
    batch_id = await byhand.sealed(asked)
    token = await byhand.claimed(batch_id)

    async def submit() -> set[str]:
        await byhand.scripts.intend(batch_id=batch_id, token=token, label="label")
        return {one for one in asked if await byhand.place(one) is not None}

    verdicts, sent = await asyncio.gather(
        asyncio.gather(*(byhand.withdraw(one, batch_id) for one in asked)), submit()
    )

    dropped = {one for one, verdict in zip(asked, verdicts, strict=True) if verdict is Verdict.OK}
    assert sent == set(asked) - dropped


async def test_asked_for_in_another_lane_and_then_in_the_first_again_it_has_one_row_in_each_batch(
    byhand: ByHand,
) -> None:
    """Lanes that differ in the completion window alone share request ids."""
    [one, another] = ids(2)
    first_lane, second_lane = SPEC, msgspec.structs.replace(SPEC, completion_window="1h")
    first = await byhand.opened([one, another])
    await byhand.withdraw(one, first)
    byhand.spec = second_lane
    second = await byhand.opened([one])
    await byhand.withdraw(one, second)
    byhand.spec = first_lane

    guess, placements = new_batch_id(), list[Placement]()
    while not placements:
        reply = await byhand.enqueue([row(one)], into=guess)
        placements, guess = [*reply.placements], reply.open_batch or new_batch_id()

    assert placements == [Placement.QUEUED]
    for batch_id in (first, second):
        rows = await byhand.ids_of(batch_id)
        assert len(set(rows)) == len(rows)
    assert (await byhand.batch(first)).state is BatchState.SEALED
    place = await byhand.place(one)
    assert place is not None
    assert not place.startswith((first, second))
