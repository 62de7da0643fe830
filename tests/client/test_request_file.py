"""Files of requests: read a line at a time, whatever a line looks like."""

from __future__ import annotations

import dataclasses
import io
import json
import tracemalloc
from pathlib import Path

import pytest

from batchling_client.bulk import submission
from batchling_client.bulk.request_file import SLACK, Ask, BadLine, Check, RequestFile
from batchling_client.bulk.submission import Counted, Wish, submit
from batchling_client.session.calls import Calls
from batchling_client.session.lanes import Lane, Terms
from batchling_client.settings import ClientSettings
from batchling_client.wire.ids import new_run_id
from batchling_client.wire.routes import Route, Routes

CHAT = "/v1/chat/completions"
HEADERS = {"authorization": "Bearer gsk-test"}


def groq() -> Route:
    route = Routes().named("groq")
    assert route is not None
    return route


def lines_of(raw: bytes, *, endpoint: str | None = None, route: Route | None = None) -> list[Ask | BadLine]:
    file = RequestFile(file=io.BytesIO(raw), route=route or groq(), headers=HEADERS, endpoint=endpoint)
    return list(file.lines())


def test_the_last_line_needs_no_newline_and_others_may_end_like_on_windows() -> None:
    found = lines_of(b'{"a":1}\r\n\r\n  {"b":2}  \n{"c":3}', endpoint=CHAT)
    asks = [line for line in found if isinstance(line, Ask)]
    assert [(ask.number, ask.custom_id, ask.call.body) for ask in asks] == [
        (1, "1", b'{"a":1}'),
        (3, "3", b'  {"b":2}'.strip()),
        (4, "4", b'{"c":3}'),
    ]


def test_a_line_in_another_encoding_is_named_and_the_others_are_read() -> None:
    line = '{"custom_id": "%s", "method": "POST", "url": "/v1/chat/completions", "body": {"model": "m", "n": "%s"}}\n'
    raw = (line % ("a", "caf\u00e9")).encode("latin-1") + (line % ("b", "caf\u00e9")).encode()

    first, second = lines_of(raw)

    assert str(first) == "line 1: it is not in UTF-8: save the file in that encoding"
    assert isinstance(second, Ask)
    assert second.custom_id == "b"


def test_a_call_of_a_file_is_the_call_that_an_sdk_makes() -> None:
    line = {"custom_id": "x", "method": "POST", "url": CHAT, "body": {"model": "m", "n": 1.0}}
    [ask] = lines_of(json.dumps(line).encode())
    assert isinstance(ask, Ask)
    assert ask.call.url == "https://api.groq.com/openai/v1/chat/completions"
    assert ask.call.headers["authorization"] == "Bearer gsk-test"
    assert ask.call.body == b'{"model": "m", "n": 1.0}'


def test_a_line_longer_than_a_batch_takes_is_skipped_without_being_held() -> None:
    short = dataclasses.replace(groq(), max_row_bytes=1000)
    found = lines_of(b"x" * (3 * SLACK) + b'\n{"a":1}\n', endpoint=CHAT, route=short)
    assert [type(line) for line in found] == [BadLine, Ask]
    assert [line.number for line in found] == [1, 2]


def test_a_file_is_looked_through_in_the_memory_of_some_lines() -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": "x" * 4000}]}
    raw = b"".join(
        json.dumps({"custom_id": f"id {n}", "url": CHAT, "body": body}).encode() + b"\n" for n in range(3000)
    )
    file = RequestFile(file=io.BytesIO(raw), route=groq(), headers=HEADERS)
    check = Check(Calls(Terms(run_id=new_run_id(), run_name=""), Routes()))
    tracemalloc.start()
    complaints = sum(check.complaint(line) is not None for line in file.lines())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (complaints, check.n_requests) == (0, 3000)
    assert peak < len(raw) / 10


CHATTING = {"messages": [{"role": "user", "content": "\u00c4\u2028"}]}
NAMED = {"model": "m", **CHATTING}
CONTENTS = {"contents": [{"parts": [{"text": "x"}]}]}
WRITTEN = {"custom_id": "1", "method": "POST", "url": CHAT, "body": NAMED}


@pytest.mark.parametrize(
    ("provider", "line", "name", "endpoint", "model"),
    [
        ("openai", {"custom_id": "a", "method": "POST", "url": CHAT, "body": NAMED}, "a", CHAT, "m"),
        ("openai", {"custom_id": "a", "url": f"https://api.openai.com{CHAT}", "body": NAMED}, "a", CHAT, "m"),
        ("groq", {"custom_id": "a", "method": "POST", "url": CHAT, "body": NAMED}, "a", CHAT, "m"),
        ("doubleword", {"custom_id": "a", "method": "POST", "url": CHAT, "body": NAMED}, "a", CHAT, "m"),
        ("sference", {"custom_id": "a", "body": NAMED}, "a", CHAT, "m"),
        ("together", {"custom_id": "a", "body": NAMED}, "a", CHAT, "m"),
        ("azure", {"custom_id": "a", "url": "/chat/completions", "body": NAMED}, "a", CHAT, "m"),
        ("azure", {"custom_id": "a", "url": "/v1/responses", "body": NAMED}, "a", "/v1/responses", "m"),
        ("mistral", {"custom_id": "0", "body": NAMED}, "0", CHAT, "m"),
        ("mistral", {"custom_id": "0", "body": CHATTING}, "0", CHAT, "given"),
        ("anthropic", {"custom_id": "a", "params": NAMED}, "a", "/v1/messages", "m"),
        ("gemini", {"key": "a", "request": CONTENTS}, "a", "/v1beta/models:generateContent", "given"),
        (
            "gemini",
            {"request": {"model": "models/m", **CONTENTS}, "metadata": {"key": "a"}},
            "a",
            "/v1beta/models:generateContent",
            "m",
        ),
        ("gemini", {"key": "a", "request": {"content": {}}}, "a", "/v1beta/models:embedContent", "given"),
        (
            "vertex",
            {"request": CONTENTS},
            "1",
            "/v1/projects/p/locations/us-central1:generateContent",
            "given",
        ),
        ("bedrock", {"recordId": "a", "modelInput": CHATTING}, "a", "/invoke", "given"),
        ("bedrock", {"modelInput": CHATTING}, "1", "/invoke", "given"),
        ("xai", {"custom_id": "a", "method": "POST", "url": CHAT, "body": NAMED}, "a", CHAT, "m"),
        (
            "xai",
            {"batch_request_id": "a", "batch_request": {"chat_get_completion": NAMED}},
            "a",
            CHAT,
            "m",
        ),
        (
            "xai",
            {"batch_request_id": "a", "batch_request": {"responses": {"model": "m", "input": "x"}}},
            "a",
            "/v1/responses",
            "m",
        ),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_lines_are_those_of_the_providers_own_batch_files(
    provider: str, line: dict[str, object], name: str, endpoint: str, model: str, encoding: str
) -> None:
    """In any encoding that Windows writes, with its line ends, and read twice."""
    route = Routes().named(provider)
    assert route is not None
    raw = 2 * (json.dumps(line, ensure_ascii=False) + "\r\n")
    environment = {
        **dict.fromkeys(route.variables.values(), "a-key"),
        "AZURE_OPENAI_ENDPOINT": "https://acme.openai.azure.com",
        "AWS_REGION": "us-east-1",
        "GOOGLE_CLOUD_PROJECT": "p",
    }
    words = submission.words_of(route, environment)
    file = RequestFile(
        file=io.BytesIO(raw.encode(encoding)),
        route=route,
        headers=submission.headers_of(route, environment),
        model="given",
        host=submission.host_for(route, words),
        words=words,
    )
    terms = Terms(run_id=new_run_id(), run_name="", vertex_gcs_prefix="gs://bucket/files")
    calls = Calls(terms, Routes())
    for _ in range(2):
        asks = [line for line in file.lines() if isinstance(line, Ask)]
        assert [ask.number for ask in asks] == [1, 2]
        lane = calls.lane_of(asks[0].call)
        assert isinstance(lane, Lane)
        assert (asks[0].custom_id, lane.spec.endpoint, lane.spec.model) == (name, endpoint, model)


@pytest.mark.parametrize(
    "line",
    [
        {"custom_id": "a", "params": {"model": "m", "max_tokens": 1, "messages": []}},
        {"recordId": "a", "modelInput": {"model": "m", "messages": []}},
        {"key": "a", "request": {"model": "m", "messages": []}},
    ],
)
def test_a_line_of_another_providers_files_is_sent_here_only_if_the_person_says_where(
    line: dict[str, object],
) -> None:
    raw = json.dumps(line).encode()
    [bad] = lines_of(raw, route=Routes().named("openai"))
    [ask] = lines_of(raw, route=Routes().named("openai"), endpoint=CHAT)
    assert "another provider's files" in str(bad)
    assert isinstance(ask, Ask)


def test_lines_of_a_batch_file_that_name_no_place_go_to_the_endpoint() -> None:
    lines = [{"custom_id": "a", "body": {"model": "m", "input": "x"}}, {"model": "m", "input": "x"}]
    raw = "\n".join(json.dumps(line) for line in lines).encode()
    route = Routes().named("openai")

    [bad, bare] = lines_of(raw, route=route)
    asks = lines_of(raw, route=route, endpoint="/v1/embeddings")

    assert str(bad) == "line 1: it has no `url`: give --endpoint"
    assert "give --endpoint where lines are bare bodies" in str(bare)
    assert [ask.custom_id for ask in asks if isinstance(ask, Ask)] == ["a", "2"]


async def test_a_dry_run_of_a_file_needs_no_redis_and_says_what_would_be_sent(tmp_path: Path) -> None:
    file = tmp_path / "in.jsonl"
    file.write_text("".join(json.dumps({**WRITTEN, "custom_id": str(n)}) + "\n" for n in range(3)))
    wish = Wish(path=file, provider="groq", endpoint=None, name="", completion_window="24h", dry_run=True)

    counted = await submit(wish, ClientSettings(home=tmp_path / "home"), {"GROQ_API_KEY": "a-key"})

    assert isinstance(counted, Counted)
    assert counted.report.startswith("Dry run, nothing was queued or sent: 3 requests in 1 batch, about ")
