"""Hold: a batch that waits for something outside of it is handed back without a stumble."""

from __future__ import annotations

from batchling_client.wire.states import BatchState, Verdict

from .byhand import ByHand, ids


async def test_a_held_batch_says_why_and_has_not_stumbled(byhand: ByHand) -> None:
    batch_id = await byhand.sealed(ids(2))
    token = await byhand.claimed(batch_id)

    verdict = await byhand.scripts.hold(batch_id=batch_id, token=token, delay_s=60, why="held: full")

    batch = await byhand.batch(batch_id)
    assert verdict is Verdict.OK
    assert (batch.state, batch.error, batch.n_stumbles) == (BatchState.SEALED, "held: full", 0)
    look = await byhand.next_look(batch_id)
    assert look is not None
    assert 50_000 < look - await byhand.now_ms() <= 60_000


async def test_a_wait_ends_no_row_of_denials(byhand: ByHand) -> None:
    """A refused key is looked at by one batch at a time: the others' patience must not start anew."""
    batch_id = await byhand.at_provider(ids(1))
    token = await byhand.claimed(batch_id)
    await byhand.scripts.release(batch_id=batch_id, token=token, delay_s=0, error="no", denied=True)
    token = await byhand.claimed(batch_id)
    await byhand.scripts.hold(batch_id=batch_id, token=token, delay_s=0, why="parked")
    assert (await byhand.batch(batch_id)).n_denied == 1


async def test_a_create_refused_for_the_quota_takes_the_batch_back_to_sealed(byhand: ByHand) -> None:
    """So that it waits without a search at each look, and its requests can be withdrawn, or split, again."""
    batch_id, token = await byhand.in_submission(ids(2))
    scripts = byhand.scripts
    await scripts.uploaded(batch_id=batch_id, token=token, input_file_id="file", n_lines=2)
    await scripts.arm(batch_id=batch_id, token=token)

    await scripts.hold(batch_id=batch_id, token=token, delay_s=0, why="full", unmade=True)

    batch = await byhand.batch(batch_id)
    assert (batch.state, batch.create_at, batch.input_file_id) == (BatchState.SEALED, None, "")


async def test_only_a_batch_in_submission_goes_back(byhand: ByHand) -> None:
    for state in (BatchState.SUBMITTED, BatchState.ENDED):
        batch_id = await byhand.in_state(state, ids(1))
        token = await byhand.claimed(batch_id)
        await byhand.scripts.hold(batch_id=batch_id, token=token, delay_s=0, why="x", unmade=True)
        batch = await byhand.batch(batch_id)
        assert batch.state is state
        assert batch.create_at is not None


async def test_the_time_since_when_a_batch_cannot_be_submitted_is_kept_until_only_its_quota_holds_it(
    byhand: ByHand,
) -> None:
    batch_id = await byhand.sealed(ids(1))
    hold, release = byhand.scripts.hold, byhand.scripts.release
    await hold(batch_id=batch_id, token=await byhand.claimed(batch_id), delay_s=0, why="away", away=True)
    first = (await byhand.batch(batch_id)).unable_since
    assert first is not None
    await hold(batch_id=batch_id, token=await byhand.claimed(batch_id), delay_s=0, why="away", away=True)
    await release(batch_id=batch_id, token=await byhand.claimed(batch_id), delay_s=0, error="500")
    await hold(batch_id=batch_id, token=await byhand.claimed(batch_id), delay_s=0, why="key", parked=True)
    assert (await byhand.batch(batch_id)).unable_since == first
    await hold(batch_id=batch_id, token=await byhand.claimed(batch_id), delay_s=0, why="held: full")
    assert (await byhand.batch(batch_id)).unable_since is None
    await release(batch_id=batch_id, token=await byhand.claimed(batch_id), delay_s=0, error="500")
    assert (await byhand.batch(batch_id)).unable_since is not None
    running = await byhand.at_provider(ids(2))
    await release(batch_id=running, token=await byhand.claimed(running), delay_s=0, error="500")
    assert (await byhand.batch(running)).unable_since is None
