"""Poison: a batch that kills its workers is quarantined, its neighbours are not, and an operator decides the rest."""

from __future__ import annotations

import json
import subprocess
from typing import Any

from batchling_client.wire.keys import BatchId
from batchling_client.wire.records.batch import UNENDED_ALLOWED, Batch
from batchling_client.wire.states import BatchState
from batchling_worker.sandbox.world.faults import SlowUpload
from tests.cli.command import batchling
from tests.crash_points import EXIT_CODE
from tests.deployment import SLOW_MODEL, Deployment, kill
from tests.waiting import wait_until


async def the(deployment: Deployment, batch_id: BatchId) -> Batch:
    return next(batch for batch in await deployment.batches() if batch.batch_id == batch_id)


async def quarantined(deployment: Deployment, batch_id: BatchId) -> Batch:
    async def is_off() -> bool:
        return (await the(deployment, batch_id)).quarantined_at is not None

    await wait_until(is_off, description="the batch is quarantined", within_s=40)
    return await the(deployment, batch_id)


async def look(deployment: Deployment, *words: str) -> Any:
    seen = await batchling(*words, "--json", env=deployment.env)
    assert seen.code == 0, seen.err
    return json.loads(seen.out)


async def test_a_batch_that_kills_three_workers_is_quarantined_until_retried(
    deployment: Deployment,
) -> None:
    ids = await deployment.ask(5, rows=5)
    [poison] = [batch.batch_id for batch in await deployment.batches()]
    others = await deployment.ask(20, rows=5) + await deployment.ask(5, model=SLOW_MODEL)
    for _ in range(UNENDED_ALLOWED):
        doomed = deployment.worker(crash_at=f"submit.intended={poison}")
        assert await deployment.died(doomed) == EXIT_CODE
    survivor = deployment.worker(crash_at=f"submit.intended={poison}")

    batch = await quarantined(deployment, poison)
    results = await deployment.answered(others)

    assert {result.status for result in results} == {200}
    assert survivor.poll() is None
    assert batch.state is BatchState.SUBMITTING
    [listed] = [one for one in await look(deployment, "batches") if one["batch_id"] == poison]
    assert listed["quarantined_at"] is not None
    assert f"`batchling retry {poison}`" in listed["error"]
    assert f"`batchling cancel {poison}`" in listed["error"]
    shown = await batchling("show", poison, env=deployment.env)
    assert "quarantined: three workers died on this batch" in shown.out
    assert f"batch_quarantined batch_id={poison}" in deployment.worker_logs()

    kill(survivor)
    deployment.worker()
    assert (await look(deployment, "retry", poison))["retried"] == [poison]

    results = await deployment.answered(ids)
    assert {result.status for result in results} == {200}
    await deployment.settled()
    assert deployment.billed() == dict.fromkeys([*ids, *others], 1)
    again = await batchling("retry", poison, env=deployment.env)
    assert (again.code, "it has ended" in again.sentence) == (1, True)


async def test_results_that_kill_pool_children_are_quarantined_and_can_be_cancelled(
    deployment: Deployment,
) -> None:
    ids = await deployment.ask(300)
    [poison] = [batch.batch_id for batch in await deployment.batches()]
    others = await deployment.ask(5, model=SLOW_MODEL)
    worker = deployment.worker(pool="prefork", crash_at=f"collect.chunk={poison}")

    batch = await quarantined(deployment, poison)
    await deployment.answered(others)

    assert batch.state is BatchState.ENDED
    assert worker.poll() is None, "a pool child's death took its worker along"
    n_answered = sum(result is not None for result in await deployment.results(ids))
    assert 0 < n_answered < len(ids)

    assert (await look(deployment, "cancel", poison))["cancelled"] == [poison]

    results = await deployment.answered(ids)
    assert [result.status for result in results].count(200) == n_answered
    told = [result for result in results if result.status != 200]
    assert {(result.status, result.origin) for result in told} == {(499, "batch_cancelled")}
    await deployment.settled()
    assert (await the(deployment, poison)).state is BatchState.CANCELLED
    assert deployment.billed() == dict.fromkeys([*ids, *others], 1)


async def test_batches_beside_a_poison_batch_are_not_quarantined(deployment: Deployment) -> None:
    deployment.sandbox.faults.add(SlowUpload(seconds=1.5, times=None))
    await deployment.ask(5, rows=5)
    [poison] = [batch.batch_id for batch in await deployment.batches()]
    ids = await deployment.ask(5, model=SLOW_MODEL, rows=5)
    [neighbour] = [batch.batch_id for batch in await deployment.batches() if batch.batch_id != poison]
    n_deaths = 0
    while (await the(deployment, poison)).quarantined_at is None:
        worker = deployment.worker(crash_at=f"submit.written={poison}")

        async def ended(worker: subprocess.Popen[bytes] = worker) -> bool:
            return worker.poll() is not None or (await the(deployment, poison)).quarantined_at is not None

        await wait_until(ended, description="the worker died, or the poison is known", within_s=30)
        n_deaths += worker.poll() is not None

    results = await deployment.answered(ids)

    assert n_deaths == UNENDED_ALLOWED
    assert {result.status for result in results} == {200}
    assert f"batch_quarantined batch_id={neighbour}" not in deployment.worker_logs()
