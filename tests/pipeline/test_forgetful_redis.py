"""A Redis that comes back without its last seconds, after a power loss or a fail-over, has nothing paid for twice."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path

import pytest

from batchling_client.wire.states import BatchState, Verdict
from batchling_worker.decisions import submission
from batchling_worker.sandbox.world.faults import LagList, StickBatch
from tests.deployment import Deployment, kill
from tests.waiting import wait_until


async def killed(deployment: Deployment) -> None:
    assert deployment.redis_process is not None
    deployment.redis_process.send_signal(signal.SIGKILL)
    deployment.redis_process.wait(10)


async def remember(deployment: Deployment) -> Path:
    """What Redis would still know if it lost its disk's last moments just now.

    While its disk is busy with an fsync, it answers before it writes.
    """

    async def is_written() -> bool:
        return int((await deployment.redis.info("persistence"))["aof_buffer_length"]) == 0

    await wait_until(is_written, description="what was asked is in the append-only file")
    return Path(shutil.copytree(deployment.home / "redis", deployment.home / "remembered"))


async def forget(deployment: Deployment, remembered: Path) -> None:
    """Redis dies and comes back as it was then."""
    await killed(deployment)
    shutil.rmtree(deployment.home / "redis")
    shutil.copytree(remembered, deployment.home / "redis")
    await deployment.start_redis()


async def in_state(deployment: Deployment, state: BatchState) -> bool:
    return {batch.state for batch in await deployment.batches()} == {state}


async def intend(deployment: Deployment) -> None:
    """A worker comes as far as the intent and no further."""
    [batch] = await deployment.batches()
    batch_id, scripts = batch.batch_id, deployment.scripts
    for state in (BatchState.OPEN, BatchState.SEALED):
        await deployment.redis.zadd(deployment.keys.schedule, {batch_id: 0})
        [claim] = await scripts.claim(batch_ids=[batch_id], lease_ms=100)
        assert claim.state is state
        if state is BatchState.OPEN:
            await scripts.seal(batch_id=batch_id, token=claim.token, lane_id=batch.lane_id)
    label = submission.label_of("default", batch_id)
    assert await scripts.intend(batch_id=batch_id, token=claim.token, label=label) == label


@pytest.mark.parametrize("known", [BatchState.OPEN, BatchState.SUBMITTING])
async def test_a_batch_that_was_created_and_forgotten_is_found_and_not_created_again(
    deployment: Deployment, known: BatchState
) -> None:
    ids = await deployment.ask(20)
    if known is BatchState.SUBMITTING:
        await intend(deployment)
    remembered = await remember(deployment)
    first = deployment.worker()
    await wait_until(lambda: len(deployment.sandbox.batches()) == 1, description="created", within_s=30)
    kill(first)

    await forget(deployment, remembered)
    assert await in_state(deployment, known)
    deployment.worker()

    assert {result.status for result in await deployment.answered(ids)} == {200}
    await deployment.settled()
    assert len(deployment.sandbox.batches()) == 1
    assert deployment.billed() == dict.fromkeys(ids, 1)
    assert "batch_found_again" in deployment.worker_logs()


async def test_a_forgotten_batch_that_is_not_listed_yet_is_waited_for(deployment: Deployment) -> None:
    """As one is whose create is still on its way: the worker that sends it may well live on."""
    deployment.env["BATCHLING_RECONCILE_PATIENCE_SECONDS"] = "6"
    deployment.sandbox.faults.add(LagList(seconds=4.0))
    ids = await deployment.ask(20)
    remembered = await remember(deployment)
    deployment.worker()
    await wait_until(lambda: len(deployment.sandbox.batches()) == 1, description="created", within_s=30)

    await forget(deployment, remembered)

    assert {result.status for result in await deployment.answered(ids)} == {200}
    assert len(deployment.sandbox.batches()) == 1
    assert deployment.billed() == dict.fromkeys(ids, 1)


async def test_what_was_never_sent_is_sent_after_a_moment_of_doubt(deployment: Deployment) -> None:
    ids = await deployment.ask(20)
    await killed(deployment)
    await deployment.start_redis()
    deployment.worker()

    assert {result.status for result in await deployment.answered(ids)} == {200}
    assert deployment.billed() == dict.fromkeys(ids, 1)
    assert deployment.worker_logs().count("redis_forgetful") == 1


async def cancel(deployment: Deployment) -> None:
    [batch] = await deployment.batches()
    verdict = await deployment.scripts.cancel(
        batch_id=batch.batch_id, lane_id=batch.lane_id, ending=b"{}", error="cancelled by a person"
    )
    assert verdict is Verdict.OK


@pytest.mark.parametrize("lag_s", [0.0, 4.0])
async def test_a_batch_that_was_created_and_forgotten_is_found_to_be_cancelled(
    deployment: Deployment, lag_s: float
) -> None:
    """Ended without a search it would run on, paid for and read by nobody."""
    deployment.env["BATCHLING_RECONCILE_PATIENCE_SECONDS"] = "6"
    deployment.sandbox.faults.add(StickBatch(state="in_progress", done=0.0, times=None))
    deployment.sandbox.faults.add(LagList(seconds=lag_s))
    ids = await deployment.ask(20)
    remembered = await remember(deployment)
    first = deployment.worker()
    await wait_until(lambda: len(deployment.sandbox.batches()) == 1, description="created", within_s=30)
    kill(first)
    await forget(deployment, remembered)

    await cancel(deployment)
    deployment.worker()

    assert {result.status for result in await deployment.answered(ids)} == {499}
    assert [batch["status"] for batch in deployment.sandbox.batches()] == ["cancelled"]


async def test_what_was_never_sent_is_cancelled_after_a_moment_of_doubt(deployment: Deployment) -> None:
    deployment.env["BATCHLING_RECONCILE_PATIENCE_SECONDS"] = "2"
    ids = await deployment.ask(20)
    await killed(deployment)
    await deployment.start_redis()

    await cancel(deployment)
    deployment.worker()

    assert {result.status for result in await deployment.answered(ids)} == {499}
    assert [batch.state for batch in await deployment.settled()] == [BatchState.CANCELLED]
    assert deployment.sandbox.batches() == []
