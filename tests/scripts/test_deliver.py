"""Deliver: each request is answered once, all waiting sessions get a notice, and no paid answer is dropped."""

from __future__ import annotations

import asyncio

import pytest
from redis.asyncio import Redis

from batchling_client.wire.ids import new_batch_id, new_mailbox
from batchling_client.wire.keys import Mailbox
from batchling_client.wire.states import RowKind, Verdict

from .byhand import ByHand, ids, out, row

S, F, R = RowKind.SUCCESS, RowKind.FAILURE, RowKind.RETRY


async def test_deliver_twice_answers_once(byhand: ByHand) -> None:
    asked = ids(3)
    batch_id = await byhand.over(asked)
    token = await byhand.claimed(batch_id)
    rows = [out(one, body=b"first") for one in asked]

    first = await byhand.deliver(batch_id, token, rows)
    second = await byhand.deliver(batch_id, token, [out(one, body=b"second") for one in asked])

    assert (first.n_answered, first.n_unknown) == (3, 0)
    assert (second.n_answered, second.n_unknown) == (0, 3)
    results = [await byhand.result(one) for one in asked]
    assert {result.body for result in results if result} == {b"first"}
    assert await byhand.mail() == asked
    assert (await byhand.batch(batch_id)).n_succeeded == 3


async def test_an_answer_is_stored_before_it_is_announced(byhand: ByHand) -> None:
    [one] = ids(1)
    batch_id = await byhand.over([one])
    token = await byhand.claimed(batch_id)
    pubsub = byhand.redis.pubsub()
    await pubsub.subscribe(byhand.keys.notice(byhand.mailbox))
    await pubsub.get_message(timeout=5)

    await byhand.deliver(batch_id, token, [out(one)])

    notice = await pubsub.get_message(ignore_subscribe_messages=True, timeout=5)
    assert notice is not None
    assert notice["data"] == b""
    assert await byhand.mail() == [one]
    assert await byhand.result(one) is not None
    await pubsub.aclose()


async def test_strangers_and_other_batches_rows_are_left_alone(byhand: ByHand) -> None:
    [mine, elsewhere] = ids(2)
    batch_id = await byhand.over([mine])
    await byhand.at_provider([elsewhere])
    token = await byhand.claimed(batch_id)

    reply = await byhand.deliver(batch_id, token, [out(ids(1)[0]), out(elsewhere), out(mine)])

    assert (reply.n_answered, reply.n_unknown) == (1, 2)
    assert await byhand.result(elsewhere) is None
    assert await byhand.mail() == [mine]


async def test_a_row_worth_another_attempt_is_left_until_its_attempts_are_used_up(byhand: ByHand) -> None:
    [one] = ids(1)
    batch_id = await byhand.over([one])
    token = await byhand.claimed(batch_id)

    left = await byhand.deliver(batch_id, token, [out(one, R)], max_attempts=2)
    assert (left.n_answered, left.n_retry) == (0, 1)
    assert await byhand.place(one) is not None

    last = await byhand.deliver(batch_id, token, [out(one, R)], max_attempts=1)
    assert (last.n_answered, last.n_retry) == (1, 0)
    result = await byhand.result(one)
    assert result is not None
    assert result.status == 503
    assert (await byhand.batch(batch_id)).n_failed == 1


@pytest.mark.parametrize("kinds", [(R, S), (S, R), (R, R, S), (R, S, R)])
async def test_an_answer_beside_an_error_for_the_same_request_wins(
    byhand: ByHand, kinds: tuple[RowKind, ...]
) -> None:
    """Providers repeat rows: a success that was paid for must not be lost to a 500 that stands before it."""
    [one] = ids(1)
    batch_id = await byhand.over([one])
    token = await byhand.claimed(batch_id)

    reply = await byhand.deliver(batch_id, token, [out(one, kind) for kind in kinds])

    assert (reply.n_answered, reply.n_retry) == (1, 0)
    result = await byhand.result(one)
    assert result is not None
    assert result.status == 200
    assert await byhand.mail() == [one]


async def test_a_repeated_error_is_left_once(byhand: ByHand) -> None:
    [one] = ids(1)
    batch_id = await byhand.over([one])
    reply = await byhand.deliver(batch_id, await byhand.claimed(batch_id), [out(one, R), out(one, R)])
    assert (reply.n_answered, reply.n_retry) == (0, 1)


async def test_nothing_is_done_until_every_mailbox_is_named(byhand: ByHand) -> None:
    [one, two] = ids(2)
    batch_id = await byhand.over([one, two])
    other = new_mailbox()
    await byhand.enqueue([row(two)], into=new_batch_id(), mailbox=other)
    token = await byhand.claimed(batch_id)
    before = await byhand.everything()

    reply = await byhand.deliver(batch_id, token, [out(one), out(two)], mailboxes=[])
    assert reply.verdict is Verdict.MAILBOXES
    assert set(reply.mailboxes) == {byhand.mailbox, other}
    assert await byhand.everything() == before

    await byhand.deliver(batch_id, token, [out(one), out(two)], mailboxes=reply.mailboxes)
    assert await byhand.mail() == [one, two]
    assert await byhand.mail(other) == [two]


async def test_a_waiter_that_joins_between_two_deliveries_is_asked_for(byhand: ByHand) -> None:
    [one] = ids(1)
    batch_id = await byhand.over([one])
    token = await byhand.claimed(batch_id)
    late = new_mailbox()
    await byhand.enqueue([row(one)], into=new_batch_id(), mailbox=late)

    reply = await byhand.deliver(batch_id, token, [out(one)])

    assert (reply.verdict, reply.mailboxes) == (Verdict.MAILBOXES, (late,))


async def test_joining_while_it_is_delivered_ends_joined_and_told_or_answered(
    byhand: ByHand, redis_url: str
) -> None:
    asked = ids(60)
    batch_id = await byhand.over(asked)
    token = await byhand.claimed(batch_id)
    late = new_mailbox()
    async with Redis.from_url(redis_url) as second:
        joining = ByHand(second, byhand.keys)

        async def join() -> list[str]:
            marks = []
            for one in asked:
                reply = await joining.enqueue([row(one)], into=new_batch_id(), mailbox=late)
                marks.append(reply.placements[0].value)
            return marks

        async def deliver() -> None:
            for one in asked:
                known: tuple[Mailbox, ...] = (byhand.mailbox,)
                while True:
                    reply = await byhand.deliver(batch_id, token, [out(one)], mailboxes=known)
                    if reply.verdict is Verdict.OK:
                        break
                    known = (*known, *reply.mailboxes)

        marks, _ = await asyncio.gather(join(), deliver())

    told = set(await byhand.mail(late))
    assert {one for one, mark in zip(asked, marks, strict=True) if mark == "J"} == told
    assert set(marks) <= {"J", "D"}
