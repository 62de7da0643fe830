"""A provider that checks an input file as it comes: the row that it blames fails, the others go on."""

from __future__ import annotations

import json

from batchling_worker.sandbox.world.faults import RefuseCreate, RefuseUpload
from tests.deployment import Deployment
from tests.form import form_of

NAME = "doubleword"


async def test_a_row_that_an_upload_is_refused_for_fails_alone(deployment: Deployment) -> None:
    ids = await deployment.ask(20, provider=NAME)
    form = form_of(NAME)
    streamed = json.loads(form.body("question 7", form.model)) | {"stream": True}
    await deployment.replace_body(7, json.dumps(streamed).encode())
    deployment.fork()

    results = await deployment.answered(ids)
    blamed = results.pop(7)
    assert (blamed.status, blamed.origin) == (400, "provider")
    assert blamed.body.startswith(b"Line 8: ")
    assert {result.status for result in results} == {200}
    others = [one for place, one in enumerate(ids) if place != 7]
    assert deployment.billed() == dict.fromkeys(others, 1)


async def test_an_account_without_money_fails_with_the_providers_words(deployment: Deployment) -> None:
    deployment.sandbox.faults.add(RefuseCreate(status=402, body="Insufficient balance"))
    deployment.fork()
    ids = await deployment.ask(3, provider=NAME)
    results = await deployment.answered(ids)
    assert {(result.status, result.body) for result in results} == {(402, b"Insufficient balance")}


async def test_a_provider_without_room_is_asked_again_when_it_says(deployment: Deployment) -> None:
    crowded = '{"error":"too_many_requests","message":"at capacity","retry_after_seconds":1}'
    deployment.sandbox.faults.add(
        RefuseUpload(status=429, body=crowded), RefuseCreate(status=429, body=crowded)
    )
    deployment.fork()
    ids = await deployment.ask(3, provider=NAME)
    assert {result.status for result in await deployment.answered(ids)} == {200}
    assert deployment.billed() == dict.fromkeys(ids, 1)
