"""What is an answer of its endpoint, and what is only called one."""

from __future__ import annotations

import json
from typing import Any

import pytest

from batchling_client.wire import answer_shape
from batchling_client.wire.routes import ROUTES

CHAT = "/v1/chat/completions"
ANSWERS: list[tuple[str, Any]] = [
    (CHAT, {"id": "c", "choices": [{"message": {"content": "hi"}}], "usage": None, "error": None}),
    (CHAT, {"choices": []}),
    (
        CHAT,
        {
            "choices": [
                {"finish_reason": "error", "error": {"message": "cut"}},
                {"message": {"content": "hi"}},
            ]
        },
    ),
    ("/chat/completions", {"choices": [{}], "prompt_filter_results": []}),
    ("/v1/completions", {"choices": [{"text": ""}]}),
    ("/v1/fim/completions", {"choices": [{}]}),
    ("/v1/responses", {"id": "r", "status": "completed", "error": None, "output": [{}]}),
    ("/v1/responses", {"id": "r", "status": "incomplete", "error": None, "output": []}),
    ("/v1/messages", {"type": "message", "content": [{"type": "text"}]}),
    ("/v1/messages", {"type": "message", "content": [], "stop_reason": "refusal"}),
    ("/v1/embeddings", {"object": "list", "data": [{"embedding": [0.1]}]}),
    ("/v1/moderations", {"id": "m", "results": [{}]}),
    ("/v1/chat/moderations", {"results": [{}]}),
    ("/v1/classifications", {"results": [{}]}),
    ("/v1/ocr", {"pages": [], "model": "m"}),
    ("/v1/conversations", {"conversation_id": "c", "outputs": []}),
    ("/v1/audio/transcriptions", {"text": ""}),
    ("/v1/audio/translations", {"text": "hi", "segments": []}),
    ("/v1/audio/transcriptions", "a text"),
    ("/v1/images/generations", {"created": 1, "data": [{}]}),
    ("/v1/images/edits", {"url": "https://x"}),
    ("/v1/videos", {"id": "v", "object": "video", "status": "completed", "prompt": "p", "model": "m"}),
    ("/v1/videos/generations", {"video": {"url": "u"}, "model": "m"}),
    ("/v1/models:generateContent", {"candidates": [{"finishReason": "STOP"}]}),
    ("/v1/models:generateContent", {"promptFeedback": {"blockReason": "SAFETY"}}),
    ("/v1beta/models:generateContent", {"usageMetadata": {"promptTokenCount": 1}, "modelVersion": "m"}),
    ("/v1/models:embedContent", {"embedding": {"values": [1]}}),
    ("/v1/models:batchEmbedContents", {"embeddings": [{}]}),
    ("/converse", {"output": {"message": {}}, "stopReason": "end_turn"}),
    ("/invoke", {"content": [], "type": "message"}),
    ("/invoke", {"generation": "hi"}),
    ("/invoke", {"results": [{"outputText": "x"}], "inputTextTokenCount": 1}),
    ("/invoke", {"embedding": [1], "inputTextTokenCount": 1}),
    ("/v1/rerank", {"results": []}),
    ("/v1/odd", {"anything": 1}),
]


@pytest.mark.parametrize(("endpoint", "body"), ANSWERS)
def test_what_providers_answer_is_an_answer(endpoint: str, body: Any) -> None:
    assert answer_shape.unfit(endpoint, json.dumps(body).encode()) is None


def test_an_answer_in_json_that_python_alone_takes_is_one() -> None:
    assert answer_shape.unfit(CHAT, b'{"choices":[{"message":{"content":"\\ud83d"}}],"x":NaN}') is None


EMPTY: list[tuple[str, dict[str, Any]]] = [
    ("/v1/embeddings", {"object": "list", "data": [], "model": "m"}),
    ("/v1/models:embedContent", {"embedding": {}}),
    ("/v1/models:batchEmbedContents", {"embeddings": []}),
    ("/v1/images/generations", {"created": 1, "data": []}),
    ("/v1/images/generations", {"created": 1, "data": None}),
    ("/v1/images/edits", {"created": 1}),
    ("/v1/moderations", {"id": "m", "model": "m", "results": []}),
    ("/v1/classifications", {"results": []}),
    ("/v1/responses", {"id": "r", "object": "response", "status": "queued", "output": []}),
    ("/v1/responses", {"id": "r", "object": "response", "status": "in_progress", "output": [{}]}),
]


@pytest.mark.parametrize(("endpoint", "body"), EMPTY)
def test_an_answer_without_a_single_vector_image_verdict_or_end_is_none(
    endpoint: str, body: dict[str, Any]
) -> None:
    seen = answer_shape.unfit(endpoint, json.dumps(body).encode())
    assert seen is not None
    assert seen.status == answer_shape.UNFIT_STATUS


@pytest.mark.parametrize(
    ("choice", "status", "words"),
    [
        (
            {"error": {"code": 502, "message": "upstream died"}, "finish_reason": "error"},
            502,
            "upstream died",
        ),
        ({"error": {"code": "rate_limit_exceeded", "message": "slow"}}, 429, "slow"),
        ({"finish_reason": "error", "message": {"content": "par"}}, 502, "gives no reason"),
    ],
)
def test_a_chat_whose_every_choice_is_an_error_is_one_and_is_never_run_again(
    choice: dict[str, Any], status: int, words: str
) -> None:
    seen = answer_shape.unfit(CHAT, json.dumps({"id": "c", "choices": [choice]}).encode())
    assert seen is not None
    assert (seen.status, seen.own) == (status, False)
    assert words in json.loads(seen.body)["error"]["message"]


SENTENCES: list[dict[str, Any]] = [
    {"message": "Endpoint request timed out"},
    {"code": 1026, "message": "Endpoint request timed out"},
    {"status": "error", "msg": "Endpoint request timed out", "request_id": "r"},
    {"success": False, "msg": "Endpoint request timed out"},
]


@pytest.mark.parametrize("endpoint", [CHAT, "/v1/images/generations", "/v1/images/edits"])
@pytest.mark.parametrize("body", SENTENCES)
def test_a_gateways_sentence_under_success_is_a_failure_that_says_it(
    endpoint: str, body: dict[str, Any]
) -> None:
    seen = answer_shape.unfit(endpoint, json.dumps(body).encode())
    assert seen is not None
    assert seen.status >= 500
    assert b"Endpoint request timed out" in seen.body


REQUESTS: list[tuple[str, dict[str, Any]]] = [
    (CHAT, {"model": "m", "messages": [{"role": "user", "content": "hi"}]}),
    ("/v1/responses", {"model": "m", "input": "hi"}),
    ("/v1/embeddings", {"model": "m", "input": "hi"}),
    ("/v1/messages", {"model": "m", "max_tokens": 1, "messages": []}),
    ("/v1/models:generateContent", {"contents": [], "generationConfig": {}}),
    ("/v1/models:embedContent", {"content": {"parts": []}}),
    ("/converse", {"messages": [], "inferenceConfig": {}}),
    ("/invoke", {"anthropic_version": "x", "messages": []}),
    ("/invoke", {"inputText": "hi"}),
    ("/v1/images/generations", {"model": "m", "prompt": "a cat"}),
    ("/v1/odd", {"model": "m", "input": "hi"}),
    ("/v1/odd", {"custom_id": "a", "method": "POST", "url": "/v1/odd", "body": {"id": 1}}),
]


@pytest.mark.parametrize(("endpoint", "body"), REQUESTS)
def test_the_request_itself_is_no_answer(endpoint: str, body: dict[str, Any]) -> None:
    seen = answer_shape.unfit(endpoint, json.dumps(body).encode())
    assert seen is not None
    assert (seen.status, seen.own) == (502, False)
    assert json.loads(seen.body)["error"]["code"] == answer_shape.UNFIT


ERRORS: list[tuple[str, dict[str, Any], int, str]] = [
    (CHAT, {"error": {"message": "no", "code": 502}, "user_id": "u"}, 502, "no"),
    (CHAT, {"error": {"message": "no", "code": "400"}}, 400, "no"),
    (CHAT, {"error": {"message": "no", "type": "invalid_request_error"}}, 400, "no"),
    (CHAT, {"error": {"message": "no"}}, 500, "no"),
    (CHAT, {"error": "no", "status": 503}, 503, "no"),
    (CHAT, {"error": "no"}, 500, "no"),
    (CHAT, {"choices": [], "error": {"message": "no", "code": 429}}, 429, "no"),
    (CHAT, {"choices": None, "error": {"message": "no", "code": 429}}, 429, "no"),
    (CHAT, {"object": "error", "message": "no", "code": 404}, 404, "no"),
    (CHAT, {"success": False, "message": "no"}, 500, "no"),
    (CHAT, {"detail": "no"}, 500, "no"),
    (CHAT, {"detail": "Not Found"}, 404, "Not Found"),
    (CHAT, {"detail": [{"type": "missing", "loc": ["body", "n"], "msg": "no"}]}, 422, "body.n: no"),
    (CHAT, {"error": {"detail": [{"loc": ["body", "n"], "msg": "no"}]}}, 422, "body.n: no"),
    (CHAT, {"errors": [{"status": "403", "title": "Forbidden", "detail": "that is no"}]}, 403, "that is no"),
    (CHAT, {"type": "about:blank", "title": "Bad Request", "status": 400, "detail": "no"}, 400, "no"),
    (CHAT, {"object": "error"}, 500, "gives no reason"),
    ("/v1/odd", {"errors": [{"status": 400, "detail": "no"}]}, 400, "no"),
    ("/v1/odd", {"title": "Not Found", "status": 404}, 404, "Not Found"),
    ("/v1/odd", {"detail": [{"loc": ["n"], "msg": "no"}]}, 422, "n: no"),
    ("/v1/messages", {"type": "error", "error": {"type": "overloaded_error", "message": "no"}}, 503, "no"),
    ("/v1/odd", {"error": {"message": "no", "status": "UNAVAILABLE"}}, 503, "no"),
    (
        "/v1/responses",
        {"id": "r", "status": "failed", "error": {"code": "server_error", "message": "no"}},
        500,
        "no",
    ),
    (
        "/v1/responses",
        {"id": "r", "status": "failed", "output": [], "error": {"code": "invalid_prompt", "message": "no"}},
        400,
        "no",
    ),
    ("/v1/responses", {"id": "r", "status": "failed", "error": None, "output": []}, 500, "failed"),
    (
        "/v1/videos",
        {"id": "v", "status": "failed", "error": {"code": "invalid_prompt", "message": "no"}},
        400,
        "no",
    ),
]


@pytest.mark.parametrize(("endpoint", "body", "status", "words"), ERRORS)
def test_an_error_is_told_in_its_own_words(
    endpoint: str, body: dict[str, Any], status: int, words: str
) -> None:
    seen = answer_shape.unfit(endpoint, json.dumps(body).encode())
    assert seen is not None
    assert (seen.status, seen.own) == (status, True)
    assert words in json.loads(seen.body)["error"]["message"]


@pytest.mark.parametrize(
    "body",
    [
        {"message": "no"},
        {"message": "no", "code": 1234, "request_id": "r"},
        {"errors": ["no"]},
        {"fault": {"faultstring": "no", "detail": {"errorcode": "x.y"}}},
        {"title": "no", "instance": "/x"},
    ],
)
def test_words_that_name_no_status_arrive_and_the_request_is_not_run_again(body: dict[str, Any]) -> None:
    seen = answer_shape.unfit(CHAT, json.dumps(body).encode())
    assert seen is not None
    assert (seen.status, seen.own) == (502, False)
    assert json.loads(seen.body)["error"]["message"] == "no"


def test_a_list_that_begins_with_an_error_is_that_error() -> None:
    """Google's endpoints that stream answer so."""
    seen = answer_shape.unfit(CHAT, b'[{"error":{"code":429,"message":"no","status":"RESOURCE_EXHAUSTED"}}]')
    assert seen is not None
    assert (seen.status, seen.own, json.loads(seen.body)["error"]["message"]) == (429, True, "no")
    seen = answer_shape.unfit(CHAT, b'[{"loc":["body"],"msg":"no"}]')
    assert seen is not None
    assert (seen.status, json.loads(seen.body)["error"]["message"]) == (422, "body: no")


@pytest.mark.parametrize("body", [b"", b"[]", b"7", b"null", b"<html>", b'"text"', b"{", b'{"choices":null}'])
def test_anything_else_is_no_answer(body: bytes) -> None:
    seen = answer_shape.unfit(CHAT, body)
    assert seen is not None
    assert seen.status == 502


@pytest.mark.parametrize("body", [b'"{\\"a\\":1}"', b'" {\\"a\\":1}\\n"'])
def test_an_object_in_a_text_is_taken_out(body: bytes) -> None:
    assert json.loads(answer_shape.unpacked(body)) == {"a": 1}


@pytest.mark.parametrize("body", [b'"text"', b'"[1]"', b'"{"', b'{"a":1}', b'"', b"", b'"7"'])
def test_any_other_text_stays_as_it_is(body: bytes) -> None:
    assert answer_shape.unpacked(body) == body


def test_every_route_has_a_rule_or_is_read_leniently_on_purpose() -> None:
    lenient = (
        "/images/generations",
        "/images/edits",
        "/videos",
        "/videos/generations",
        "/videos/extensions",
        "/invoke",
    )
    known = tuple(answer_shape._ANSWER_FIELDS)
    for route in ROUTES:
        for endpoint in route.endpoints.values():
            assert endpoint.endswith((*known, *lenient)), endpoint
