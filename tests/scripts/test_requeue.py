"""Requeue: what a batch left unanswered moves on once, with all who wait for it."""

from __future__ import annotations

import dataclasses

from batchling_client.wire.ids import new_batch_id, new_mailbox
from batchling_client.wire.states import BatchState, RowKind, Verdict

from .byhand import WIDE, ByHand, ids, out, row

HURRIED = dataclasses.replace(WIDE, linger_ms=50, longest_ms=750)
SOON = dataclasses.replace(WIDE, linger_ms=500, longest_ms=5_000)
PATIENT = dataclasses.replace(WIDE, linger_ms=3_600_000, longest_ms=54_000_000)


async def test_requeue_torn_off_and_repeated_moves_once(byhand: ByHand) -> None:
    asked = ids(3)
    source = await byhand.over(asked)
    token = await byhand.claimed(source)
    rows = [row(one, attempt=2) for one in asked]
    target = new_batch_id()
    await byhand.requeue(source, token, rows[:2], target=target)

    token = await byhand.claimed(source)
    verdict, n_taken, _ = await byhand.requeue(source, token, rows, target=target)

    assert (verdict, n_taken) == (Verdict.OK, 3)
    assert await byhand.ids_of(target) == asked
    assert [await byhand.place(one) for one in asked] == [f"{target}|2|{byhand.mailbox}"] * 3
    assert (await byhand.batch(source)).n_requeued == 3
    assert (await byhand.batch(source)).moved_to == target


async def test_the_same_call_sent_twice_moves_once(byhand: ByHand) -> None:
    [one] = ids(1)
    source = await byhand.over([one])
    token = await byhand.claimed(source)
    first, second = new_batch_id(), new_batch_id()
    await byhand.requeue(source, token, [row(one, attempt=2)], target=first)
    await byhand.seal(first, await byhand.claimed(first))

    assert await byhand.requeue(source, token, [row(one, attempt=2)], target=second) == (Verdict.OK, 1, None)

    assert await byhand.fields(second) == {}, "a batch was opened for nothing"
    assert await byhand.ids_of(first) == [one]


async def test_a_row_named_twice_in_one_call_moves_once(byhand: ByHand) -> None:
    [one] = ids(1)
    source = await byhand.over([one])
    target = new_batch_id()
    rows = [row(one, attempt=2), row(one, attempt=2)]
    await byhand.requeue(source, await byhand.claimed(source), rows, target=target)
    assert await byhand.ids_of(target) == [one]


async def test_answered_and_foreign_requests_stay_where_they_are(byhand: ByHand) -> None:
    [answered, left, elsewhere] = ids(3)
    source = await byhand.over([answered, left])
    other = await byhand.at_provider([elsewhere])
    token = await byhand.claimed(source)
    await byhand.deliver(source, token, [out(answered)])
    target = new_batch_id()

    await byhand.requeue(source, token, [row(one) for one in (answered, left, elsewhere)], target=target)

    assert await byhand.ids_of(target) == [left]
    assert await byhand.place(elsewhere) == f"{other}|1|{byhand.mailbox}"
    assert await byhand.place(answered) is None


async def test_everybody_who_waits_moves_along(byhand: ByHand) -> None:
    [one] = ids(1)
    source = await byhand.over([one])
    other = new_mailbox()
    await byhand.enqueue([row(one)], into=new_batch_id(), mailbox=other)
    target = new_batch_id()
    await byhand.requeue(source, await byhand.claimed(source), [row(one, attempt=2)], target=target)
    assert await byhand.place(one) == f"{target}|2|{byhand.mailbox},{other}"


async def test_what_has_left_some_out_moves_and_is_answered_though_nobody_is_named(byhand: ByHand) -> None:
    [one] = ids(1)
    source = await byhand.over([one])
    await byhand.redis.execute_command("SET", byhand.keys.request(one), f"{source}|1|+", "KEEPTTL")
    target = new_batch_id()
    await byhand.requeue(source, await byhand.claimed(source), [row(one, attempt=2)], target=target)
    assert await byhand.place(one) == f"{target}|2|+"

    await byhand.seal(target, await byhand.claimed(target))
    reply = await byhand.deliver(target, await byhand.claimed(target), [out(one)], mailboxes=[])

    assert (reply.verdict, reply.n_answered) == (Verdict.OK, 1)


async def test_moved_requests_join_the_lanes_open_batch(byhand: ByHand) -> None:
    [one, new] = ids(2)
    source = await byhand.over([one])
    open_batch = await byhand.opened([new])
    token = await byhand.claimed(source)

    assert await byhand.requeue(source, token, [row(one)]) == (Verdict.MOVED, 0, open_batch)
    await byhand.requeue(source, token, [row(one)], target=open_batch)

    assert await byhand.ids_of(open_batch) == [new, one]


async def test_a_full_target_is_sealed_and_the_rest_goes_on(byhand: ByHand) -> None:
    asked = ids(5)
    source = await byhand.over(asked)
    token = await byhand.claimed(source)
    cap = dataclasses.replace(WIDE, rows=2)
    rest, targets = [row(one, attempt=2) for one in asked], []
    while rest:
        targets.append(new_batch_id())
        verdict, n_taken, _ = await byhand.requeue(source, token, rest, target=targets[-1], cap=cap)
        assert verdict is Verdict.OK
        rest = rest[n_taken:]

    assert [await byhand.ids_of(one) for one in targets] == [asked[:2], asked[2:4], asked[4:]]
    assert (await byhand.batch(targets[0])).state is BatchState.SEALED
    assert [await byhand.place(one) for one in asked[4:]] == [f"{targets[2]}|2|{byhand.mailbox}"]


async def test_a_sealed_batch_takes_nothing_moved(byhand: ByHand) -> None:
    [one] = ids(1)
    source = await byhand.over([one])
    used = await byhand.sealed(ids(1))
    token = await byhand.claimed(source)
    assert await byhand.requeue(source, token, [row(one)], target=used) == (Verdict.USED, 0, None)
    assert await byhand.place(one) == f"{source}|1|{byhand.mailbox}"


async def test_the_attempt_of_a_moved_request_counts_in_its_next_batch(byhand: ByHand) -> None:
    [one] = ids(1)
    source = await byhand.over([one])
    target = new_batch_id()
    await byhand.requeue(source, await byhand.claimed(source), [row(one, attempt=3)], target=target)
    await byhand.seal(target, await byhand.claimed(target))

    reply = await byhand.deliver(
        target, await byhand.claimed(target), [out(one, RowKind.RETRY)], max_attempts=3
    )

    assert (reply.n_answered, reply.n_retry) == (1, 0)


async def test_a_moved_request_keeps_its_wish_for_polls(byhand: ByHand) -> None:
    [one] = ids(1)
    source = await byhand.over([one])
    target = new_batch_id()
    await byhand.requeue(source, await byhand.claimed(source), [row(one)], target=target)
    assert (await byhand.batch(target)).poll_s == (await byhand.batch(source)).poll_s == 1.0


async def test_a_patient_client_does_not_hold_up_what_was_moved(byhand: ByHand) -> None:
    [one] = ids(1)
    source = await byhand.over([one])
    target = new_batch_id()
    await byhand.requeue(source, await byhand.claimed(source), [row(one)], target=target, cap=SOON)

    for asked in ids(2):
        await byhand.enqueue([row(asked)], into=target, cap=PATIENT)

    batch = await byhand.batch(target)
    assert batch.n_requests == 3
    due = await byhand.next_look(target)
    assert due is not None
    assert due <= min(
        await byhand.now_ms() + SOON.linger_ms, batch.created_at.timestamp() * 1000 + SOON.longest_ms + 1
    )


async def test_moved_requests_shorten_a_long_linger_and_never_lengthen_a_short_linger(
    byhand: ByHand,
) -> None:
    for cap in (PATIENT, HURRIED):
        asked, moved = ids(2)
        source = await byhand.over([moved])
        target = await byhand.opened([asked], cap=cap)
        token = await byhand.claimed(source)

        await byhand.requeue(source, token, [row(moved)], target=target, cap=SOON)

        due = await byhand.next_look(target)
        assert due is not None
        assert due <= await byhand.now_ms() + min(cap.linger_ms, SOON.linger_ms)
        await byhand.seal(target, await byhand.claimed(target))


async def test_a_batch_of_yesterday_holds_no_pace_and_takes_what_is_moved(byhand: ByHand) -> None:
    asked, moved = ids(2)
    source = await byhand.over([moved])
    target = await byhand.opened([asked], cap=PATIENT)
    await byhand.redis.execute_command("HDEL", byhand.keys.batch(target), "linger_ms", "longest_ms")

    await byhand.requeue(source, await byhand.claimed(source), [row(moved)], target=target, cap=SOON)

    due = await byhand.next_look(target)
    assert due is not None
    assert due <= await byhand.now_ms() + SOON.linger_ms
    assert await byhand.ids_of(target) == [asked, moved]
