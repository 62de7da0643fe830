"""A waiting program learns why it waits within seconds, in its provider's words, and never with a key."""

from __future__ import annotations

import asyncio
import logging

import pytest

from batchling_client import batchify
from batchling_worker.sandbox import Sandbox
from batchling_worker.sandbox.world.faults import RefusePoll
from tests.client.asking import ask_all
from tests.deployment import CANARY, MODEL, Deployment
from tests.waiting import wait_until


async def test_a_key_that_is_refused_while_a_batch_runs_is_said_to_the_program_that_waits(
    deployment: Deployment,
    sandbox: Sandbox,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    sandbox.faults.add(RefusePoll(status=401, times=None, message=f"Incorrect API key provided: {CANARY}"))
    for name, value in deployment.env.items():
        if name.startswith("BATCHLING_"):
            monkeypatch.setenv(name, value)
    caplog.set_level(logging.WARNING, "batchling")
    deployment.worker()
    async with batchify(batch_window_seconds=0.05) as run:
        asked = asyncio.create_task(ask_all(run, "a", "b", model=MODEL, key=CANARY))
        await wait_until(lambda: "answered 401" in caplog.text, description="it is said", within_s=20)

        told = "groq answered 401 when asked to look at a batch"
        [reason] = run.progress.reasons
        assert reason.startswith(f"groq/{MODEL}: ")
        assert told in reason
        assert "(2 requests in batch b" in reason
        assert run.progress.n_waiting == 2
        assert told in run.summary()

        sandbox.faults.clear()
        assert {reply.status for reply in await asked} == {200}
    warnings = [record.message for record in caplog.records if record.name == "batchling"]
    assert [line for line in warnings if told in line] == warnings
    # Once as it is met, and once more where it has the key's batches parked.
    assert 1 <= len(warnings) <= 2
    assert len(set(warnings)) == len(warnings)
    assert CANARY not in caplog.text + run.summary()
    assert run.progress.reasons == ()
    assert run.summary().endswith(f"(run {run.id})")
