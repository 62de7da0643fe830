"""A worker stopped past its lease (SIGSTOP) counts as dead; when it resumes it changes nothing and costs nothing."""

from __future__ import annotations

import os
import signal
import subprocess

from batchling_worker.sandbox.world.faults import SlowCreate, SlowDownload, SlowUpload
from tests.deployment import Deployment
from tests.waiting import wait_until


def stop(worker: subprocess.Popen[bytes]) -> None:
    os.killpg(worker.pid, signal.SIGSTOP)


def go_on(worker: subprocess.Popen[bytes]) -> None:
    os.killpg(worker.pid, signal.SIGCONT)


def says(deployment: Deployment, name: str, event: str) -> bool:
    return event in (deployment.home / f"{name}.log").read_text(errors="replace")


async def test_a_worker_stopped_during_a_create_creates_and_bills_nothing_twice(
    deployment: Deployment,
) -> None:
    deployment.sandbox.faults.add(SlowCreate(seconds=1.0))
    stopped = deployment.worker()
    ids = await deployment.ask(40)
    await wait_until(
        lambda: bool(deployment.sandbox.batches()), description="the provider has it", within_s=20
    )
    stop(stopped)
    deployment.worker()

    results = await deployment.answered(ids)
    before = await deployment.settled()
    go_on(stopped)
    await wait_until(
        lambda: says(deployment, "w0", "step_stale") or says(deployment, "w0", "batch_submitted"),
        description="the stopped worker has seen where it is",
        within_s=20,
    )

    assert {result.status for result in results} == {200}
    assert await deployment.batches() == before
    assert len(deployment.sandbox.batches()) == 1
    assert deployment.billed() == dict.fromkeys(ids, 1)
    assert stopped.poll() is None


async def test_a_worker_stopped_during_a_download_loses_and_doubles_no_answer(deployment: Deployment) -> None:
    deployment.sandbox.faults.add(SlowDownload(bytes_per_second=150_000))
    stopped = deployment.worker()
    ids = await deployment.ask(900)

    async def some() -> bool:
        return any(result is not None for result in await deployment.results(ids))

    await wait_until(some, description="the first chunk is delivered", within_s=20)
    stop(stopped)
    assert not all(result is not None for result in await deployment.results(ids)), "it was through already"
    deployment.worker()

    results = await deployment.answered(ids)
    before = await deployment.settled()
    go_on(stopped)
    await wait_until(
        lambda: says(deployment, "w0", "step_stale"), description="it has seen where it is", within_s=20
    )

    assert await deployment.batches() == before
    assert await deployment.results(ids) == results
    assert sum(batch.n_succeeded for batch in before) == len(ids)
    assert deployment.billed() == dict.fromkeys(ids, 1)


async def test_a_batch_whose_workers_were_only_stopped_is_not_quarantined(deployment: Deployment) -> None:
    deployment.sandbox.faults.add(SlowUpload(seconds=2.5, times=4))
    ids = await deployment.ask(10)
    stopped = []
    for n in range(1, 5):
        worker = deployment.worker()

        async def begun(n: int = n) -> bool:
            [batch] = await deployment.batches()
            return batch.n_unended == n or batch.quarantined_at is not None

        await wait_until(begun, description="a step began", within_s=30)
        stop(worker)
        stopped.append(worker)
    [batch] = await deployment.batches()
    assert batch.quarantined_at is not None

    for worker in stopped:
        go_on(worker)

    results = await deployment.answered(ids)
    assert {result.status for result in results} == {200}
    [batch] = await deployment.settled()
    assert (batch.quarantined_at, batch.error) == (None, "")
    assert deployment.billed() == dict.fromkeys(ids, 1)
