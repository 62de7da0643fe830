"""Prefork: when the main process dies its children end, too; a dead child costs a lease and nothing else."""

from __future__ import annotations

import os
import signal
import subprocess

import psutil
import pytest

from batchling_worker.sandbox.world.faults import SlowDownload, SlowUpload
from tests.deployment import SLOW_MODEL, Deployment
from tests.waiting import wait_until


def children(worker: subprocess.Popen[bytes]) -> list[psutil.Process]:
    return psutil.Process(worker.pid).children(recursive=True)


async def in_the_middle(deployment: Deployment, ids: list[str]) -> None:
    async def working() -> bool:
        return any(batch.n_unended for batch in await deployment.batches())

    await wait_until(working, description="a child works on a batch", within_s=30)


@pytest.mark.parametrize("fault", [SlowUpload(seconds=2.0), SlowDownload(bytes_per_second=100_000)], ids=type)
async def test_pool_children_of_a_killed_main_process_end_and_change_nothing(
    deployment: Deployment, fault: SlowUpload | SlowDownload
) -> None:
    deployment.sandbox.faults.add(fault)
    doomed = deployment.worker(pool="prefork")
    ids = await deployment.ask(500)
    await in_the_middle(deployment, [*ids])
    orphans = children(doomed)
    assert len(orphans) >= 2
    os.kill(doomed.pid, signal.SIGKILL)
    deployment.worker()

    results = await deployment.answered(ids)

    assert {result.status for result in results} == {200}
    await wait_until(
        lambda: not any(orphan.is_running() and orphan.status() != "zombie" for orphan in orphans),
        description="the orphans are gone",
        within_s=20,
    )
    await deployment.settled()
    assert deployment.billed() == dict.fromkeys(ids, 1)


async def test_killed_pool_children_cost_a_lease_and_nothing_else(deployment: Deployment) -> None:
    deployment.sandbox.faults.add(SlowUpload(seconds=2.0))
    worker = deployment.worker(pool="prefork")
    ids = await deployment.ask(200) + await deployment.ask(200, model=SLOW_MODEL)
    await in_the_middle(deployment, [*ids])

    for child in children(worker):
        child.kill()

    results = await deployment.answered(ids)
    assert {result.status for result in results} == {200}
    assert worker.poll() is None
    batches = await deployment.settled()
    assert all(batch.quarantined_at is None for batch in batches)
    assert deployment.billed() == dict.fromkeys(ids, 1)
