"""Redis runs full in the middle of a run: callers are refused, what is under way ends, and room lets all go on."""

from __future__ import annotations

import asyncio

import pytest

from batchling_client import batchify
from tests.client.asking import ask_all, error_of
from tests.deployment import MODEL, SLOW_MODEL, Deployment
from tests.waiting import wait_until


@pytest.mark.parametrize("pool", ["threads", "prefork"])
async def test_a_redis_that_runs_full_refuses_what_is_new_and_ends_what_it_holds(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch, pool: str
) -> None:
    for name, value in deployment.env.items():
        if name.startswith("BATCHLING_"):
            monkeypatch.setenv(name, value)
    worker = deployment.worker(pool=pool)
    async with batchify(batch_size=10, batch_window_seconds=0.2, live_display=False) as run:
        prompts = [f"before {number}" for number in range(60)]
        before = asyncio.create_task(ask_all(run, *prompts, model=SLOW_MODEL))
        await wait_until(
            lambda: len(deployment.sandbox.batches()) > 1, description="at the provider", within_s=30
        )

        async def all_queued() -> bool:
            return sum(batch.n_requests for batch in await deployment.batches()) >= len(prompts)

        await wait_until(all_queued, description="all are queued")

        await deployment.redis.execute_command("CONFIG", "SET", "maxmemory", "1")
        refused = await ask_all(run, *[f"while full {number}" for number in range(20)], model=MODEL)
        done = await before
        await deployment.settled()

        await deployment.redis.execute_command("CONFIG", "SET", "maxmemory", "0")
        after = await ask_all(run, *[f"after {number}" for number in range(20)], model=MODEL)

    assert {error_of(reply)["code"] for reply in refused} == {"queue_full"}
    assert {reply.status for reply in done} == {200}
    assert {reply.status for reply in after} == {200}
    assert sorted(deployment.billed().values()) == [1] * 80
    assert worker.poll() is None
