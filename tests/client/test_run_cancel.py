"""Cancelling a run: its own requests and nobody else's, whatever state their batches are in."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from batchling_client import batchify
from batchling_client.operate.cancel_run import CancelledRun, cancel_run
from batchling_client.views.inspection import Inspection
from batchling_client.wire.deployment import connection
from batchling_client.wire.ids import new_batch_id, new_mailbox
from batchling_client.wire.keys import Keys, RequestId, RunId
from batchling_client.wire.scripts import Dropped
from batchling_client.wire.states import BatchState, Verdict
from tests.scripts.byhand import ByHand, ids, row
from tests.waiting import wait_until

from .answerer import Answerer
from .asking import ask_all, error_of
from .conftest import RedisServer

MINE, THEIRS = RunId("r"), RunId("s")
"""`row` makes rows of run r."""


@pytest.fixture
async def byhand(redis_server: RedisServer, namespace: str) -> AsyncIterator[ByHand]:
    redis = connection.connect(redis_server.url)
    one = ByHand(redis, Keys(namespace))
    one.run_id = MINE
    yield one
    await redis.aclose()


async def cancelled(byhand: ByHand, *, keep_submitted: bool = False) -> CancelledRun:
    inspection = Inspection(byhand.redis, byhand.keys)
    run = await inspection.run(MINE)
    assert run is not None
    return await cancel_run(inspection, byhand.scripts, run, keep_submitted=keep_submitted)


async def joined(byhand: ByHand, request_ids: list[RequestId]) -> None:
    """Let another run, in another program, wait for these requests too."""
    await byhand.enqueue(
        [row(one) for one in request_ids], into=new_batch_id(), mailbox=new_mailbox(), run_id=THEIRS
    )


async def test_unsubmitted_requests_are_dropped_and_shared_requests_are_left(byhand: ByHand) -> None:
    alone, shared, sealed = ids(2), ids(1), ids(2)
    emptied = await byhand.sealed(sealed)
    batch_id = await byhand.opened([*alone, *shared])
    await joined(byhand, shared)

    done = await cancelled(byhand)

    assert (done.n_dropped, done.n_shared, done.ended) == (4, 1, [emptied])
    assert sorted(await byhand.mail()) == sorted([*alone, *sealed])
    result = await byhand.result(alone[0])
    assert result is not None
    assert (result.status, result.origin) == (499, "batch_cancelled")
    assert (await byhand.batch(batch_id)).state is BatchState.OPEN


async def test_a_batch_at_the_provider_is_cancelled_only_where_nobody_else_waits(byhand: ByHand) -> None:
    own, shared = await byhand.at_provider(ids(2)), ids(2)
    left = await byhand.at_provider(shared)
    await joined(byhand, shared[:1])
    over = await byhand.over(ids(1))

    done = await cancelled(byhand)

    assert (done.asked, done.left, done.too_late) == ({own: 2}, [left], [over])
    assert (await byhand.batch(own)).cancel_requested
    assert not (await byhand.batch(left)).cancel_requested


async def test_a_batch_that_is_being_cancelled_already_is_not_said_to_go_on(byhand: ByHand) -> None:
    shared = ids(2)
    batch_id = await byhand.at_provider(shared)
    assert await byhand.cancel(batch_id) is Verdict.OK
    await joined(byhand, shared)

    done = await cancelled(byhand)

    assert (done.left, done.asked, done.cancelled_before) == ([], {}, [batch_id])
    assert done.lines() == [f"Batch {batch_id} is being cancelled already."]
    assert done.done_something


async def test_a_cancelled_quarantined_batch_answers_its_callers(
    byhand: ByHand,
) -> None:
    batch_id = await byhand.over(ids(2))
    await byhand.redis.execute_command("HSET", byhand.keys.batch(batch_id), "quarantined_at", 1)

    assert (await cancelled(byhand)).asked == {batch_id: 2}
    assert (await byhand.batch(batch_id)).quarantined_at is None


async def test_submitted_batches_may_be_kept(byhand: ByHand) -> None:
    batch_id = await byhand.at_provider(ids(1))

    done = await cancelled(byhand, keep_submitted=True)

    assert (done.kept, done.done_something) == ([batch_id], False)
    assert not (await byhand.batch(batch_id)).cancel_requested


async def test_a_request_that_only_another_run_still_waits_for_is_its_own(byhand: ByHand) -> None:
    """The run that asked first has left it: the row bears that run's name all the same."""
    [one] = ids(1)
    batch_id = await byhand.opened([one])
    await joined(byhand, [one])
    await byhand.withdraw(one, batch_id)

    done = await cancelled(byhand)

    assert (done.n_dropped, done.n_shared) == (0, 1)
    assert (await byhand.place(one) or "").startswith(batch_id)


async def test_the_waiting_program_gets_an_error_and_a_rerun_asks_again(
    answerer: Answerer, byhand: ByHand
) -> None:
    inspection = Inspection(byhand.redis, byhand.keys)
    async with batchify(batch_window_seconds=60) as run:
        asked = asyncio.create_task(ask_all(run, "a", "b"))

        async def placed() -> bool:
            found = await inspection.run(run.id)
            return found is not None and found.n_requests == 2

        await wait_until(placed, description="both are in")
        found = await inspection.run(run.id)
        assert found is not None
        done = await cancel_run(inspection, byhand.scripts, found, keep_submitted=False)
        replies = await asked
    assert done.n_dropped == 2
    assert {(reply.status, error_of(reply)["code"]) for reply in replies} == {(499, "batch_cancelled")}
    assert run.progress.n_failed == 2

    async with batchify(batch_window_seconds=0.05) as again:
        assert {reply.status for reply in await ask_all(again, "a", "b")} == {200}


async def test_a_batch_that_is_submitted_meanwhile_is_cancelled_at_its_provider(
    byhand: ByHand, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch_id = await byhand.sealed(ids(2))
    drop = byhand.scripts.drop

    async def too_slow(**how: Any) -> Dropped:
        token = await byhand.claimed(batch_id)
        await byhand.scripts.intend(batch_id=batch_id, token=token, label="label")
        await byhand.submitted(batch_id, token)
        return await drop(**how)

    monkeypatch.setattr(byhand.scripts, "drop", too_slow)
    done = await cancelled(byhand)

    assert (done.n_dropped, done.asked) == (0, {batch_id: 2})
