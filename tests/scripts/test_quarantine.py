"""Quarantine: a batch whose steps never end leaves the schedule, no innocent one does, and a person brings it back."""

from __future__ import annotations

import pytest

from batchling_client.wire.keys import BatchId, RequestId
from batchling_client.wire.records.batch import UNENDED_ALLOWED
from batchling_client.wire.scripts import Begun
from batchling_client.wire.states import BatchState, Outcome, RowKind, Verdict

from .byhand import ByHand, ids, out, row

LIVE = [state for state in BatchState if not state.terminal and state is not BatchState.OPEN]


async def begins(byhand: ByHand, batch_id: BatchId, *, alone: bool = True) -> tuple[int, Begun]:
    """A worker claims the batch and begins a step on it: its token, and what it was told."""
    token = await byhand.claimed(batch_id)
    return token, await byhand.begun(batch_id, token, alone=alone)


async def kills(byhand: ByHand, batch_id: BatchId, n: int) -> list[int]:
    """So many workers begin a step on the batch and die of it: their tokens."""
    tokens = []
    for _ in range(n):
        token, begun = await begins(byhand, batch_id)
        assert begun.verdict is Verdict.OK
        tokens.append(token)
    return tokens


async def quarantined(byhand: ByHand, state: BatchState, request_ids: list[RequestId]) -> BatchId:
    batch_id = await byhand.in_state(state, request_ids)
    while (await begins(byhand, batch_id))[1].verdict is not Verdict.QUARANTINED:
        pass
    return batch_id


@pytest.mark.parametrize("state", LIVE)
async def test_after_three_deaths_a_batch_is_off_the_schedule_and_says_what_to_do(
    byhand: ByHand, state: BatchState
) -> None:
    batch_id = await byhand.in_state(state, ids(2))
    await byhand.scripts.release(batch_id=batch_id, token=await byhand.claimed(batch_id), delay_s=0)
    await kills(byhand, batch_id, UNENDED_ALLOWED)

    token, begun = await begins(byhand, batch_id)

    assert begun.verdict is Verdict.QUARANTINED
    assert begun.fields is not None
    batch = await byhand.batch(batch_id)
    assert (batch.state, batch.n_unended) == (state, UNENDED_ALLOWED)
    assert batch.quarantined_at is not None
    assert f"`batchling retry {batch_id}`" in batch.error
    assert f"`batchling cancel {batch_id}`" in batch.error
    assert await byhand.next_look(batch_id) is None
    assert await byhand.claims(batch_id) == []
    assert await byhand.scripts.release(batch_id=batch_id, token=token, delay_s=0) is Verdict.STALE


async def test_the_last_step_allowed_starts_only_alone(byhand: ByHand) -> None:
    batch_id = await byhand.sealed(ids(1))
    await kills(byhand, batch_id, UNENDED_ALLOWED - 1)
    token = await byhand.claimed(batch_id)
    before = await byhand.everything()

    for alone, verdict in ((False, Verdict.ALONE), (True, Verdict.OK)):
        assert await byhand.everything() == before
        assert (await byhand.begun(batch_id, token, BatchState.SEALED, alone=alone)).verdict is verdict


async def test_a_step_that_got_further_ends_the_row(byhand: ByHand) -> None:
    [first, second, third] = ids(3)
    batch_id = await byhand.sealed([first, second, third])
    [*_, token] = await kills(byhand, batch_id, 2)
    assert await byhand.scripts.intend(batch_id=batch_id, token=token, label="label") == "label"
    assert (await byhand.batch(batch_id)).n_unended == 2
    await byhand.scripts.uploaded(batch_id=batch_id, token=token, input_file_id="f", n_lines=3)
    assert (await byhand.batch(batch_id)).n_unended == 0

    [*_, token] = await kills(byhand, batch_id, 2)
    await byhand.submitted(batch_id, token)
    assert (await byhand.batch(batch_id)).n_unended == 0
    await byhand.ended(batch_id, await byhand.claimed(batch_id))

    [*_, token] = await kills(byhand, batch_id, 2)
    await byhand.deliver(batch_id, token, [out(second, RowKind.RETRY)])
    assert (await byhand.batch(batch_id)).n_unended == 2, "nobody was answered"
    for n_unended in (0, 1):
        await byhand.deliver(batch_id, token, [out(first)])
        assert (await byhand.batch(batch_id)).n_unended == n_unended, "a chunk counts when it is new"
        [token] = await kills(byhand, batch_id, 1)

    await byhand.requeue(batch_id, token, [row(second, attempt=2)])
    assert (await byhand.batch(batch_id)).n_unended == 0


async def test_a_worker_that_lives_takes_its_step_back(byhand: ByHand) -> None:
    batch_id = await byhand.sealed(ids(1))
    tokens = await kills(byhand, batch_id, UNENDED_ALLOWED)

    for token in tokens[:2] * 2:
        await byhand.scripts.survived(batch_id=batch_id, token=token)

    assert (await byhand.batch(batch_id)).n_unended == 1
    assert (await begins(byhand, batch_id))[1].verdict is Verdict.OK


async def test_a_claim_that_is_still_held_ends_with_its_worker_s_word(byhand: ByHand) -> None:
    batch_id = await byhand.sealed(ids(1))
    [token] = await kills(byhand, batch_id, 1)

    assert await byhand.scripts.survived(batch_id=batch_id, token=token) is Verdict.OK

    assert len(await byhand.claims(batch_id)) == 1, "it waits for the lease to expire"
    assert await byhand.scripts.release(batch_id=batch_id, token=token, delay_s=0) is Verdict.STALE


async def test_a_quarantine_that_rested_on_a_step_which_did_not_kill_is_lifted(byhand: ByHand) -> None:
    batch_id = await byhand.sealed(ids(1))
    [_, stopped, _] = await kills(byhand, batch_id, UNENDED_ALLOWED)
    await begins(byhand, batch_id)

    assert await byhand.scripts.survived(batch_id=batch_id, token=stopped) is Verdict.OK

    batch = await byhand.batch(batch_id)
    assert (batch.quarantined_at, batch.error) == (None, "")
    assert len(await byhand.claims(batch_id)) == 1


@pytest.mark.parametrize("state", LIVE)
async def test_retry_gives_a_quarantined_batch_a_fresh_count(byhand: ByHand, state: BatchState) -> None:
    batch_id = await quarantined(byhand, state, ids(1))

    assert await byhand.scripts.retry(batch_id=batch_id) is Verdict.OK

    batch = await byhand.batch(batch_id)
    assert (batch.state, batch.n_unended, batch.quarantined_at, batch.error) == (state, 0, None, "")
    await kills(byhand, batch_id, UNENDED_ALLOWED)


async def test_retry_has_a_waiting_batch_looked_at_now(byhand: ByHand) -> None:
    batch_id = await byhand.sealed(ids(1))
    token = await byhand.claimed(batch_id)
    await byhand.scripts.release(batch_id=batch_id, token=token, delay_s=600, error="429")
    assert await byhand.claims(batch_id) == []

    assert await byhand.scripts.retry(batch_id=batch_id) is Verdict.OK

    assert (await byhand.batch(batch_id)).n_stumbles == 0
    assert len(await byhand.claims(batch_id)) == 1


async def test_retry_leaves_a_step_that_is_under_way_alone(byhand: ByHand) -> None:
    batch_id, _ = await byhand.in_submission(ids(1))
    before = await byhand.everything()
    assert await byhand.scripts.retry(batch_id=batch_id) is Verdict.BUSY
    assert await byhand.everything() == before

    await byhand.due(batch_id)
    assert await byhand.scripts.retry(batch_id=batch_id) is Verdict.OK, "its lease is over"


@pytest.mark.parametrize("state", [state for state in BatchState if state.terminal])
async def test_retry_brings_nothing_back_from_its_end(byhand: ByHand, state: BatchState) -> None:
    batch_id = await byhand.in_state(state, ids(1))
    before = await byhand.everything()
    assert await byhand.scripts.retry(batch_id=batch_id) is Verdict.TOO_LATE
    assert await byhand.everything() == before
    assert await byhand.scripts.retry(batch_id=BatchId("b-none")) is Verdict.GONE


@pytest.mark.parametrize("state", [BatchState.SEALED, BatchState.ENDED])
async def test_cancel_ends_what_is_quarantined_before_or_after_the_provider(
    byhand: ByHand, state: BatchState
) -> None:
    batch_id = await quarantined(byhand, state, ids(1))

    assert await byhand.cancel(batch_id) is Verdict.OK

    batch = await byhand.batch(batch_id)
    assert (batch.state, batch.outcome, batch.ending) == (BatchState.ENDED, Outcome.CANCELLED, b"{}")
    assert (batch.quarantined_at, batch.collected_at, batch.error) == (None, None, "a person cancelled it")
    assert len(await byhand.claims(batch_id)) == 1


@pytest.mark.parametrize("state", [BatchState.SUBMITTING, BatchState.SUBMITTED])
async def test_cancel_looks_once_more_at_what_the_provider_may_have_and_then_gives_up(
    byhand: ByHand, state: BatchState
) -> None:
    batch_id = await quarantined(byhand, state, ids(1))

    assert await byhand.cancel(batch_id) is Verdict.OK

    batch = await byhand.batch(batch_id)
    assert (batch.state, batch.cancel_requested, batch.quarantined_at) == (state, True, None)
    await kills(byhand, batch_id, UNENDED_ALLOWED)
    await begins(byhand, batch_id)
    assert await byhand.cancel(batch_id) is Verdict.OK
    batch = await byhand.batch(batch_id)
    assert (batch.state, batch.outcome) == (BatchState.ENDED, Outcome.CANCELLED)
