"""Never billed twice: a create whose answer is lost, late or a lie is searched for before it is sent again."""

from __future__ import annotations

import json

import pytest

from batchling_client.wire.states import BatchState
from batchling_worker.sandbox.world.faults import (
    DropCreateAnswer,
    DropCreateRequest,
    Fault,
    HideBatch,
    HideFile,
    LagList,
    RefuseCreate,
    RefusePoll,
)
from tests.deployment import CANARY, MODEL, SLOW_MODEL, Deployment, kill
from tests.form import form_of
from tests.waiting import wait_until

WEATHER: dict[str, list[Fault]] = {
    "create answer dropped, lists lag": [DropCreateAnswer(), LagList(seconds=0.7)],
    "file not visible at first": [HideFile(seconds=0.5)],
    "batch 404 right after create": [HideBatch(seconds=0.5)],
    "polls refused 500": [RefusePoll(status=500, times=2)],
}
"""The rest of the weather is in `test_submission_weather.py`, without Celery."""


@pytest.mark.parametrize("weather", WEATHER)
async def test_bad_weather_around_the_create_bills_and_answers_once(
    deployment: Deployment, weather: str
) -> None:
    for fault in WEATHER[weather]:
        deployment.sandbox.faults.add(fault)
    deployment.worker()
    ids = await deployment.ask(40)

    results = await deployment.answered(ids)

    assert {result.status for result in results} == {200}
    await deployment.settled()
    assert deployment.billed() == dict.fromkeys(ids, 1)


async def test_searching_for_a_lost_create_does_not_count_as_a_stumble(
    deployment: Deployment,
) -> None:
    deployment.sandbox.faults.add(DropCreateRequest())
    deployment.worker(reconcile_patience_seconds="60")
    await deployment.ask(1)

    async def searched() -> bool:
        return deployment.sandbox.ledger().calls.get("groq GET /batches", 0) >= 3

    await wait_until(searched, description="three searches", within_s=20)
    [batch] = await deployment.batches()
    assert batch.state is BatchState.SUBMITTING
    assert batch.n_stumbles == 1


async def test_kill_9_in_the_middle_of_two_models_loses_and_doubles_nothing(deployment: Deployment) -> None:
    first = deployment.worker(pool="prefork")
    ids = await deployment.ask(1000, rows=100) + await deployment.ask(1000, model=SLOW_MODEL, rows=300)

    async def some_answers() -> bool:
        return any(result is not None for result in await deployment.results(ids))

    await wait_until(some_answers, description="first answers", within_s=20)
    kill(first)
    deployment.worker()

    results = await deployment.answered(ids)
    assert {result.status for result in results} == {200}
    await deployment.settled()
    assert deployment.billed() == dict.fromkeys(ids, 1)


async def test_two_keys_never_share_a_batch(deployment: Deployment) -> None:
    deployment.worker()
    mine = await deployment.ask(20)
    yours = await deployment.ask(20, headers={"authorization": "Bearer gsk-another"})

    await deployment.answered(mine + yours)

    batches = await deployment.settled()
    assert len(batches) == 2
    assert len({batch.owner for batch in deployment.sandbox.ledger().batches}) == 2


async def test_a_refused_key_tells_every_caller_in_the_providers_words(deployment: Deployment) -> None:
    deployment.worker()
    ids = await deployment.ask(10, headers={"authorization": "Bearer invalid-key"})

    results = await deployment.answered(ids)

    assert {result.status for result in results} == {401}
    assert all("error" in json.loads(result.body) for result in results)
    [batch] = await deployment.settled()
    assert batch.state is BatchState.FAILED
    assert deployment.billed() == {}


async def test_a_row_of_another_model_is_refused_and_not_sent(deployment: Deployment) -> None:
    ids = await deployment.ask(3, linger_ms=60_000)
    await deployment.replace_body(1, form_of("groq").body("question 1", "x" * len(MODEL)))
    await deployment.due()
    deployment.worker()

    results = await deployment.answered(ids)

    assert [result.status for result in results] == [200, 400, 200]
    assert set(deployment.billed()) == {ids[0], ids[2]}


async def test_no_key_is_stored_in_clear_anywhere(deployment: Deployment) -> None:
    deployment.sandbox.faults.add(RefuseCreate(status=500, times=1))
    deployment.worker()
    ids = await deployment.ask(30, prompts=["fault:429"] * 3 + ["fine"] * 27)
    await deployment.answered(ids)
    await deployment.settled()

    dump = b""
    async for key in deployment.redis.scan_iter(match="*"):
        dump += await deployment.redis.execute_command("DUMP", key)
    aof = b"".join(path.read_bytes() for path in (deployment.home / "redis").rglob("*") if path.is_file())
    assert len(aof) > 1000
    for secret in (CANARY, CANARY.removeprefix("gsk-")):
        assert secret.encode() not in dump
        assert secret.encode() not in aof
        assert secret not in deployment.worker_logs()


async def test_one_secret_in_two_providers_headers_is_sent_to_each_in_its_own(deployment: Deployment) -> None:
    deployment.worker()
    bearer, bare = {"authorization": f"Bearer {CANARY}"}, {"x-goog-api-key": CANARY}
    asked = [
        *await deployment.ask(3, provider="gemini", headers=bare),
        *await deployment.ask(3, provider="groq", headers=bearer),
        *await deployment.ask(3, provider="mistral", headers=bearer),
    ]
    results = await deployment.answered(asked)
    assert {result.status for result in results} == {200}
