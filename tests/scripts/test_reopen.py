"""Reopen: a batch that is over is read once more; its requests are adopted, unless they are answered or elsewhere."""

from __future__ import annotations

import pytest

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
        batch_id=batch_id, token=token, attempt=3, keep_ms=KEEP_MS, request_ids=request_ids, last=True
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


async def test_whoever_asks_for_it_joins_and_is_told(byhand: ByHand) -> None:
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
