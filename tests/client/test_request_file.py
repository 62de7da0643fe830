"""Files of requests: read a line at a time, whatever a line looks like."""

from __future__ import annotations

import dataclasses
import io
import json
import tracemalloc

from batchling_client.calls import Calls, Terms
from batchling_client.request_file import SLACK, Ask, BadLine, Check, RequestFile
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
