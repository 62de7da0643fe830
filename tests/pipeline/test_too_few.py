"""Fewer requests than the provider accepts in a batch: their callers get an error, and nothing is sent."""

from __future__ import annotations

import dataclasses
import json

import pytest

from batchling_client.wire.states import BatchState
from batchling_worker import providers
from tests.deployment import Deployment

from .hand import Hand


@pytest.fixture
def choosy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Groq takes a hundred requests at least."""
    groq = providers.load("groq")
    route = dataclasses.replace(groq.facts.route, min_rows=100)
    monkeypatch.setattr(groq, "_facts", dataclasses.replace(groq.facts, route=route))


async def test_too_few_requests_get_an_error_and_nothing_is_sent(
    deployment: Deployment, choosy: None
) -> None:
    ids = await deployment.ask(99)
    async with Hand(deployment) as hand:
        [batch] = await deployment.batches()

        await hand.bring(batch.batch_id, BatchState.ENDED)
        await hand.step(batch.batch_id)
        await hand.engine.settle(await hand.claim(batch.batch_id))

    results = await deployment.answered(ids)
    assert {(result.status, result.origin) for result in results} == {(400, "batch_too_small")}
    assert "99" in json.loads(results[0].body)["error"]["message"]
    [batch] = await deployment.batches()
    assert batch.state is BatchState.FAILED
    assert "100 requests" in batch.error
    ledger = deployment.sandbox.ledger()
    assert (dict(ledger.calls), ledger.batches) == ({}, [])


async def test_as_many_as_it_takes_are_sent(deployment: Deployment, choosy: None) -> None:
    await deployment.ask(100)
    async with Hand(deployment) as hand:
        [batch] = await deployment.batches()
        await hand.bring(batch.batch_id, BatchState.SUBMITTED)
    assert len(deployment.sandbox.ledger().batches) == 1
