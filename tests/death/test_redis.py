"""Redis killed again and again under load: nothing is lost, doubled or billed twice."""

from __future__ import annotations

from batchling_worker.sandbox.world.faults import SlowDownload, SlowUpload
from tests.deployment import SLOW_MODEL, Deployment
from tests.waiting import wait_until


async def durable(deployment: Deployment) -> None:
    """Run Redis with `appendfsync always`: the loss of unsynced writes is not tested here."""
    await deployment.redis.execute_command("CONFIG", "SET", "appendfsync", "always")


async def test_a_redis_killed_under_load_loses_and_doubles_nothing(
    deployment: Deployment,
) -> None:
    await durable(deployment)
    deployment.sandbox.faults.add(
        SlowUpload(seconds=1.0, times=3), SlowDownload(bytes_per_second=60_000, times=3)
    )
    deployment.worker(pool="threads")
    deployment.worker(pool="prefork")
    ids = await deployment.ask(600, rows=60) + await deployment.ask(200, model=SLOW_MODEL, rows=100)

    async def answers(n: int) -> None:
        async def so_many() -> bool:
            return sum(result is not None for result in await deployment.results(ids)) >= n

        await wait_until(so_many, description=f"{n} answers", within_s=40)

    for share in (0.0, 0.1, 0.4, 0.7):
        await answers(int(share * len(ids)))
        assert deployment.redis_process is not None
        deployment.redis_process.kill()
        deployment.redis_process.wait(10)
        await deployment.start_redis()
        await durable(deployment)

    results = await deployment.answered(ids, within_s=60)

    assert {result.status for result in results} == {200}
    batches = await deployment.settled()
    assert [batch.batch_id for batch in batches if batch.quarantined_at or batch.n_unended] == []
    assert sum(batch.n_succeeded for batch in batches) == len(ids)
    assert deployment.billed() == dict.fromkeys(ids, 1)
