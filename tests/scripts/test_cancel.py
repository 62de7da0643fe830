"""Cancel: what no provider knows ends at once, the rest at its next look; a create on its way keeps its owner."""

from __future__ import annotations

import asyncio

import pytest

from batchling_client.wire.ids import new_batch_id, new_mailbox
from batchling_client.wire.keys import BatchId
from batchling_client.wire.states import BatchState, Outcome, Placement, Verdict

from .byhand import ByHand, ids, out, row


@pytest.mark.parametrize("state", [BatchState.OPEN, BatchState.SEALED])
async def test_what_no_provider_knows_ends_at_once(byhand: ByHand, state: BatchState) -> None:
    batch_id = await byhand.in_state(state, ids(2))
    token = await byhand.claimed(batch_id)

    assert await byhand.cancel(batch_id) is Verdict.OK

    batch = await byhand.batch(batch_id)
    assert (batch.state, batch.outcome) == (BatchState.ENDED, Outcome.CANCELLED)
    assert batch.error == "a person cancelled it"
    assert await byhand.begin(batch_id, token) is None, "a submission that was claimed before went on"
    [claim] = await byhand.claims(batch_id)
    assert claim.state is BatchState.ENDED


async def test_a_cancelled_open_batch_takes_nothing_new(byhand: ByHand) -> None:
    batch_id = await byhand.opened(ids(1))
    await byhand.cancel(batch_id)
    assert (await byhand.enqueue([row(one) for one in ids(1)], into=batch_id)).verdict is Verdict.USED
    assert (await byhand.enqueue([row(one) for one in ids(1)], into=new_batch_id())).verdict is Verdict.OK


@pytest.mark.parametrize("state", [BatchState.OPEN, BatchState.SEALED])
async def test_what_another_redis_had_opened_is_closed_and_looked_at_before_it_ends(
    byhand: ByHand, state: BatchState
) -> None:
    batch_id = await byhand.in_state(state, ids(2))
    await byhand.opened_elsewhere(batch_id)
    token = await byhand.claimed(batch_id)

    assert await byhand.cancel(batch_id) is Verdict.OK

    batch = await byhand.batch(batch_id)
    assert (batch.state, batch.cancel_requested) == (BatchState.SEALED, True)
    assert await byhand.begin(batch_id, token) is None
    assert [claim.state for claim in await byhand.claims(batch_id)] == [BatchState.SEALED]
    assert (await byhand.enqueue([row(one) for one in ids(1)], into=batch_id)).verdict is Verdict.USED
    assert (await byhand.enqueue([row(one) for one in ids(1)], into=new_batch_id())).verdict is Verdict.OK


async def test_a_batch_at_the_provider_is_looked_at_now(byhand: ByHand) -> None:
    batch_id = await byhand.at_provider(ids(1))
    await byhand.progress(batch_id, await byhand.claimed(batch_id), delay_s=600)

    assert await byhand.cancel(batch_id) is Verdict.OK

    [claim] = await byhand.claims(batch_id)
    assert claim.state is BatchState.SUBMITTED
    assert (await byhand.batch(batch_id)).cancel_requested


async def test_a_create_on_its_way_keeps_its_token(byhand: ByHand) -> None:
    batch_id, token = await byhand.in_submission(ids(1))
    await byhand.scripts.arm(batch_id=batch_id, token=token)

    assert await byhand.cancel(batch_id) is Verdict.OK

    assert await byhand.submitted(batch_id, token) == (Verdict.OK, "")
    assert (await byhand.batch(batch_id)).cancel_requested


async def test_a_submission_that_waits_for_better_weather_is_looked_at_now(byhand: ByHand) -> None:
    batch_id, token = await byhand.in_submission(ids(1))
    await byhand.scripts.release(batch_id=batch_id, token=token, delay_s=300, error="503")
    assert await byhand.claims(batch_id) == []

    assert await byhand.cancel(batch_id) is Verdict.OK

    assert len(await byhand.claims(batch_id)) == 1


@pytest.mark.parametrize(
    "state", [state for state in BatchState if state is BatchState.ENDED or state.terminal]
)
async def test_what_has_ended_is_not_cancelled(byhand: ByHand, state: BatchState) -> None:
    batch_id = await byhand.in_state(state, ids(1))
    before = await byhand.everything()
    assert await byhand.cancel(batch_id) is Verdict.TOO_LATE
    assert await byhand.everything() == before


async def test_an_unknown_batch_is_not_made_by_cancelling_it(byhand: ByHand) -> None:
    assert await byhand.cancel(BatchId("b-none")) is Verdict.GONE
    assert await byhand.everything() == {}


async def test_a_second_cancel_counts_once_the_first_had_its_time(byhand: ByHand) -> None:
    batch_id = await byhand.at_provider(ids(1))
    await byhand.cancel(batch_id)
    await byhand.cancel(batch_id)
    batch = await byhand.batch(batch_id)
    assert batch.cancel_at is not None
    assert not batch.cancel_again

    key = byhand.keys.batch(batch_id)
    first = int(batch.cancel_at.timestamp() * 1000)
    await byhand.redis.execute_command("HSET", key, "cancel_at", first - 30_000)
    await byhand.cancel(batch_id)

    again = await byhand.batch(batch_id)
    assert again.cancel_again
    assert again.cancel_at is not None
    assert again.cancel_at < batch.cancel_at


async def test_a_look_counts_how_often_the_provider_was_asked_and_says_why_it_waits(byhand: ByHand) -> None:
    batch_id = await byhand.at_provider(ids(1))
    for n_asked in (1, 2):
        token = await byhand.claimed(batch_id)
        await byhand.begin(batch_id, token)
        await byhand.scripts.progress(
            batch_id=batch_id,
            token=token,
            status="cancelling",
            n_done=0,
            n_total=1,
            delay_s=0,
            cancel_asked=True,
            why="the provider has not confirmed it",
        )
        batch = await byhand.batch(batch_id)
        assert (batch.n_cancels, batch.error) == (n_asked, "the provider has not confirmed it")
        assert batch.cancel_asked_at is not None
    await byhand.progress(batch_id, await byhand.claimed(batch_id))
    batch = await byhand.batch(batch_id)
    assert (batch.n_cancels, batch.error) == (2, "")


async def test_a_batch_with_a_request_that_others_wait_for_is_not_cancelled_for_its_callers(
    byhand: ByHand,
) -> None:
    first, second = ids(2)
    batch_id = await byhand.at_provider([first, second])
    await byhand.enqueue([row(second)], into=batch_id, mailbox=new_mailbox())

    assert await byhand.cancel(batch_id, first, second) is Verdict.JOINED
    assert not (await byhand.batch(batch_id)).cancel_requested
    assert await byhand.cancel(batch_id) is Verdict.OK


async def test_a_batch_with_another_open_request_is_not_cancelled_for_its_callers(byhand: ByHand) -> None:
    first, second, elsewhere = ids(3)
    batch_id = await byhand.at_provider([first, second])
    await byhand.opened([elsewhere])

    assert await byhand.cancel(batch_id, first, elsewhere) is Verdict.JOINED
    assert not (await byhand.batch(batch_id)).cancel_requested


async def test_a_batch_is_cancelled_for_those_who_alone_wait_for_what_is_open(byhand: ByHand) -> None:
    answered, one = ids(2)
    batch_id = await byhand.at_provider([answered, one])
    await byhand.deliver(batch_id, await byhand.claimed(batch_id), [out(answered)])

    assert await byhand.cancel(batch_id, answered, one) is Verdict.OK
    batch = await byhand.batch(batch_id)
    assert batch.cancel_requested
    # The second request does not count as a repeated one: nobody saw that the provider ignored the first.
    key = byhand.keys.batch(batch_id)
    await byhand.redis.execute_command("HINCRBY", key, "cancel_at", -30_000)
    assert await byhand.cancel(batch_id, answered, one) is Verdict.OK
    assert not (await byhand.batch(batch_id)).cancel_again


async def test_nobody_can_join_a_batch_between_the_look_and_its_cancellation(byhand: ByHand) -> None:
    """Each joins before the cancellation, which is then not done, or after it, and then sees that it is late."""
    for _ in range(20):
        [one] = ids(1)
        batch_id = await byhand.at_provider([one])
        joining = byhand.enqueue([row(one)], into=batch_id, mailbox=new_mailbox())
        verdict, joined = await asyncio.gather(byhand.cancel(batch_id, one), joining)
        assert (verdict, joined.placements[0]) in (
            (Verdict.OK, Placement.LATE),
            (Verdict.JOINED, Placement.JOINED),
        )
