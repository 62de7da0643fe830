"""The fence: a claim that another has overtaken changes nothing, whichever script it calls, in whichever state."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from batchling_client.wire.keys import BatchId, RequestId
from batchling_client.wire.states import BatchState, Outcome, Verdict

from .byhand import LEASE_MS, ByHand, ids, out, row

Move = Callable[[ByHand, BatchId, int, RequestId], Awaitable[object]]


async def _verdict_of_deliver(byhand: ByHand, batch_id: BatchId, token: int, one: RequestId) -> Verdict:
    return (await byhand.deliver(batch_id, token, [out(one)])).verdict


MOVES: dict[str, tuple[Move, object]] = {
    "arm": (lambda b, i, t, r: b.scripts.arm(batch_id=i, token=t), Verdict.STALE),
    "begin": (lambda b, i, t, r: b.begin(i, t), None),
    "collected": (lambda b, i, t, r: b.scripts.collected(batch_id=i, token=t), Verdict.STALE),
    "deliver": (_verdict_of_deliver, Verdict.STALE),
    "ended": (lambda b, i, t, r: b.ended(i, t, Outcome.FAILED, "no"), Verdict.STALE),
    "extend": (lambda b, i, t, r: b.scripts.extend(batch_id=i, token=t, lease_ms=LEASE_MS), Verdict.STALE),
    "give_up": (
        lambda b, i, t, r: b.scripts.give_up(batch_id=i, token=t, error="no"),
        Verdict.STALE,
    ),
    "hold": (
        lambda b, i, t, r: b.scripts.hold(batch_id=i, token=t, delay_s=0, why="no", unmade=True),
        Verdict.STALE,
    ),
    "intend": (lambda b, i, t, r: b.scripts.intend(batch_id=i, token=t, label="another"), None),
    "progress": (lambda b, i, t, r: b.progress(i, t), Verdict.STALE),
    "release": (
        lambda b, i, t, r: b.scripts.release(batch_id=i, token=t, delay_s=0, error="no", create_refused=True),
        Verdict.STALE,
    ),
    "requeue": (lambda b, i, t, r: b.requeue(i, t, [row(r, attempt=2)]), (Verdict.STALE, 0, None)),
    "seal": (lambda b, i, t, r: b.seal(i, t), Verdict.STALE),
    "settle": (lambda b, i, t, r: b.settle(i, t), Verdict.STALE),
    "submitted": (lambda b, i, t, r: _verdict_of_submitted(b, i, t), Verdict.STALE),
    "survived": (lambda b, i, t, r: b.scripts.survived(batch_id=i, token=t), Verdict.STALE),
    "unreadable": (
        lambda b, i, t, r: b.scripts.unreadable(batch_id=i, token=t, delay_ms=0, patience_ms=1000),
        Verdict.STALE,
    ),
    "uploaded": (
        lambda b, i, t, r: b.scripts.uploaded(batch_id=i, token=t, input_file_id="f", n_lines=1),
        Verdict.STALE,
    ),
}


async def _verdict_of_submitted(byhand: ByHand, batch_id: BatchId, token: int) -> Verdict:
    return (await byhand.submitted(batch_id, token, "another"))[0]


@pytest.mark.parametrize("state", list(BatchState))
@pytest.mark.parametrize("script", MOVES)
async def test_stale_token_changes_nothing(byhand: ByHand, script: str, state: BatchState) -> None:
    move, stale = MOVES[script]
    [one] = ids(1)
    batch_id = await byhand.in_state(state, [one])
    if state.terminal:
        old = (await _token(byhand, batch_id)) - 1
    else:
        old = await byhand.claimed(batch_id)
        await byhand.claimed(batch_id)
    before = await byhand.everything()

    for token in (old, 0, -1, old + 1000):
        assert await move(byhand, batch_id, token, one) == stale

    assert await byhand.everything() == before


@pytest.mark.parametrize("script", MOVES)
async def test_a_batch_that_is_gone_is_not_brought_back(byhand: ByHand, script: str) -> None:
    move, stale = MOVES[script]
    [one] = ids(1)
    assert await move(byhand, BatchId("b-gone"), 1, one) == stale
    assert await byhand.everything() == {}


ENDS_THE_CLAIM: dict[str, tuple[BatchState, Move]] = {
    "collected": (BatchState.ENDED, MOVES["collected"][0]),
    "ended": (BatchState.SUBMITTED, MOVES["ended"][0]),
    "give_up": (BatchState.SUBMITTED, MOVES["give_up"][0]),
    "hold": (BatchState.SUBMITTING, MOVES["hold"][0]),
    "progress": (BatchState.SUBMITTED, MOVES["progress"][0]),
    "release": (BatchState.SEALED, MOVES["release"][0]),
    "seal": (BatchState.OPEN, MOVES["seal"][0]),
    "settle": (BatchState.ENDED, MOVES["settle"][0]),
    "submitted": (BatchState.SUBMITTING, MOVES["submitted"][0]),
    "unreadable": (BatchState.SUBMITTED, MOVES["unreadable"][0]),
}


@pytest.mark.parametrize("script", ENDS_THE_CLAIM)
async def test_a_move_that_ends_the_claim_spends_its_token(byhand: ByHand, script: str) -> None:
    state, move = ENDS_THE_CLAIM[script]
    [one] = ids(1)
    batch_id = await byhand.in_state(state, [one])
    token = await byhand.claimed(batch_id)
    assert await move(byhand, batch_id, token, one) is Verdict.OK
    before = await byhand.everything()

    assert await move(byhand, batch_id, token, one) is Verdict.STALE

    assert await byhand.everything() == before


WORKS_IN: dict[str, set[BatchState]] = {
    "arm": {BatchState.SUBMITTING},
    "collected": {BatchState.ENDED},
    "ended": {BatchState.SEALED, BatchState.SUBMITTING, BatchState.SUBMITTED, BatchState.ENDED},
    "intend": {BatchState.SEALED, BatchState.SUBMITTING},
    "progress": {BatchState.SUBMITTED},
    "requeue": {BatchState.ENDED},
    "seal": {BatchState.OPEN},
    "settle": {BatchState.ENDED},
    "submitted": {BatchState.SUBMITTING},
    "uploaded": {BatchState.SUBMITTING},
}


@pytest.mark.parametrize("state", list(BatchState))
@pytest.mark.parametrize("script", WORKS_IN)
async def test_a_move_starts_in_its_own_states_only_even_with_a_fresh_token(
    byhand: ByHand, script: str, state: BatchState
) -> None:
    move, stale = MOVES[script]
    [one] = ids(1)
    batch_id = await byhand.in_state(state, [one])
    token = await (_token(byhand, batch_id) if state.terminal else byhand.claimed(batch_id))
    before = await byhand.everything()

    got = await move(byhand, batch_id, token, one)

    assert (got != stale) is (state in WORKS_IN[script])
    assert (await byhand.everything() != before) is (state in WORKS_IN[script])


async def _token(byhand: ByHand, batch_id: BatchId) -> int:
    return int((await byhand.fields(batch_id))[b"token"])
