"""A dead master is replaced by its replica, and no request is lost or paid for twice."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from batchling_client import batchify
from batchling_worker.sandbox import Sandbox
from tests.client.asking import ask_all
from tests.deployment import MODEL
from tests.waiting import wait_until

from .guarded import Guarded

PROMPTS = [f"prompt {number}" for number in range(120)]


@pytest.fixture
async def guarded(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Guarded]:
    with (
        Sandbox(speeds={"*": 0.5}) as sandbox,
        tempfile.TemporaryDirectory(prefix="bl-") as home,
    ):
        async with Guarded(home=Path(home), sandbox=sandbox) as running:
            for name, value in running.env.items():
                if name.startswith("BATCHLING_"):
                    monkeypatch.setenv(name, value)
            yield running


async def test_a_killed_master_costs_seconds_and_loses_no_request(guarded: Guarded) -> None:
    guarded.worker()
    guarded.worker(pool="prefork")
    async with batchify(batch_size=10, batch_window_seconds=0.2, live_display=False) as run:
        first = asyncio.create_task(ask_all(run, *PROMPTS[:80], model=MODEL))
        await wait_until(
            lambda: len(guarded.sandbox.batches()) > 2, description="some are at the provider", within_s=40
        )
        master, _, sentinel, *_ = guarded.ports
        guarded.kill(master)
        guarded.kill(sentinel)
        during = asyncio.create_task(ask_all(run, *PROMPTS[80:], model=MODEL))
        # If two Sentinels vote for themselves, they vote again after twice the `failover-timeout`.
        await wait_until(guarded.failed_over, description="the replica is the master", within_s=60)
        replies = [reply for part in await asyncio.gather(first, during) for reply in part]

    assert [reply.status for reply in replies] == [200] * len(PROMPTS)
    assert sorted(guarded.billed().values()) == [1] * len(PROMPTS)
