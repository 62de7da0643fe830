"""A rolling restart: a stopping worker releases its batches at once, and interrupts nothing that is paid for."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import subprocess
from collections.abc import AsyncIterator

import pytest

from batchling_client.wire.deployment.cancellation import end
from batchling_client.wire.keys import RequestId
from batchling_client.wire.states import BatchState
from batchling_worker.sandbox.world.faults import SlowCreate, SlowDownload, SlowUpload
from tests.deployment import SLOW_MODEL, Deployment
from tests.waiting import wait_until

LEASE_S = 300
"""Seconds; longer than any test: a batch that had to wait for its lease would not finish."""


async def working(deployment: Deployment, worker: subprocess.Popen[bytes]) -> None:
    """Wait until a worker is ready."""
    log = deployment.home / f"w{deployment.workers.index(worker)}.log"
    await wait_until(lambda: "ready." in log.read_text(), description="the worker is ready", within_s=40)


@contextlib.asynccontextmanager
async def load(deployment: Deployment, ids: list[RequestId]) -> AsyncIterator[None]:
    """Enqueue requests of two lanes until stopped."""

    async def ask() -> None:
        while True:
            ids.extend(await deployment.ask(10, rows=20, linger_ms=100))
            ids.extend(await deployment.ask(5, rows=20, linger_ms=100, model=SLOW_MODEL))
            await asyncio.sleep(0.5)

    asking = asyncio.create_task(ask())
    try:
        yield
    finally:
        await end([asking])


@pytest.mark.timeout(360)
@pytest.mark.parametrize("pool", ["threads", "prefork"])
async def test_a_rolling_restart_under_load_loses_and_doubles_nothing_and_waits_for_no_lease(
    deployment: Deployment, pool: str
) -> None:
    deployment.env["BATCHLING_LEASE_SECONDS"] = str(LEASE_S)
    deployment.sandbox.faults.add(
        SlowUpload(seconds=0.5, times=None), SlowDownload(bytes_per_second=20_000, times=None)
    )
    old = [deployment.worker(pool=pool), deployment.worker(pool=pool)]
    for worker in old:
        await working(deployment, worker)
    ids: list[RequestId] = []
    async with load(deployment, ids):
        for worker in old:
            await asyncio.sleep(0.5)
            worker.send_signal(signal.SIGTERM)
            assert await deployment.died(worker, within_s=20) == 0
            await working(deployment, deployment.worker(pool=pool))

    results = await deployment.answered(ids, within_s=LEASE_S / 3)

    assert {result.status for result in results} == {200}
    batches = await deployment.settled(within_s=LEASE_S / 3)
    assert [batch.batch_id for batch in batches if batch.quarantined_at or batch.n_unended] == []
    assert deployment.billed() == dict.fromkeys(ids, 1)


@pytest.mark.parametrize("pool", ["threads", "prefork"])
async def test_a_running_step_is_released_at_shutdown(deployment: Deployment, pool: str) -> None:
    deployment.env["BATCHLING_LEASE_SECONDS"] = str(LEASE_S)
    deployment.sandbox.faults.add(SlowUpload(seconds=40.0))
    leaving = deployment.worker(pool=pool)
    ids = await deployment.ask(20)

    # Not earlier: the fault would strike the next worker's upload.
    await wait_until(
        lambda: deployment.sandbox.faults.n_struck(SlowUpload) == 1,
        description="an upload is under way",
        within_s=30,
    )
    leaving.send_signal(signal.SIGTERM)
    assert await deployment.died(leaving, within_s=20) == 0

    [batch] = await deployment.batches()
    assert batch.n_unended == 0
    assert await deployment.is_due(batch.batch_id)
    deployment.worker(pool=pool)
    results = await deployment.answered(ids)
    assert {result.status for result in results} == {200}
    assert deployment.billed() == dict.fromkeys(ids, 1)


@pytest.mark.parametrize("pool", ["threads", "prefork"])
async def test_a_running_create_is_finished_before_shutdown(deployment: Deployment, pool: str) -> None:
    deployment.env["BATCHLING_LEASE_SECONDS"] = str(LEASE_S)
    deployment.sandbox.faults.add(SlowCreate(seconds=2.0))
    leaving = deployment.worker(pool=pool)
    ids = await deployment.ask(20)
    await wait_until(
        lambda: bool(deployment.sandbox.batches()), description="the provider has it", within_s=30
    )
    leaving.send_signal(signal.SIGTERM)
    assert await deployment.died(leaving, within_s=20) == 0

    [batch] = await deployment.batches()
    assert batch.state is BatchState.SUBMITTED
    assert batch.provider_batch_id == deployment.sandbox.batches()[0]["id"]
    deployment.worker(pool=pool)
    await deployment.answered(ids)
    assert deployment.billed() == dict.fromkeys(ids, 1)
