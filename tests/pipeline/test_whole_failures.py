"""A batch that is refused as a whole: the blamed row fails, the others are sent again, no retry lasts for ever."""

from __future__ import annotations

import json

import pytest

from batchling_client.wire.states import BatchState
from batchling_worker.sandbox.world.faults import FailBatch, Fault, RefuseCreate, RefuseUpload
from tests.deployment import MODEL, Deployment, in_turn
from tests.form import form_of

BAD_LINE = "invalid_json_line"


def refused(message: str, param: str | None = None) -> str:
    return json.dumps({"error": {"message": message, "type": "invalid_request_error", "param": param}})


def invalid(*places: str) -> str:
    """As FastAPI words it."""
    flaws = [
        {"type": "less_than_equal", "loc": [place, "body", "temperature"], "msg": "Too hot", "input": 9}
        for place in places
    ]
    return json.dumps({"detail": flaws})


def beside(*places: str) -> str:
    """As Litestar words it."""
    flaws = [{"key": place, "message": "Too hot"} for place in places]
    return json.dumps({"status_code": 400, "detail": "Validation failed", "extra": flaws})


BLAMED: dict[str, tuple[Fault, set[int]]] = {
    "a line": (FailBatch(code=BAD_LINE, message="it is not JSON", line=3), {3}),
    "several lines": (FailBatch(code=BAD_LINE, message="no JSON", lines=(1, 3, 6)), {1, 3, 6}),
    "all but one": (FailBatch(code=BAD_LINE, message="no JSON", lines=(1, 2, 3, 4, 5)), {1, 2, 3, 4, 5}),
    "an existing line and a missing line": (
        FailBatch(code=BAD_LINE, message="no JSON", lines=(4, 999)),
        {4},
    ),
    "a line under a code nobody knows": (FailBatch(code="odd", message="bad", line=2), {2}),
    "a line in words only": (FailBatch(code="", message="input format error: Line 4 is not valid"), {4}),
    "an index in param": (FailBatch(code="invalid_value", message="bad", param="requests[4].body"), {5}),
    "an index in words": (FailBatch(code="", message="requests.0.params.max_tokens: too large"), {1}),
    "create refused with an index": (
        RefuseCreate(status=400, body=refused("bad", "requests[1].params")),
        {2},
    ),
    "create refused with a line": (RefuseCreate(status=422, body=refused("Line 6: no model")), {6}),
    "create refused with a list beside its sentence": (
        RefuseCreate(status=400, body=beside("requests[1].body", "requests[4].body.n")),
        {2, 5},
    ),
    "upload refused with a line": (RefuseUpload(status=400, body=refused("Error on line 3: bad")), {3}),
    "upload refused with a list of validation errors": (
        RefuseUpload(status=422, body=invalid("line 3", "line 5")),
        {3, 5},
    ),
}


@pytest.mark.parametrize(("how", "provider"), in_turn(BLAMED))
async def test_a_row_that_is_blamed_fails_alone_and_the_rest_goes_on(
    deployment: Deployment, provider: str, how: str
) -> None:
    fault, blamed = BLAMED[how]
    deployment.sandbox.faults.add(fault)
    deployment.fork()
    ids = await deployment.ask(6, provider=provider)

    results = await deployment.answered(ids)

    assert {n for n, result in enumerate(results, start=1) if result.status >= 400} == blamed
    batches = await deployment.settled()
    first, *rest = (batch.n_requests for batch in batches)
    assert (first, sum(rest)) == (6, 6 - len(blamed))
    assert len(rest) <= 2
    assert set(deployment.billed()) == {one for n, one in enumerate(ids, start=1) if n not in blamed}


async def test_a_request_that_is_checked_at_the_create_fails_alone(deployment: Deployment) -> None:
    ids = await deployment.ask(6, provider="sference", linger_ms=60_000)
    model = form_of("sference").model
    await deployment.replace_body(3, json.dumps({"model": model, "messages": []}).encode())
    deployment.fork()
    await deployment.due()

    results = await deployment.answered(ids)

    assert [result.status for result in results] == [200, 200, 200, 400, 200, 200]
    assert "requests[3].body.messages" in json.loads(results[3].body)["detail"]
    assert deployment.billed() == dict.fromkeys((one for one in ids if one != ids[3]), 1)


async def test_many_bad_rows_named_one_a_refusal_cost_no_good_one(deployment: Deployment) -> None:
    bad = {3, 6, 8, 11, 15, 19}
    ids = await deployment.ask(24, provider="sference", linger_ms=60_000)
    body = json.dumps({"model": form_of("sference").model, "messages": []}).encode()
    for n in bad:
        await deployment.replace_body(n, body)
    deployment.fork()
    await deployment.due()

    results = await deployment.answered(ids)

    assert {n for n, result in enumerate(results) if result.status != 200} == bad
    assert deployment.billed() == {one: 1 for n, one in enumerate(ids) if n not in bad}


async def test_a_row_is_blamed_by_its_custom_id(deployment: Deployment, provider: str) -> None:
    ids = await deployment.ask(6, provider=provider, linger_ms=60_000)
    message = f"The custom_id '{ids[4]}' of this request is a duplicate of another request."
    deployment.sandbox.faults.add(FailBatch(code="duplicate_custom_id", message=message, line=2))
    deployment.fork()
    await deployment.due()

    results = await deployment.answered(ids)

    assert [result.status for result in results] == [200, 200, 200, 200, 400, 200]
    assert json.loads(results[4].body)["error"]["message"] == message


TOLD_TO_ALL: dict[str, Fault] = {
    "no row is named": FailBatch(code="odd", message="the reason"),
    "every row is named": FailBatch(code=BAD_LINE, message="the reason", lines=(1, 2, 3, 4, 5, 6)),
    "a line that does not exist": FailBatch(code=BAD_LINE, message="the reason", line=999),
    "a custom_id that is none of ours": FailBatch(code="odd", message="the reason: " + "z" * 26),
    "the model, at the first line": FailBatch(code="model_not_found", message="the reason", line=1),
    "the model, by param": FailBatch(
        code="invalid_request", message="the reason", line=1, param="body.model"
    ),
    "create refused": RefuseCreate(status=400, body=refused("the reason")),
    "create refused with a line, but for the plan": RefuseCreate(
        status=403, body=refused("the reason, line 1")
    ),
}


@pytest.mark.parametrize(("how", "provider"), in_turn(TOLD_TO_ALL))
async def test_a_failure_that_blames_no_single_row_fails_all_and_is_not_sent_again(
    deployment: Deployment, provider: str, how: str
) -> None:
    deployment.sandbox.faults.add(TOLD_TO_ALL[how])
    deployment.fork()
    ids = await deployment.ask(6, provider=provider)

    results = await deployment.answered(ids)

    assert all(400 <= result.status < 500 for result in results)
    assert all("the reason" in json.loads(result.body)["error"]["message"] for result in results)
    [batch] = await deployment.settled()
    assert batch.state is BatchState.FAILED
    assert batch.error
    # A validation's words may quote a prompt: only callers get them, unless they are about the plan.
    assert ("the reason" in batch.error) is (how == "create refused with a line, but for the plan")
    assert deployment.billed() == {}


async def test_a_provider_that_blames_another_row_each_time_is_believed_three_times(
    deployment: Deployment, provider: str
) -> None:
    deployment.sandbox.faults.add(FailBatch(code="odd", message="the reason", line=1, times=None))
    deployment.fork()
    ids = await deployment.ask(30, provider=provider)

    results = await deployment.answered(ids)

    assert {result.status for result in results} == {400}
    assert [batch.n_requests for batch in await deployment.settled()] == [30, 29, 28]
    assert deployment.billed() == {}


async def test_a_torn_off_settle_refuses_the_guilty_row_and_no_other(
    deployment: Deployment, provider: str
) -> None:
    deployment.sandbox.faults.add(FailBatch(code=BAD_LINE, message="line 200 is not JSON", line=200))
    doomed = deployment.fork(crash_at="settle.chunk")
    ids = await deployment.ask(300, provider=provider)
    await deployment.fork_died(doomed)
    deployment.fork()

    results = await deployment.answered(ids)

    assert [n for n, result in enumerate(results, start=1) if result.status != 200] == [200]
    await deployment.settled()
    assert set(deployment.billed()) == set(ids) - {ids[199]}


async def test_a_damaged_row_gets_an_error_and_the_others_continue(
    deployment: Deployment, provider: str
) -> None:
    prompts = ["a" * 3000, "b" * 3000, "c" * 3000]
    ids = await deployment.ask(3, provider=provider, prompts=prompts, linger_ms=60_000)
    await deployment.forge(1, lambda packed: packed[:-20] + b"\0" * 8 + packed[-12:])
    deployment.fork()
    await deployment.due()

    results = await deployment.answered(ids)

    assert [(result.status, result.origin) for result in results] == [
        (200, "provider"),
        (400, "batch_row_corrupt"),
        (200, "provider"),
    ]


async def test_a_row_that_our_own_code_fails_on_gets_an_error_and_the_others_continue(
    deployment: Deployment, provider: str
) -> None:
    """A body nested so deep that no reader gets to its end."""
    ids = await deployment.ask(3, provider=provider, linger_ms=60_000)
    deep = b'{"deep":' + b"[" * 100_000 + b"]" * 100_000 + b',"model":"%b"}' % MODEL.encode()
    await deployment.replace_body(1, deep)
    deployment.fork()
    await deployment.due()

    results = await deployment.answered(ids)

    assert [result.status for result in results] == [200, 400, 200]
    assert results[1].origin == "batch_row_failed"
    assert deployment.billed() == {ids[0]: 1, ids[2]: 1}


async def test_rows_for_which_an_upload_is_refused_fail_alone_with_the_provider_s_own_words(
    deployment: Deployment,
) -> None:
    """Mistral checks the lines of a file as it takes it."""
    ids = await deployment.ask(6, provider="mistral", linger_ms=60_000)
    model = form_of("mistral").model
    for place, heat in ((1, 9.0), (4, -1.0)):
        talk = [{"role": "user", "content": "Hi."}]
        body = json.dumps({"model": model, "messages": talk, "temperature": heat}).encode()
        await deployment.replace_body(place, body)
    deployment.fork()
    await deployment.due()

    results = await deployment.answered(ids)

    assert [result.status for result in results] == [200, 422, 200, 200, 422, 200]
    places = [flaw["loc"] for flaw in json.loads(results[1].body)["detail"]]
    assert places == [["line 2", "body", "temperature"], ["line 5", "body", "temperature"]]
    assert deployment.billed() == {one: 1 for n, one in enumerate(ids) if n not in (1, 4)}
