"""A batch that was created under one token of an account is looked at and collected under the next."""

from __future__ import annotations

import asyncio
import contextlib

import openai
import pytest

from batchling_client import batchify
from batchling_worker.sandbox.world.faults import RefuseKey
from tests.client.test_account_names import jwt
from tests.deployment import Deployment
from tests.waiting import wait_until

FIRST, NEXT = jwt(1, exp=5001), jwt(2, exp=5002)


async def ask(deployment: Deployment, token: str) -> None:
    endpoint = deployment.sandbox.base_url("azure")
    async with (
        openai.AsyncAzureOpenAI(
            azure_endpoint=endpoint, api_version="2024-10-21", azure_ad_token_provider=lambda: token
        ) as client,
        batchify(batch_window_seconds=0.05, live_display=False, account="evals"),
    ):
        await client.chat.completions.create(
            model="gpt-4o-batch", messages=[{"role": "user", "content": "hello"}]
        )


async def test_a_rerun_under_a_renewed_token_attaches_to_a_batch_that_runs_and_pays_nothing(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in deployment.env.items():
        if name.startswith("BATCHLING_"):
            monkeypatch.setenv(name, value)
    deployment.sandbox.speeds.set({"*": 4.0})
    deployment.worker(providers__azure__poll_interval_seconds="0")

    async def stored() -> dict[bytes, bytes]:
        names = [name async for name in deployment.redis.scan_iter(match=deployment.keys.credential("*"))]
        return {name: await deployment.redis.execute_command("GET", name) for name in names}

    first = asyncio.create_task(ask(deployment, FIRST))
    await wait_until(
        lambda: bool(deployment.sandbox.batches()), description="the batch is created", within_s=60
    )
    first.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await first
    before = await stored()
    second = asyncio.create_task(ask(deployment, NEXT))

    async def replaced() -> bool:
        return await stored() != before

    await wait_until(replaced, description="the next token is stored")
    # From here on the first token is over, as after an hour.
    deployment.sandbox.faults.add(RefuseKey(key=FIRST, status=401, times=None))
    await asyncio.wait_for(second, 100)

    assert list(deployment.billed().values()) == [1]
    [batch] = await deployment.settled()
    assert batch.n_succeeded == 1
