"""A row that is called a success is one only with an answer; anything else becomes a failure in its own words."""

from __future__ import annotations

import json

import pytest

from batchling_client.wire import answer_shape
from batchling_client.wire.states import RowKind
from batchling_worker.decisions import fates
from batchling_worker.pipeline.answer_check import checked
from batchling_worker.provider import Answer

CHAT = "/v1/chat/completions"


def answer(body: object, status: int = 200) -> Answer:
    return Answer(custom_id="a", status=status, body=json.dumps(body).encode(), headers={"x-request-id": "r"})


def test_an_answer_keeps_every_byte() -> None:
    kept = Answer(custom_id="a", status=200, body=b'{"choices" : [ 1.10 ]}', headers={})
    assert checked(kept, CHAT) is kept
    failed = answer({"error": "no"}, status=400)
    assert checked(failed, CHAT) is failed


def test_a_body_without_an_answer_is_an_error_and_not_run_again() -> None:
    seen = checked(answer({"model": "m", "messages": []}), CHAT)
    assert (seen.status, seen.origin, seen.headers) == (502, answer_shape.UNFIT, {"x-request-id": "r"})
    assert fates.row_kind(seen) is RowKind.FAILURE


@pytest.mark.parametrize(
    ("code", "kind"), [(502, RowKind.RETRY), (429, RowKind.RETRY), (400, RowKind.FAILURE)]
)
def test_an_error_that_is_called_a_success_counts_as_the_error_it_is(code: int, kind: RowKind) -> None:
    seen = checked(answer({"error": {"message": "no", "code": code}}), CHAT)
    assert (seen.status, seen.origin, fates.row_kind(seen)) == (code, "provider", kind)


def test_an_answer_in_a_text_is_taken_out() -> None:
    assert checked(answer(json.dumps({"choices": [1]})), CHAT).body == b'{"choices": [1]}'


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        ("InternalServerException", 500),
        ("ThrottlingException", 429),
        ("AccessDeniedException", 403),
        ("ValidationException", 400),
        ("com.amazonaws.bedrock#ServiceUnavailableException", 503),
    ],
)
def test_an_error_as_aws_words_it_is_the_failure_that_it_names(kind: str, status: int) -> None:
    body = {"__type": kind, "message": "No."}
    seen = checked(answer(body), "/model/m/invoke")
    assert (seen.status, seen.origin, json.loads(seen.body)) == (status, "provider", body)
