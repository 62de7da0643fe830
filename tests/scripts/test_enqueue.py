"""Enqueue: an accepted request is in exactly one batch, once, and all sessions that asked for it get a notice."""

from __future__ import annotations

import asyncio
import dataclasses

import pytest

from batchling_client.wire.ids import new_batch_id, new_mailbox, new_run_id
from batchling_client.wire.states import BatchState, Placement, RowKind, Verdict

from .byhand import KEEP_MS, WIDE, ByHand, ids, out, row
from .model import MOST_NAMED

Q, J, D = Placement.QUEUED, Placement.JOINED, Placement.ANSWERED


async def test_queued_requests_are_in_the_open_batch_in_order(byhand: ByHand) -> None:
    asked = ids(3)
    batch_id = await byhand.opened(asked)

    assert await byhand.ids_of(batch_id) == asked
    assert [await byhand.place(one) for one in asked] == [f"{batch_id}|1|{byhand.mailbox}"] * 3
    batch = await byhand.batch(batch_id)
    assert (batch.state, batch.n_requests, batch.n_bytes) == (BatchState.OPEN, 3, 3 * row(asked[0]).size)


async def test_resent_enqueue_queues_once(byhand: ByHand) -> None:
    asked = ids(4)
    batch_id = await byhand.opened(asked)

    again = await byhand.enqueue([row(one) for one in asked], into=batch_id)

    assert again.placements == (J,) * 4
    assert await byhand.ids_of(batch_id) == asked
    assert await byhand.place(asked[0]) == f"{batch_id}|1|{byhand.mailbox}"


async def test_a_request_named_twice_in_one_call_queues_once(byhand: ByHand) -> None:
    [one] = ids(1)
    batch_id = new_batch_id()

    reply = await byhand.enqueue([row(one), row(one)], into=batch_id)

    assert reply.placements == (Q, J)
    assert await byhand.ids_of(batch_id) == [one]


async def test_a_second_client_is_sent_to_the_open_batch(byhand: ByHand) -> None:
    batch_id = await byhand.opened(ids(1))
    asked = ids(2)

    moved = await byhand.enqueue([row(one) for one in asked], into=new_batch_id())
    assert (moved.verdict, moved.open_batch) == (Verdict.MOVED, batch_id)
    assert await byhand.place(asked[0]) is None

    reply = await byhand.enqueue([row(one) for one in asked], into=batch_id)
    assert reply.placements == (Q, Q)


async def test_a_sealed_batch_is_never_opened_again(byhand: ByHand) -> None:
    batch_id = await byhand.sealed(ids(1))
    before = await byhand.everything()

    reply = await byhand.enqueue([row(one) for one in ids(1)], into=batch_id)

    assert reply.verdict is Verdict.USED
    assert await byhand.everything() == before


@pytest.mark.parametrize("state", list(BatchState))
async def test_a_batch_of_any_state_but_open_takes_nothing_new(byhand: ByHand, state: BatchState) -> None:
    batch_id = await byhand.in_state(state, ids(1))
    reply = await byhand.enqueue([row(one) for one in ids(1)], into=batch_id)
    assert reply.verdict is (Verdict.OK if state is BatchState.OPEN else Verdict.USED)


async def test_cap_seals_and_rest_goes_on(byhand: ByHand) -> None:
    asked = ids(7)
    cap = dataclasses.replace(WIDE, rows=3, linger_ms=60_000, longest_ms=60_000)
    rest, batches = list(asked), []
    while rest:
        batches.append(new_batch_id())
        reply = await byhand.enqueue([row(one) for one in rest], into=batches[-1], cap=cap)
        rest = rest[len(reply.placements) :]

    assert [await byhand.ids_of(one) for one in batches] == [asked[:3], asked[3:6], asked[6:]]
    states = [(await byhand.batch(one)).state for one in batches]
    assert states == [BatchState.SEALED, BatchState.SEALED, BatchState.OPEN]
    assert [claim.batch_id for claim in await byhand.claims(*batches)] == batches[:2]


async def test_cap_of_bytes_seals_before_the_row_that_would_burst_it(byhand: ByHand) -> None:
    asked = ids(3)
    cap = dataclasses.replace(WIDE, bytes=2 * row(asked[0]).size + 1)
    batch_id = new_batch_id()

    reply = await byhand.enqueue([row(one) for one in asked], into=batch_id, cap=cap)

    assert reply.placements == (Q, Q)
    assert (await byhand.batch(batch_id)).state is BatchState.SEALED


async def test_a_row_larger_than_the_cap_goes_alone_instead_of_round_in_circles(byhand: ByHand) -> None:
    cap = dataclasses.replace(WIDE, bytes=10)
    batch_id = new_batch_id()
    reply = await byhand.enqueue([row(one, b"x" * 100) for one in ids(2)], into=batch_id, cap=cap)
    assert reply.placements == (Q,)
    assert (await byhand.batch(batch_id)).n_requests == 1


async def test_joined_request_is_delivered_to_both_mailboxes(byhand: ByHand) -> None:
    [one] = ids(1)
    batch_id = await byhand.opened([one])
    other = new_mailbox()

    reply = await byhand.enqueue([row(one)], into=new_batch_id(), mailbox=other, run_id=new_run_id())
    assert reply.placements == (J,)

    await byhand.seal(batch_id, await byhand.claimed(batch_id))
    token = await byhand.claimed(batch_id)
    delivered = await byhand.deliver(batch_id, token, [out(one)], mailboxes=[byhand.mailbox, other])
    assert delivered.n_answered == 1
    assert await byhand.mail() == await byhand.mail(other) == [one]


@pytest.mark.parametrize("state", [state for state in BatchState if not state.terminal])
async def test_a_request_is_joined_wherever_it_is_in_its_life(byhand: ByHand, state: BatchState) -> None:
    [one] = ids(1)
    batch_id = await byhand.in_state(state, [one])
    other = new_mailbox()

    reply = await byhand.enqueue([row(one)], into=new_batch_id(), mailbox=other)

    assert reply.placements == (J,)
    assert await byhand.place(one) == f"{batch_id}|1|{byhand.mailbox},{other}"


async def test_a_joiner_whose_name_is_part_of_another_gets_a_notice_too(byhand: ByHand) -> None:
    [one] = ids(1)
    await byhand.opened([one])
    part = byhand.mailbox[:-1]

    await byhand.enqueue([row(one)], into=new_batch_id(), mailbox=type(byhand.mailbox)(part))

    assert (await byhand.place(one) or "").endswith(f"|{byhand.mailbox},{part}")


async def test_a_request_names_only_the_latest_of_a_client_that_is_killed_again_and_again(
    byhand: ByHand,
) -> None:
    [one] = ids(1)
    batch_id = await byhand.opened([one])
    came = [new_mailbox() for _ in range(3 * MOST_NAMED)]
    for mailbox in came:
        reply = await byhand.enqueue([row(one)], into=new_batch_id(), mailbox=mailbox)
        assert reply.placements == (J,)
    latest = came[-MOST_NAMED:]
    assert await byhand.place(one) == f"{batch_id}|1|+,{','.join(latest)}"

    await byhand.seal(batch_id, await byhand.claimed(batch_id))
    token = await byhand.claimed(batch_id)
    delivered = await byhand.deliver(batch_id, token, [out(one)], mailboxes=latest)

    assert delivered.n_answered == 1
    assert [await byhand.mail(mailbox) for mailbox in latest] == [[one]] * MOST_NAMED
    assert [await byhand.mail(mailbox) for mailbox in (byhand.mailbox, came[0])] == [[], []]


async def test_as_many_as_a_request_names_are_all_named(byhand: ByHand) -> None:
    [one] = ids(1)
    batch_id = await byhand.opened([one])
    came = [byhand.mailbox, *(new_mailbox() for _ in range(MOST_NAMED - 1))]
    for mailbox in (*came, *came):
        await byhand.enqueue([row(one)], into=new_batch_id(), mailbox=mailbox)
    assert await byhand.place(one) == f"{batch_id}|1|{','.join(came)}"


async def test_a_list_of_yesterday_is_cut_at_the_next_join(byhand: ByHand) -> None:
    [one] = ids(1)
    batch_id = await byhand.opened([one])
    came = [new_mailbox() for _ in range(100)]
    key = byhand.keys.request(one)
    await byhand.redis.execute_command("SET", key, f"{batch_id}|2|{','.join(came)}", "KEEPTTL")

    await byhand.enqueue([row(one)], into=new_batch_id())

    named = [*came[-MOST_NAMED + 1 :], byhand.mailbox]
    assert await byhand.place(one) == f"{batch_id}|2|+,{','.join(named)}"


async def test_a_run_counts_the_requests_that_earlier_runs_had_made(byhand: ByHand) -> None:
    """Answered or in flight, and not those that it sends again itself."""
    answered, flying, fresh = ids(3)
    await byhand.in_state(BatchState.SETTLED, [answered])
    batch_id = await byhand.opened([flying])
    run_id, mailbox = new_run_id(), new_mailbox()
    rows = [row(one) for one in (answered, flying, fresh)]

    for _ in range(2):
        reply = await byhand.enqueue(rows[1:], into=batch_id, run_id=run_id, mailbox=mailbox)
    assert reply.placements == (J, J)
    await byhand.enqueue(rows[:1], into=batch_id, run_id=run_id, mailbox=mailbox)

    assert await byhand.redis.execute_command("HGET", byhand.keys.run(run_id), "n_reused") == b"2"
    assert await byhand.redis.execute_command("HGET", byhand.keys.run(byhand.run_id), "n_reused") is None


async def test_an_answered_request_is_not_asked_again(byhand: ByHand) -> None:
    [one] = ids(1)
    await byhand.in_state(BatchState.SETTLED, [one])
    batch_id = new_batch_id()

    reply = await byhand.enqueue([row(one)], into=batch_id)

    assert reply.placements == (D,)
    assert await byhand.fields(batch_id) == {}
    assert await byhand.place(one) is None


async def test_failed_result_is_asked_anew_only_when_wanted(byhand: ByHand) -> None:
    [one] = ids(1)
    batch_id = await byhand.over([one])
    token = await byhand.claimed(batch_id)
    await byhand.deliver(batch_id, token, [out(one, RowKind.FAILURE)])

    resent = await byhand.enqueue([row(one)], into=new_batch_id(), ask_failed_anew=False)
    assert resent.placements == (D,)
    assert await byhand.result(one) is not None

    rerun = await byhand.enqueue([row(one)], into=new_batch_id(), ask_failed_anew=True)
    assert rerun.placements == (Q,)
    assert await byhand.result(one) is None


async def test_two_clients_at_once_open_one_batch(byhand: ByHand) -> None:
    asked = [ids(5) for _ in range(8)]

    async def client(mine: list[str]) -> None:
        guess = new_batch_id()
        while (reply := await byhand.enqueue([row(type(one)(one)) for one in mine], into=guess)).open_batch:  # type: ignore[arg-type]
            guess = reply.open_batch

    await asyncio.gather(*(client(list(mine)) for mine in asked))

    places = {(await byhand.place(one) or "").partition("|")[0] for mine in asked for one in mine}
    assert len(places) == 1


async def test_linger_starts_anew_with_each_arrival_and_ends_with_the_longest(byhand: ByHand) -> None:
    cap = dataclasses.replace(WIDE, linger_ms=1000, longest_ms=1500)
    batch_id = await byhand.opened(ids(1), cap=cap)
    opened_at = (await byhand.batch(batch_id)).created_at.timestamp() * 1000
    first = await byhand.next_look(batch_id)
    assert first == pytest.approx(opened_at + 1000, abs=1)

    await byhand.redis.execute_command("HINCRBY", byhand.keys.batch(batch_id), "created_at", -800)
    await byhand.enqueue([row(one) for one in ids(1)], into=batch_id, cap=cap)

    assert await byhand.next_look(batch_id) == pytest.approx(opened_at + 700, abs=1)


async def test_a_patient_client_does_not_hold_up_a_hurried_one(byhand: ByHand) -> None:
    hurried = dataclasses.replace(WIDE, linger_ms=50, longest_ms=750)
    patient = dataclasses.replace(WIDE, linger_ms=600_000, longest_ms=9_000_000)
    batch_id = await byhand.opened(ids(1), cap=hurried)

    await byhand.enqueue([row(one) for one in ids(1)], into=batch_id, cap=patient)

    due = await byhand.next_look(batch_id)
    assert due is not None
    assert due <= await byhand.now_ms() + 50


async def test_the_shortest_poll_interval_wins(byhand: ByHand) -> None:
    batch_id = new_batch_id()
    for poll_ms in (5000, 200, 9000):
        await byhand.enqueue([row(one) for one in ids(1)], into=batch_id, poll_ms=poll_ms)
    assert (await byhand.batch(batch_id)).poll_s == 0.2


async def test_a_run_knows_its_batches_and_its_count(byhand: ByHand) -> None:
    [joined] = ids(1)
    first = await byhand.sealed([joined])
    second, run_id = new_batch_id(), new_run_id()

    await byhand.enqueue([row(joined), *(row(one) for one in ids(2))], into=second, run_id=run_id)

    members = await byhand.redis.execute_command("SMEMBERS", byhand.keys.run_batches(run_id))
    assert {member.decode() for member in members} == {first, second}
    assert await byhand.redis.execute_command("HGET", byhand.keys.run(run_id), "n_requests") == b"3"


async def test_a_batch_that_vanished_does_not_block_its_lane(byhand: ByHand) -> None:
    batch_id = await byhand.opened(ids(1))
    await byhand.redis.execute_command("UNLINK", byhand.keys.batch(batch_id))

    moved = await byhand.enqueue([row(one) for one in ids(1)], into=new_batch_id())
    reply = await byhand.enqueue([row(one) for one in ids(1)], into=moved.open_batch or batch_id)

    assert reply.placements == (Q,)
    assert (await byhand.batch(batch_id)).state is BatchState.OPEN


async def test_times_keep_every_millisecond_and_never_turn_into_exponents(byhand: ByHand) -> None:
    batch_id = await byhand.over(ids(1))
    fields = await byhand.fields(batch_id)
    times = {name: value for name, value in fields.items() if name.endswith(b"_at")}

    assert set(times) >= {
        b"created_at",
        b"updated_at",
        b"sealed_at",
        b"create_at",
        b"submitted_at",
        b"ended_at",
    }
    now = await byhand.now_ms()
    assert all(value.isdigit() and abs(now - int(value)) < 60_000 for value in times.values()), times


async def test_every_key_of_a_request_in_flight_outlives_the_call_by_keep(byhand: ByHand) -> None:
    [one] = ids(1)
    batch_id = await byhand.opened([one])
    keys = byhand.keys
    for key in (keys.request(one), keys.rows(batch_id), keys.batch(batch_id), keys.lane(byhand.lane_id)):
        assert KEEP_MS - 10_000 < await byhand.redis.execute_command("PTTL", key) <= KEEP_MS
