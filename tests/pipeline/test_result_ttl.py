"""Answers are kept as long as the setting says; afterwards the same request is asked and paid for anew."""

from __future__ import annotations

import pytest

from batchling_client import batchify
from tests.client.asking import ask, content
from tests.deployment import MODEL, Deployment
from tests.waiting import wait_until


async def test_an_answer_lives_as_long_as_the_worker_keeps_it(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("REDIS_URL", "HOME"):
        monkeypatch.setenv(f"BATCHLING_{name}", deployment.env[f"BATCHLING_{name}"])
    deployment.worker(result_ttl_seconds="2.5")

    async def kept() -> list[int]:
        names = [name async for name in deployment.redis.scan_iter(match=deployment.keys.result("*"))]
        left = [await deployment.redis.execute_command("PTTL", name) for name in names]
        # One whose time is over in between has none left.
        return [ttl_ms for ttl_ms in left if ttl_ms != -2]

    async def none_kept() -> bool:
        return not await kept()

    for _ in range(2):
        async with batchify(batch_window_seconds=0.05, live_display=False) as run:
            assert content(await ask(run, "how long?", model=MODEL))
        assert all(0 < ttl_ms <= 2500 for ttl_ms in await kept())
        await wait_until(none_kept, description="the answer's time is over")
    assert list(deployment.billed().values()) == [2]
