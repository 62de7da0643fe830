"""Answers that are too long, or too many, stay at their provider: callers get an error, and a retry reads them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import AsyncIterator

import pytest

from batchling_client.wire.states import BatchState
from batchling_worker.sandbox.world.faults import SpoilRows
from tests.deployment import Deployment

from .hand import Hand
from .test_rereading import asked, retried, to_its_end

N = 5


@pytest.fixture
async def hand(deployment: Deployment) -> AsyncIterator[Hand]:
    async with Hand(deployment) as steps:
        yield steps


def allow(hand: Hand, *, longest: int = 10**7, batch: int = 10**9) -> None:
    engine = hand.engine
    engine._step_settings = dataclasses.replace(
        engine._step_settings, longest_answer_bytes=longest, batch_answers_bytes=batch
    )
    engine._access._longest_answer_bytes = longest


async def test_a_row_that_is_too_long_fails_alone_and_is_read_by_a_retry_under_a_higher_limit(
    deployment: Deployment, hand: Hand
) -> None:
    allow(hand, longest=20_000)
    body = json.dumps({"choices": [{"message": {"content": "x" * 50_000}}]})
    long = f'{{"custom_id":"CUSTOM_ID","response":{{"status_code":200,"body":{body}}}}}'
    deployment.sandbox.faults.add(SpoilRows(n=1, lines=(long,)))
    batch_id, ids = await asked(deployment, N)

    batch = await to_its_end(hand, batch_id)

    results = await deployment.answered(ids)
    assert sorted(result.status for result in results) == [200] * (N - 1) + [502]
    [failed] = [result for result in results if result.status == 502]
    assert failed.origin == "batch_answer_too_large"
    assert "BATCHLING_LONGEST_ANSWER_BYTES" in failed.body.decode()
    assert (batch.state, batch.n_succeeded, batch.n_requeued) == (BatchState.SETTLED, N - 1, 0)

    allow(hand)
    assert (await retried(deployment, batch_id)).batch_ids == (batch_id,)
    await to_its_end(hand, batch_id)

    results = await deployment.answered(ids)
    assert {result.status for result in results} == {200}
    assert any(len(result.body) > 50_000 for result in results)
    assert deployment.billed() == dict.fromkeys(ids, 1)


async def test_answers_that_do_not_fit_into_redis_are_neither_lost_nor_run_again(
    deployment: Deployment, hand: Hand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("batchling_worker.pipeline.result_chunks.CHUNK_ROWS", 1)
    allow(hand, batch=600)
    batch_id, ids = await asked(deployment, N)

    batch = await to_its_end(hand, batch_id)

    results = await deployment.answered(ids)
    failed = [result for result in results if result.status == 502]
    assert 0 < len(failed) < N
    assert {result.origin for result in failed} == {"batch_failed"}
    assert all("BATCHLING_BATCH_ANSWERS_BYTES" in result.body.decode() for result in failed)
    assert "batchling retry" in batch.error
    assert batch.n_requeued == 0

    allow(hand)
    assert (await retried(deployment, batch_id)).batch_ids == (batch_id,)
    await to_its_end(hand, batch_id)

    assert {result.status for result in await deployment.answered(ids)} == {200}
    assert deployment.billed() == dict.fromkeys(ids, 1)


async def test_a_batch_whose_last_answer_fills_its_place_has_not_failed(
    deployment: Deployment, hand: Hand
) -> None:
    allow(hand, batch=1)
    batch_id, ids = await asked(deployment, N)
    batch = await to_its_end(hand, batch_id)
    assert {result.status for result in await deployment.answered(ids)} == {200}
    assert (batch.state, batch.error) == (BatchState.SETTLED, "")
