"""Celery messages only wake people up: none of them matters."""

from __future__ import annotations

import pytest

from tests.deployment import SLOW_MODEL, Deployment


@pytest.mark.parametrize("pool", ["threads", "prefork"])
async def test_every_message_dropped_still_finishes(deployment: Deployment, pool: str) -> None:
    deployment.env["BATCHLING_LEASE_SECONDS"] = "0.5"
    deployment.worker(pool=pool, messages="dropped")
    ids = await deployment.ask(50) + await deployment.ask(50, model=SLOW_MODEL)

    results = await deployment.answered(ids, within_s=50)

    assert {result.status for result in results} == {200}
    await deployment.settled()
    assert deployment.billed() == dict.fromkeys(ids, 1)


@pytest.mark.parametrize("pool", ["threads", "prefork"])
async def test_every_message_doubled_happens_once(deployment: Deployment, pool: str) -> None:
    deployment.worker(pool=pool, messages="doubled")
    deployment.worker(pool=pool, messages="doubled")
    ids = await deployment.ask(100, rows=10) + await deployment.ask(100, model=SLOW_MODEL, rows=25)

    results = await deployment.answered(ids)

    assert {result.status for result in results} == {200}
    batches = await deployment.settled()
    assert len(batches) == len(deployment.sandbox.batches()) == 14
    assert deployment.billed() == dict.fromkeys(ids, 1)
