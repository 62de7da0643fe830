"""Reopen: a batch that is over is read once more; its requests are adopted, unless they are answered or elsewhere."""

from __future__ import annotations

import pytest

from batchling_client.wire.ids import new_batch_id
from batchling_client.wire.keys import BatchId, RequestId
from batchling_client.wire.states import BatchState, Outcome, Placement, RowKind, Verdict

from .byhand import KEEP_MS, ByHand, ids, out, row


async def over_without_answers(
    byhand: ByHand, request_ids: list[RequestId], state: BatchState = BatchState.FAILED
) -> BatchId:
    """A terminal batch whose requests were answered with an error of ours."""
    batch_id = await byhand.over(request_ids, Outcome.FAILED)
    token = await byhand.claimed(batch_id)
    kept = await byhand.scripts.keep(batch_id=batch_id, token=token, keep_ms=KEEP_MS, request_ids=request_ids)
    assert kept is Verdict.OK
    failures = [out(one, RowKind.FAILURE) for one in request_ids]
    await byhand.deliver(batch_id, token, failures)
    await byhand.settle(batch_id, token, state)
    return batch_id


async def reopen(byhand: ByHand, batch_id: BatchId) -> Verdict:
    return await byhand.scripts.reopen(batch_id=batch_id, keep_ms=KEEP_MS)


async def adopt(byhand: ByHand, batch_id: BatchId, token: int, request_ids: list[RequestId]) -> Verdict:
    return await byhand.scripts.adopt(
        batch_id=batch_id,
        lane_id=byhand.lane_id,
        token=token,
        attempt=3,
        keep_ms=KEEP_MS,
        request_ids=request_ids,
        last=True,
    )


@pytest.mark.parametrize("state", [state for state in BatchState if state.terminal])
async def test_a_reopened_batch_is_looked_at_at_once_as_if_it_were_running(
    byhand: ByHand, state: BatchState
) -> None:
    batch_id = await over_without_answers(byhand, ids(2), state)

    assert await reopen(byhand, batch_id) is Verdict.OK

    batch = await byhand.batch(batch_id)
    assert (batch.state, batch.outcome, batch.ended_at, batch.settled_at) == (
        BatchState.SUBMITTED,
        None,
        None,
        None,
    )
    assert batch.reopened_at is not None
    assert await byhand.claims(batch_id)


@pytest.mark.parametrize("state", [state for state in BatchState if not state.terminal])
async def test_a_batch_that_is_not_over_is_not_reopened(byhand: ByHand, state: BatchState) -> None:
    batch_id = await byhand.in_state(state, ids(2))
    before = await byhand.everything()

    assert await reopen(byhand, batch_id) is Verdict.BUSY
    assert await byhand.everything() == before


async def test_one_whose_requests_are_all_answered_is_not_reopened(byhand: ByHand) -> None:
    batch_id = await byhand.in_state(BatchState.SETTLED, ids(2))

    assert await reopen(byhand, batch_id) is Verdict.TOO_LATE
    assert await reopen(byhand, BatchId("b-nowhere")) is Verdict.GONE


async def test_an_adopted_request_is_in_flight_and_its_error_is_gone(byhand: ByHand) -> None:
    [one] = ids(1)
    batch_id = await over_without_answers(byhand, [one])
    await reopen(byhand, batch_id)
    token = await byhand.claimed(batch_id)

    assert await adopt(byhand, batch_id, token, [one]) is Verdict.OK
    assert await adopt(byhand, batch_id, token, [one]) is Verdict.OK, "a worker that died begins again"

    assert await byhand.place(one) == f"{batch_id}|3|"
    assert await byhand.result(one) is None
    batch = await byhand.batch(batch_id)
    assert (batch.n_failed, batch.adopted) == (0, True)


async def test_a_caller_who_asks_for_an_adopted_request_joins_and_gets_the_answer(byhand: ByHand) -> None:
    [one] = ids(1)
    batch_id = await over_without_answers(byhand, [one])
    await byhand.mail()
    await reopen(byhand, batch_id)
    token = await byhand.claimed(batch_id)
    await adopt(byhand, batch_id, token, [one])

    asked = await byhand.enqueue([row(one)], into=BatchId("b-another"))
    await byhand.ended(batch_id, token)
    token = await byhand.claimed(batch_id)
    await byhand.deliver(batch_id, token, [out(one)])

    assert asked.placements == (Placement.JOINED,)
    answered = await byhand.result(one)
    assert answered is not None
    assert answered.status == 200
    assert one in await byhand.mail()


async def test_a_request_that_is_elsewhere_or_answered_is_left_alone(byhand: ByHand) -> None:
    [elsewhere, answered] = ids(2)
    batch_id = await over_without_answers(byhand, [elsewhere, answered])
    other = BatchId("b-other")
    await byhand.enqueue([row(elsewhere), row(answered)], into=other)
    token = await byhand.claimed(other)
    await byhand.deliver(other, token, [out(answered)])
    await reopen(byhand, batch_id)
    token = await byhand.claimed(batch_id)
    before = [await byhand.place(elsewhere), await byhand.result(answered)]

    await adopt(byhand, batch_id, token, [elsewhere, answered])

    assert [await byhand.place(elsewhere), await byhand.result(answered)] == before
    assert await byhand.place(answered) is None


async def test_stale_tokens_keep_and_adopt_nothing(byhand: ByHand) -> None:
    [one] = ids(1)
    batch_id = await over_without_answers(byhand, [one])
    await reopen(byhand, batch_id)
    stale = await byhand.claimed(batch_id)
    await byhand.claimed(batch_id)
    before = await byhand.everything()

    assert await adopt(byhand, batch_id, stale, [one]) is Verdict.STALE
    kept = await byhand.scripts.keep(batch_id=batch_id, token=stale, keep_ms=KEEP_MS, request_ids=[one])
    assert kept is Verdict.STALE
    assert await byhand.everything() == before


async def withdrawn_after_asking_again(byhand: ByHand, one: RequestId) -> tuple[BatchId, BatchId]:
    """A batch that is over without an answer, and an open one from which its request was withdrawn."""
    batch_id = await over_without_answers(byhand, [one])
    other = await byhand.opened([one])
    assert await byhand.withdraw(one, other) is Verdict.OK
    return batch_id, other


async def test_a_request_withdrawn_from_an_open_batch_is_adopted_and_gets_the_answer(byhand: ByHand) -> None:
    [one] = ids(1)
    batch_id, _ = await withdrawn_after_asking_again(byhand, one)
    mail = await byhand.mail()
    await reopen(byhand, batch_id)
    token = await byhand.claimed(batch_id)

    assert await adopt(byhand, batch_id, token, [one]) is Verdict.OK
    asked = await byhand.enqueue([row(one)], into=new_batch_id())
    told = await byhand.deliver(batch_id, token, [out(one)])

    assert asked.placements == (Placement.JOINED,)
    assert (told.n_answered, told.n_unknown) == (1, 0)
    assert (await byhand.mail())[len(mail) :] == [one]
    batch = await byhand.batch(batch_id)
    assert (batch.n_succeeded, batch.n_failed) == (1, 0)


async def test_a_request_that_is_adopted_and_fails_again_gets_no_second_row_in_a_batch(
    byhand: ByHand,
) -> None:
    """Two rows of one request in a batch are paid for twice: the row of a withdrawn request stays until the seal."""
    [one, another] = ids(2)
    batch_id, other = await withdrawn_after_asking_again(byhand, one)
    await byhand.enqueue([row(another)], into=other)
    await reopen(byhand, batch_id)
    token = await byhand.claimed(batch_id)
    await adopt(byhand, batch_id, token, [one])
    await byhand.deliver(batch_id, token, [out(one, RowKind.FAILURE)])

    asked = await byhand.enqueue([row(one)], into=new_batch_id())

    assert asked.placements == (Placement.QUEUED,)
    assert (await byhand.batch(other)).state is BatchState.SEALED
    assert await byhand.ids_of(other) == [one, another]
    place = await byhand.place(one)
    assert place is not None
    assert not place.startswith(other)
    assert await byhand.claims(other), "the other request of the batch that was closed waits for nothing"


@pytest.mark.parametrize("state", [None, BatchState.OPEN, BatchState.SEALED])
async def test_an_answer_is_taken_for_a_request_that_nobody_was_sent_again(
    byhand: ByHand, state: BatchState | None
) -> None:
    """Asked again after the first look of a reopened batch, and withdrawn (None), or waiting to be submitted."""
    [one, another] = ids(2)
    batch_id = await over_without_answers(byhand, [one])
    other = await (byhand.sealed if state is BatchState.SEALED else byhand.opened)([one, another])
    await reopen(byhand, batch_id)
    token = await byhand.claimed(batch_id)
    await adopt(byhand, batch_id, token, [one])
    if state is None:
        await byhand.withdraw(one, other)

    mail = await byhand.mail()
    told = [await byhand.deliver(batch_id, token, [out(one)], mailboxes=[byhand.mailbox]) for _ in range(2)]

    assert [(reply.n_answered, reply.n_unknown) for reply in told] == [(1, 0), (0, 1)]
    result = await byhand.result(one)
    assert result is not None
    assert result.status == 200
    assert (await byhand.mail())[len(mail) :] == ([one] if state is not None else [])
    assert (await byhand.batch(other)).n_dropped == 1
    batch = await byhand.batch(batch_id)
    assert (batch.n_succeeded, batch.n_failed) == (1, 0)
    asked = await byhand.enqueue([row(one)], into=new_batch_id())
    assert asked.placements == (Placement.ANSWERED,)


@pytest.mark.parametrize("state", [BatchState.SUBMITTING, BatchState.SUBMITTED, BatchState.ENDED])
async def test_a_request_that_a_provider_may_have_been_sent_again_waits_for_that_answer(
    byhand: ByHand, state: BatchState
) -> None:
    [one] = ids(1)
    batch_id = await over_without_answers(byhand, [one])
    other = await byhand.in_state(state, [one])
    await reopen(byhand, batch_id)
    token = await byhand.claimed(batch_id)
    await adopt(byhand, batch_id, token, [one])

    told = await byhand.deliver(batch_id, token, [out(one)])

    assert (told.n_answered, told.n_unknown) == (0, 1)
    place = await byhand.place(one)
    assert place is not None
    assert place.startswith(other)


@pytest.mark.parametrize("kind", list(RowKind))
async def test_a_reopened_batch_answers_no_request_that_it_never_had(byhand: ByHand, kind: RowKind) -> None:
    """A provider chooses the ids in its results: those of another account's batch must not be among them."""
    [one, foreign] = ids(2)
    batch_id = await over_without_answers(byhand, [one])
    other = await byhand.opened([foreign])
    await reopen(byhand, batch_id)
    token = await byhand.claimed(batch_id)
    await adopt(byhand, batch_id, token, [one])

    told = await byhand.deliver(batch_id, token, [out(foreign, kind)], mailboxes=[byhand.mailbox])

    assert (told.n_answered, told.n_unknown) == (0, 1)
    assert await byhand.result(foreign) is None
    assert await byhand.place(foreign) == f"{other}|1|{byhand.mailbox}"
