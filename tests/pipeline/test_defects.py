"""One row on which our own code fails: its caller gets an error, and the others are answered all the same."""

from __future__ import annotations

import dataclasses
import os
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator

import httpx
import pytest

from batchling_client.wire.keys import RequestId
from batchling_client.wire.records.batch import Batch
from batchling_client.wire.states import BatchState, Outcome, RowKind
from batchling_worker import providers
from batchling_worker.claim import Terms
from batchling_worker.decisions import fates
from batchling_worker.pipeline.collect import collect
from batchling_worker.pipeline.settle import settle
from batchling_worker.pipeline.step import AccountStep, StepSettings
from batchling_worker.provider import Account, Answer, Ending
from batchling_worker.providers import Providers
from batchling_worker.store import Store
from batchling_worker.telemetry import Telemetry
from tests.deployment import Deployment
from tests.scripts.byhand import ByHand, ids

from .hand import Hand

SETTINGS = StepSettings(
    namespace="default", poll_interval_s=1.0, max_attempts=3, reconcile_patience_s=1.0, results_patience_s=0.4
)
ENDING = b'{"results":["file"]}'


class Answering:
    """A provider whose results hold these rows."""

    facts = providers.load("groq").facts

    def __init__(self, answers: list[Answer]) -> None:
        self._answers = answers

    async def results(self, account: Account, ending: Ending) -> AsyncGenerator[Answer, None]:
        for answer in self._answers:
            yield answer


def answer(request_id: RequestId) -> Answer:
    return Answer(custom_id=request_id, status=200, body=b"{}", headers={})


@pytest.fixture
async def account() -> AsyncIterator[Account]:
    async with httpx.AsyncClient() as http:
        yield Account(base_url="", headers={}, http=http, digest="a")


async def step_on(
    deployment: Deployment,
    byhand: ByHand,
    account: Account,
    monkeypatch: pytest.MonkeyPatch,
    rows: list[RequestId],
    answers: list[Answer],
) -> AccountStep:
    """A step on a batch that has ended, under a fresh claim."""
    terms = Terms(lease_ms=60_000, result_ttl_ms=60_000, max_attempts=3)
    store = Store(redis=deployment.redis, keys=deployment.keys, terms=terms)
    batch_id = await byhand.at_provider(rows)
    await byhand.scripts.ended(
        batch_id=batch_id,
        token=await byhand.claimed(batch_id),
        outcome=Outcome.COMPLETED,
        status="completed",
        ending=ENDING,
        error="",
    )
    claim = store.claim(batch_id, await byhand.claimed(batch_id))
    _, batch = await claim.begin([BatchState.ENDED])
    assert batch is not None
    monkeypatch.setattr(providers, "load", lambda name: Answering(answers))
    return AccountStep(
        claim=claim,
        batch=batch,
        store=store,
        account=account,
        settings=SETTINGS,
        providers=Providers({}),
        telemetry=Telemetry(),
        reach=lambda point: None,
    )


async def test_a_result_that_we_fail_on_is_left_out_and_the_others_are_delivered(
    deployment: Deployment, account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    byhand = ByHand(deployment.redis, deployment.keys)
    rows = ids(3)
    real = fates.row_kind

    def failing(one: Answer) -> RowKind:
        if one.custom_id == rows[1]:
            raise ZeroDivisionError
        return real(one)

    monkeypatch.setattr(fates, "row_kind", failing)
    await collect(
        await step_on(deployment, byhand, account, monkeypatch, rows, [answer(one) for one in rows])
    )

    assert [await byhand.result(one) is not None for one in rows] == [True, False, True]
    assert await byhand.place(rows[1]) is not None


async def test_a_row_that_our_code_fails_on_gets_an_error_and_the_others_continue(
    deployment: Deployment, account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    byhand = ByHand(deployment.redis, deployment.keys)
    rows = ids(3)
    step = await step_on(deployment, byhand, account, monkeypatch, rows, [])
    real = fates.row_fate

    def failing(
        batch: Batch, ending: Ending, request_id: RequestId, attempt: int, max_attempts: int
    ) -> fates.RowFate:
        if request_id == rows[1]:
            raise ZeroDivisionError
        return real(batch, ending, request_id, attempt, max_attempts)

    monkeypatch.setattr(fates, "row_fate", failing)
    await settle(dataclasses.replace(step, batch=dataclasses.replace(step.batch, collected_at=step.now)))

    told = await byhand.result(rows[1])
    assert told is not None
    assert (told.status, told.origin) == (500, "batch_row_failed")
    assert (await byhand.batch(step.batch.batch_id)).state is BatchState.SETTLED
    for one in (rows[0], rows[2]):
        place = await byhand.place(one)
        assert place is not None
        assert not place.startswith(step.batch.batch_id)


async def test_a_full_disk_of_the_worker_is_reported_and_its_batch_continues_later(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = await deployment.ask(3)
    [opened] = await deployment.batches()
    async with Hand(deployment) as hand:
        await hand.bring(opened.batch_id, BatchState.SEALED)
        with monkeypatch.context() as full:
            full.setattr(
                tempfile, "TemporaryFile", lambda **_: os.fdopen(os.open("/dev/full", os.O_RDWR), "w+b")
            )
            await hand.step(opened.batch_id)
        waiting = await hand.batch(opened.batch_id)
        assert (waiting.state, waiting.n_stumbles) == (BatchState.SEALED, 1)
        assert waiting.error == "the worker cannot write the input file: No space left on device"
        await hand.bring(opened.batch_id, BatchState.ENDED)
    assert set(deployment.billed()) == set(ids)
