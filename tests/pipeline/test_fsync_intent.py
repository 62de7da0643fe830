"""With `BATCHLING_FSYNC_INTENT` a create is sent only once Redis has confirmed that its record is on disk."""

from __future__ import annotations

from tests.deployment import Deployment
from tests.redis_server import skip_without_waitaof
from tests.waiting import wait_until


async def a_worker(deployment: Deployment) -> None:
    deployment.worker(fsync_intent="true")

    async def lives() -> bool:
        return bool(await deployment.redis.execute_command("ZCARD", deployment.keys.workers))

    await wait_until(lives, description="the worker has found Redis fit", within_s=30)


async def waits_for_the_disk(deployment: Deployment) -> bool:
    clients = await deployment.redis.execute_command("CLIENT", "LIST")
    return "cmd=waitaof" in str(clients)


async def test_a_create_is_sent_after_the_disk_has_its_record_and_not_before(deployment: Deployment) -> None:
    skip_without_waitaof()
    await a_worker(deployment)
    await deployment.redis.execute_command("CONFIG", "SET", "appendfsync", "no")
    ids = await deployment.ask(10)

    await wait_until(lambda: waits_for_the_disk(deployment), description="an intent waits", within_s=30)
    [batch] = await deployment.batches()
    assert batch.input_file_id
    assert deployment.sandbox.batches() == []
    await deployment.redis.execute_command("CONFIG", "SET", "appendfsync", "always")

    assert {result.status for result in await deployment.answered(ids)} == {200}
    assert deployment.billed() == dict.fromkeys(ids, 1)


async def test_without_the_disks_word_nothing_is_sent_and_the_batch_is_looked_at_again(
    deployment: Deployment,
) -> None:
    skip_without_waitaof()
    await a_worker(deployment)
    await deployment.redis.execute_command("CONFIG", "SET", "appendonly", "no")
    ids = await deployment.ask(10)

    def refused() -> int:
        return deployment.worker_logs().count("intent_not_on_disk")

    await wait_until(lambda: refused() >= 2, description="two intents fail", within_s=30)
    assert deployment.sandbox.batches() == []
    await deployment.redis.execute_command("CONFIG", "SET", "appendonly", "yes")

    assert {result.status for result in await deployment.answered(ids)} == {200}
    assert deployment.billed() == dict.fromkeys(ids, 1)
