"""Never billed twice, whatever the provider: the weather around a create, and what its lists show and hide."""

from __future__ import annotations

import httpx
import pytest

from batchling_worker.sandbox.world.faults import (
    CutCreateAnswer,
    DoubleCreate,
    DropCreateAnswer,
    DropCreateRequest,
    DropMetadata,
    DropPollAnswer,
    DropUploadAnswer,
    FailCreateAnswer,
    Fault,
    HideBatch,
    HideInputFileId,
    LagList,
    ListWithoutLabels,
    RefuseCreate,
    RefusePoll,
    RefuseUpload,
    SlowUpload,
    StickBatch,
)
from tests.deployment import CANARY, Deployment
from tests.waiting import wait_until

WEATHER: dict[str, list[Fault]] = {
    "answer lost": [DropCreateAnswer()],
    "answer cut in half": [CutCreateAnswer()],
    "answer is half a JSON": [FailCreateAnswer(status=200, body='{"id": "batch_')],
    "answer is HTML": [FailCreateAnswer(status=200, body="<html>gateway</html>")],
    "answer has no id": [FailCreateAnswer(status=200, body="{}")],
    "answer is empty": [FailCreateAnswer(status=200, body="")],
    "answer is 400 though it happened": [FailCreateAnswer(status=400)],
    "answer is 404 though it happened": [FailCreateAnswer(status=404)],
    "answer is 422 though it happened": [FailCreateAnswer(status=422)],
    "answer is 429 though it happened": [FailCreateAnswer(status=429)],
    "answer is 429 though it happened, lists lag": [FailCreateAnswer(status=429), LagList(seconds=1.4)],
    "answer is 429 though it happened, 404 at first": [FailCreateAnswer(status=429), HideBatch(seconds=1.4)],
    "answer is 425 though it happened, lists lag": [FailCreateAnswer(status=425), LagList(seconds=1.4)],
    "answer is a full quota though it happened": [
        FailCreateAnswer(status=429, message="Enqueued token limit reached.")
    ],
    "answer is 408 though it happened": [FailCreateAnswer(status=408)],
    "answer is 409 though it happened": [FailCreateAnswer(status=409)],
    "answer is 500 though it happened": [FailCreateAnswer(status=500)],
    "answer is 504 in HTML though it happened": [FailCreateAnswer(status=504, body="<html>")],
    "answer is an error under 200 though it happened": [FailCreateAnswer(status=200)],
    "refused under 200": [RefuseCreate(status=200)],
    "answer lost, then searches are an error under 200": [
        DropCreateAnswer(),
        RefusePoll(status=200, times=2),
    ],
    "never arrived": [DropCreateRequest()],
    "refused 429 with Retry-After": [RefuseCreate(status=429, retry_after="1", times=2)],
    "refused 503": [RefuseCreate(status=503)],
    "answer lost, lists lag a little": [DropCreateAnswer(), LagList(seconds=0.6)],
    "answer lost, lists lag beyond the first search": [DropCreateAnswer(), LagList(seconds=1.4)],
    "answer lost, 404 at first": [DropCreateAnswer(), HideBatch(seconds=1.4)],
    "404 right after an answer": [HideBatch(seconds=0.5)],
    "answer lost, then searches fail": [DropCreateAnswer(), RefusePoll(status=500), DropPollAnswer()],
    "answer lost, no metadata kept": [DropCreateAnswer(), DropMetadata()],
    "answer lost, input file never shown": [DropCreateAnswer(), HideInputFileId()],
    "answer lost, lists without labels": [DropCreateAnswer(), ListWithoutLabels()],
    "answer lost, lists without labels, no metadata": [
        DropCreateAnswer(),
        ListWithoutLabels(),
        DropMetadata(),
    ],
    "answer lost, nothing to tell it by but its rows": [
        DropCreateAnswer(),
        DropMetadata(),
        HideInputFileId(),
    ],
    "the same, and it runs for longer than the patience": [
        DropCreateAnswer(),
        DropMetadata(),
        HideInputFileId(),
        StickBatch(state="in_progress", seconds=2.0),
    ],
    "upload's answer lost": [DropUploadAnswer()],
    "upload refused 500": [RefuseUpload(status=500, times=2)],
    "upload slow": [SlowUpload(seconds=0.5)],
}


@pytest.mark.parametrize("weather", WEATHER)
async def test_each_request_is_answered_once_and_billed_once(
    deployment: Deployment, provider: str, weather: str
) -> None:
    deployment.sandbox.faults.add(*WEATHER[weather])
    deployment.fork()
    ids = await deployment.ask(20, provider=provider)

    results = await deployment.answered(ids)

    assert {result.status for result in results} == {200}
    [batch] = await deployment.settled()
    assert batch.n_succeeded == 20
    assert deployment.billed() == dict.fromkeys(ids, 1)


async def test_a_create_refused_for_good_under_200_fails_with_the_providers_words(
    deployment: Deployment, provider: str
) -> None:
    words = "This project may not create batches."
    deployment.sandbox.faults.add(RefuseCreate(status=200, message=words, times=None))
    deployment.fork()
    ids = await deployment.ask(3, provider=provider)

    results = await deployment.answered(ids, hurried=True)

    assert all(result.status >= 400 and words in result.body.decode() for result in results)
    assert deployment.billed() == {}


async def test_a_create_that_came_through_twice_is_billed_once(deployment: Deployment, provider: str) -> None:
    """A gateway sends it twice and the answer is lost: of the two the older one is kept."""
    second_waits: list[Fault] = [
        StickBatch(state="validating", seconds=60.0, after=1),
        StickBatch(state="validating", seconds=0.0),
    ]
    deployment.sandbox.faults.add(DoubleCreate(), DropCreateAnswer(), *second_waits)
    deployment.fork()
    ids = await deployment.ask(20, provider=provider)

    results = await deployment.answered(ids)

    assert {result.status for result in results} == {200}
    await wait_until(
        lambda: [batch["status"] for batch in deployment.sandbox.batches()] == ["completed", "cancelled"],
        description="the second batch is cancelled",
    )
    assert deployment.billed() == dict.fromkeys(ids, 1)


async def test_an_earlier_attempt_with_the_same_rows_is_not_taken_for_the_batch(
    deployment: Deployment, provider: str
) -> None:
    nameless: list[Fault] = [DropMetadata(times=None), HideInputFileId(times=None)]
    deployment.sandbox.faults.add(*nameless)
    deployment.fork()
    ids = await deployment.ask(6, provider=provider, prompts=["fault:500x1"] * 6)
    deployment.sandbox.faults.add(DropCreateAnswer(after=1))

    results = await deployment.answered(ids)

    assert {result.status for result in results} == {200}
    batches = await deployment.settled()
    assert [batch.n_requests for batch in batches] == [6, 6]
    assert len({batch.provider_batch_id for batch in batches}) == len(deployment.sandbox.batches()) == 2
    assert deployment.sandbox.ledger().billed() == dict.fromkeys(ids, 1)


async def test_another_s_nameless_batch_that_runs_on_holds_the_create_back_and_is_not_adopted(
    deployment: Deployment, provider: str
) -> None:
    """Two namespaces under one key: what cannot be told from ours may be ours, until its rows say."""
    deployment.sandbox.faults.add(DropMetadata(times=None), HideInputFileId(times=None))
    deployment.sandbox.faults.add(StickBatch(state="in_progress", seconds=3.0))
    other = deployment.fork()
    theirs = await deployment.ask(3, provider=provider)
    await wait_until(lambda: bool(deployment.sandbox.batches()), description="their batch is there")
    deployment.kill_fork(other)
    await deployment.redis.execute_command("FLUSHALL")

    deployment.sandbox.faults.add(DropCreateRequest())
    deployment.fork()
    ids = await deployment.ask(4, provider=provider)

    await deployment.answered(ids)

    theirs_at, ours_at = deployment.sandbox.batches()
    assert theirs_at["completed_at"] is not None
    assert str(ours_at["created_at"]) >= str(theirs_at["completed_at"])
    assert deployment.billed() == dict.fromkeys([*theirs, *ids], 1)


@pytest.mark.parametrize("status", [400, 402, 422])
async def test_a_create_refused_after_a_lost_create_fails_its_callers(
    deployment: Deployment, provider: str, status: int
) -> None:
    deployment.sandbox.faults.add(
        DropCreateRequest(), RefuseCreate(status=status, message="billing limit", times=None)
    )
    deployment.fork()
    ids = await deployment.ask(5, provider=provider)

    async def told() -> bool:
        await deployment.hurry()
        return all(await deployment.results(ids))

    await wait_until(told, description="every caller has an answer", within_s=30)
    results = await deployment.answered(ids)
    assert {result.status for result in results} == {status}
    assert all(b"billing limit" in result.body for result in results)
    assert deployment.billed() == {}
    assert deployment.sandbox.faults.n_struck(RefuseCreate) == 2, "once more, as the first was in doubt"


def n_uploads(deployment: Deployment, provider: str) -> int:
    """Also those that broke off; a file may have needed several calls until it was stored."""
    return deployment.sandbox.ledger().calls[f"{provider} POST /files"]


async def test_the_input_file_is_uploaded_once_however_often_the_create_fails(
    deployment: Deployment, provider: str
) -> None:
    deployment.sandbox.faults.add(RefuseCreate(status=503), DropCreateRequest(after=1))
    doomed = deployment.fork(crash_at="submit.file_stored")
    ids = await deployment.ask(5, provider=provider)
    await deployment.fork_died(doomed)
    before = n_uploads(deployment, provider)
    deployment.fork()

    await deployment.answered(ids)

    assert n_uploads(deployment, provider) == before
    assert deployment.billed() == dict.fromkeys(ids, 1)


async def test_an_input_file_that_is_gone_is_uploaded_anew_once(
    deployment: Deployment, provider: str
) -> None:
    doomed = deployment.fork(crash_at="submit.file_stored")
    ids = await deployment.ask(5, provider=provider)
    await deployment.fork_died(doomed)
    before = n_uploads(deployment, provider)
    [lost] = await deployment.batches()
    root = {"groq": "/openai/v1", "openai": "/v1"}[provider]
    url = f"{deployment.sandbox.base_url(provider)}{root}/files/{lost.input_file_id}"
    async with httpx.AsyncClient(headers={"authorization": f"Bearer {CANARY}"}) as person:
        assert (await person.delete(url)).is_success
    deployment.fork()

    async def answered() -> bool:
        await deployment.hurry()
        return all(await deployment.results(ids))

    await wait_until(answered, description="answers in spite of it", within_s=40)
    await deployment.settled()
    assert n_uploads(deployment, provider) == before + 1
    assert deployment.billed() == dict.fromkeys(ids, 1)
