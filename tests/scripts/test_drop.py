"""Drop: a person's cancellation takes requests out before submission only, tells their callers, and nobody else's."""

from __future__ import annotations

import asyncio

import pytest

from batchling_client.views.inspection import Inspection
from batchling_client.wire.ids import new_batch_id, new_mailbox
from batchling_client.wire.keys import BatchId
from batchling_client.wire.states import BatchState, Outcome, Placement, Verdict

from .byhand import ByHand, ids, row
from .model import MOST_NAMED

EARLY = (BatchState.OPEN, BatchState.SEALED)


@pytest.mark.parametrize("state", EARLY)
async def test_a_dropped_request_is_answered_and_its_caller_told(byhand: ByHand, state: BatchState) -> None:
    [one, other] = ids(2)
    batch_id = await byhand.in_state(state, [one, other])

    dropped = await byhand.drop([one], batch_id)

    assert (dropped.verdict, dropped.n_dropped, dropped.ended) == (Verdict.OK, 1, False)
    assert await byhand.result(one) is not None
    assert await byhand.mail() == [one]
    assert await byhand.place(other) == f"{batch_id}|1|{byhand.mailbox}"
    assert (await byhand.batch(batch_id)).n_dropped == 1


@pytest.mark.parametrize("state", [state for state in BatchState if state not in EARLY])
async def test_what_a_provider_may_know_is_not_dropped(byhand: ByHand, state: BatchState) -> None:
    [one] = ids(1)
    batch_id = await byhand.in_state(state, [one])
    before = await byhand.everything()
    assert (await byhand.drop([one], batch_id)).verdict is Verdict.TOO_LATE
    assert await byhand.everything() == before


@pytest.mark.parametrize("state", EARLY)
async def test_what_another_redis_had_opened_is_not_dropped(byhand: ByHand, state: BatchState) -> None:
    [one] = ids(1)
    batch_id = await byhand.in_state(state, [one])
    await byhand.opened_elsewhere(batch_id)
    before = await byhand.everything()
    assert (await byhand.drop([one], batch_id)).verdict is Verdict.TOO_LATE
    assert await byhand.everything() == before


async def test_a_request_that_others_wait_for_is_left_to_them(byhand: ByHand) -> None:
    [alone, shared, theirs] = ids(3)
    batch_id, other = await byhand.opened([alone, shared]), new_mailbox()
    await byhand.enqueue([row(shared), row(theirs)], into=batch_id, mailbox=other)

    dropped = await byhand.drop([alone, shared, theirs], batch_id)

    assert (dropped.n_dropped, dropped.n_shared, dropped.ended) == (1, 2, False)
    assert await byhand.place(shared) == f"{batch_id}|1|{byhand.mailbox},{other}"
    assert await byhand.place(theirs) == f"{batch_id}|1|{other}"
    assert await byhand.mail(other) == []


async def test_a_request_with_unnamed_waiters_is_left_alone(byhand: ByHand) -> None:
    [one] = ids(1)
    batch_id = await byhand.opened([one])
    came = [new_mailbox() for _ in range(MOST_NAMED)]
    for mailbox in came:
        await byhand.enqueue([row(one)], into=new_batch_id(), mailbox=mailbox)

    dropped = await byhand.drop([one], batch_id, came)

    assert (dropped.n_dropped, dropped.n_shared, dropped.ended) == (0, 1, False)
    assert await byhand.place(one) == f"{batch_id}|1|+,{','.join(came)}"


@pytest.mark.parametrize("state", EARLY)
async def test_a_batch_that_holds_nothing_else_ends(byhand: ByHand, state: BatchState) -> None:
    asked = ids(3)
    batch_id = await byhand.in_state(state, asked)
    token = await byhand.claimed(batch_id)

    first = await byhand.drop(asked[:2], batch_id)
    last = await byhand.drop(asked[2:], batch_id)

    assert (first.ended, last.ended) == (False, True)
    batch = await byhand.batch(batch_id)
    assert (batch.state, batch.outcome, batch.error) == (
        BatchState.ENDED,
        Outcome.CANCELLED,
        "a person cancelled it",
    )
    assert await byhand.begin(batch_id, token) is None, "a submission that was claimed before went on"
    assert [claim.state for claim in await byhand.claims(batch_id)] == [BatchState.ENDED]
    assert (await byhand.enqueue([row(one) for one in asked], into=batch_id)).verdict is Verdict.USED


async def test_a_quarantined_batch_that_is_emptied_is_looked_at_again(byhand: ByHand) -> None:
    asked = ids(2)
    batch_id = await byhand.sealed(asked)
    await byhand.redis.execute_command("HSET", byhand.keys.batch(batch_id), "quarantined_at", 1)
    await byhand.redis.execute_command("ZREM", byhand.keys.schedule, batch_id)

    assert (await byhand.drop(asked, batch_id)).ended

    assert (await byhand.batch(batch_id)).quarantined_at is None
    assert [claim.state for claim in await byhand.claims(batch_id)] == [BatchState.ENDED]


async def test_asked_for_again_in_the_same_batch_it_has_one_row_and_is_paid_for_once(byhand: ByHand) -> None:
    [one, other] = ids(2)
    batch_id = await byhand.opened([one, other])
    await byhand.drop([one], batch_id)

    reply = await byhand.enqueue([row(one)], into=batch_id)

    assert reply.placements == (Placement.QUEUED,)
    assert await byhand.ids_of(batch_id) == [one, other]
    assert await byhand.result(one) is None
    assert (await byhand.batch(batch_id)).n_dropped == 0


async def test_a_second_drop_and_another_batch_change_nothing(byhand: ByHand) -> None:
    [one, other] = ids(2)
    elsewhere = await byhand.sealed(ids(1))
    batch_id = await byhand.opened([one, other])
    await byhand.drop([one], batch_id)
    before = await byhand.everything()
    assert (await byhand.drop([one], batch_id)).n_dropped == 0
    assert (await byhand.drop([other], elsewhere)).n_dropped == 0
    assert (await byhand.drop([other], batch_id, [])).n_shared == 1
    assert await byhand.everything() == before


async def test_an_unknown_batch_is_not_made(byhand: ByHand) -> None:
    assert (await byhand.drop(ids(1), BatchId("b-none"))).verdict is Verdict.GONE
    assert await byhand.everything() == {}


async def test_a_drop_and_a_submission_at_once_agree_on_what_is_sent(byhand: ByHand) -> None:
    """A reader of the rows after the intent sees every drop that was granted."""
    asked = ids(40)
    batch_id = await byhand.sealed([*asked, *ids(1)])
    token = await byhand.claimed(batch_id)

    async def submit() -> set[str]:
        await byhand.scripts.intend(batch_id=batch_id, token=token, label="label")
        return {one for one in asked if await byhand.place(one) is not None}

    replies, sent = await asyncio.gather(
        asyncio.gather(*(byhand.drop([one], batch_id) for one in asked)), submit()
    )

    dropped = {one for one, reply in zip(asked, replies, strict=True) if reply.n_dropped}
    assert sent == set(asked) - dropped


async def test_a_run_knows_the_mailboxes_that_wait_for_it(byhand: ByHand) -> None:
    other = new_mailbox()
    batch_id = new_batch_id()
    await byhand.enqueue([row(one) for one in ids(1)], into=batch_id)
    await byhand.enqueue([row(one) for one in ids(1)], into=batch_id, mailbox=other)
    inspection = Inspection(byhand.redis, byhand.keys)
    assert set(await inspection.mailboxes_of(byhand.run_id)) == {byhand.mailbox, other}
