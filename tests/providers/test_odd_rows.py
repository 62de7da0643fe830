"""Rows as nobody documented them: each is an answer, or fails with its own words; none is lost and paid for again."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final

import httpx
import pytest

from batchling_worker import providers
from batchling_worker.dialects.result_lines import LineSplitter
from batchling_worker.pipeline.answer_check import checked
from batchling_worker.provider import ROW_LOST, Account, Answer, Ending
from batchling_worker.providers import bedrock, vertex
from tests.form import form_of

from .conftest import KEY
from .desk import Desk, credential
from .wire import Wire, answer

DEEP: Final = "[" * 100_000 + "]" * 100_000
CHAT: Final = '{"id":"c","object":"chat.completion","choices":[{"message":{"content":"hi"}}]}'
OPENAI_LIKE: Final = ("openai", "groq", "mistral", "together", "doubleword", "azure")
RESULTS: Final = {"gemini": "v1/files/b-1"}
BODIES: Final = {
    "anthropic": '{"type":"message","content":[{"type":"text","text":"hi"}]}',
    "gemini": '{"candidates":[{}]}',
    "vertex": '{"candidates":[{}]}',
    "bedrock": '{"content":[{}],"type":"message"}',
}
ANSWERED: Final = {
    **dict.fromkeys(OPENAI_LIKE, '{"custom_id":"r1","response":{"status_code":200,"body":BODY}}'),
    "anthropic": '{"custom_id":"r1","result":{"type":"succeeded","message":BODY}}',
    "sference": '{"custom_id":"r1","status":"completed","result_json":BODY}',
    "gemini": '{"key":"r1","response":BODY}',
    "vertex": '{"custom_id":"r1","status":"","response":BODY}',
    "xai": '{"batch_request_id":"r1","batch_result":{"response":{"chat_get_completion":BODY}}}',
    "bedrock": '{"recordId":"r1","modelInput":{},"modelOutput":BODY}',
}
"""A row of each shape that has an answer."""
NAMED: Final = {name: row.partition(",")[0] + "," for name, row in ANSWERED.items()}
"""How a row of each shape begins that names its request."""


@pytest.fixture(params=ANSWERED)
def shape(request: pytest.FixtureRequest) -> str:
    """A provider whose rows have that shape."""
    chosen: str = request.param
    return chosen


@pytest.fixture
def read(wire: Wire, http: httpx.AsyncClient, shape: str) -> Callable[[bytes], Any]:
    """Reads a result file with one row, as the worker does."""
    account = Account(base_url=wire.url, headers=credential(shape, KEY), http=http, digest="a" * 20)
    desk = Desk(provider=providers.load(shape), account=account)

    async def rows(file: bytes) -> list[Answer]:
        endpoint = form_of(shape).endpoint
        if shape in ("bedrock", "vertex"):
            # Their files lie in object stores, which hand the same lines to these.
            splitter = LineSplitter()
            lines = [*splitter.feed(file), *splitter.rest()]
            reader = bedrock.reader() if shape == "bedrock" else vertex.reader()
            return [checked(one, endpoint) for one in reader.answers(lines)]
        whole = file
        if shape == "xai" and b"results" not in file.replace(b"\0", b""):
            whole = b'{"results":[%b]}' % file
        wire.reply = lambda seen: answer(whole)
        ending = Ending(
            results=(RESULTS.get(shape, "b-1 1 chat_get_completion" if shape == "xai" else "b-1"),)
        )
        return [checked(one, endpoint) for one in await desk.answers(ending)]

    return rows


def row(name: str, body: str) -> str:
    return ANSWERED[name].replace("BODY", body)


async def test_an_answer_nested_without_end_is_a_failed_row(shape: str, read: Callable[[bytes], Any]) -> None:
    [answered] = await read(row(shape, f'{{"choices":{DEEP}}}').encode() + b"\n")
    assert (answered.custom_id, answered.status, answered.origin) == ("r1", 502, "batch_answer_unfit")
    assert len(answered.body) < 2000


async def test_a_field_nested_without_end_costs_no_answer(shape: str, read: Callable[[bytes], Any]) -> None:
    body = BODIES.get(shape, CHAT)
    odd = row(shape, body).replace(NAMED[shape], NAMED[shape] + f'"extra":{DEEP},', 1)
    [answered] = await read(odd.encode() + b"\n")
    assert (answered.custom_id, answered.status, json.loads(answered.body)) == ("r1", 200, json.loads(body))


async def test_an_error_nested_without_end_is_bounded(shape: str, read: Callable[[bytes], Any]) -> None:
    [answered] = await read((NAMED[shape] + f'"error":{DEEP}}}').encode() + b"\n")
    assert answered.custom_id == "r1"
    assert answered.status >= 400
    assert answered.origin == "provider"
    assert len(answered.body) < 8000


@pytest.mark.parametrize(
    "said",
    [
        '"errors":[{"message":"no such thing","status":404}]',
        '"errors":{"object":"list","data":[{"message":"no such thing","status":404}]}',
        '"error":{"message":"no such thing","code":404}',
        '"status_code":404,"message":"no such thing"',
        '"code":404,"detail":"no such thing"',
    ],
)
async def test_an_error_is_read_wherever_the_row_states_it(
    shape: str, read: Callable[[bytes], Any], said: str
) -> None:
    [answered] = await read((NAMED[shape] + said + "}").encode() + b"\n")
    assert (answered.custom_id, answered.origin) == ("r1", "provider")
    assert answered.status in (404, 500, 400) if shape == "xai" else answered.status == 404
    assert b"no such thing" in answered.body


async def test_a_row_that_says_nothing_is_lost(shape: str, read: Callable[[bytes], Any]) -> None:
    [answered] = await read((NAMED[shape] + '"extra":1}').encode() + b"\n")
    assert (answered.custom_id, answered.origin) == ("r1", ROW_LOST)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-8-sig"])
async def test_a_file_in_another_encoding_is_read(
    shape: str, read: Callable[[bytes], Any], encoding: str
) -> None:
    body = BODIES.get(shape, CHAT).replace("hi", "h\u00e9 \U0001f600")
    file = f'{{"results":[{row(shape, body)}]}}' if shape == "xai" else row(shape, body) + "\n"
    [answered] = await read(file.encode(encoding))
    assert (answered.status, json.loads(answered.body)) == (200, json.loads(body))


@pytest.mark.parametrize("shape", OPENAI_LIKE, indirect=True)
@pytest.mark.parametrize(
    "said", [f'"response":{CHAT}', f'"status_code":200,"body":{CHAT}'], ids=["bare", "beside"]
)
async def test_an_answer_is_found_where_its_status_or_body_stands_elsewhere(
    shape: str, read: Callable[[bytes], Any], said: str
) -> None:
    [answered] = await read((NAMED[shape] + said + "}").encode() + b"\n")
    assert (answered.status, json.loads(answered.body)) == (200, json.loads(CHAT))


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_an_encoding_is_recognized_however_the_file_is_cut(size: int) -> None:
    text = '{"a":"\u00e9\U0001f600"}\n\n{"b":1}'
    whole = text.encode("utf-16")
    splitter = LineSplitter()
    pieces = [whole[at : at + size] for at in range(0, len(whole), size)]
    lines = [line for piece in pieces for line in splitter.feed(piece)]
    assert [*lines, *splitter.rest()] == text.encode().split(b"\n")


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize("begins", [b'\xff\xfe{"custom_id"', b'\xfe\xff{"custom_id"', b"\xff", b"\0\0"])
def test_a_damaged_first_line_that_begins_like_utf_16_hides_no_other(begins: bytes, size: int) -> None:
    whole = begins + b'\n{"a":1}\n{"b":2}\n'
    splitter = LineSplitter()
    pieces = [whole[at : at + size] for at in range(0, len(whole), size)]
    lines = [line for piece in pieces for line in splitter.feed(piece)]
    assert [*lines, *splitter.rest()][-3:-1] == [b'{"a":1}', b'{"b":2}']


RESPONSE: Final = f'{{"status_code":200,"body":{CHAT}}}'
FAILED: Final = '{"status_code":404,"body":{"error":{"message":"no such model","code":404}}}'


@pytest.mark.parametrize("shape", OPENAI_LIKE, indirect=True)
@pytest.mark.parametrize(
    ("response", "status", "words"),
    [
        (f"[{RESPONSE}]", 200, "hi"),
        (f"[{CHAT}]", 200, "hi"),
        (json.dumps(RESPONSE), 200, "hi"),
        (json.dumps(f"[{RESPONSE}]"), 502, "status_code"),
        (f"[{FAILED}]", 404, "no such model"),
        (f"[{RESPONSE},{RESPONSE}]", 502, "status_code"),
        ('[{"odd":1}]', 502, "odd"),
        ('["odd"]', 502, "odd"),
        ('"odd words"', 502, "odd words"),
        ("17", 502, "17"),
        ("true", 502, "true"),
        (DEEP, 502, "["),
    ],
    ids=lambda one: str(one)[:30],
)
async def test_a_response_that_is_not_an_object_is_read_or_fails_once(
    read: Callable[[bytes], Any], response: str, status: int, words: str
) -> None:
    [answered] = await read(f'{{"custom_id":"r1","response":{response},"error":null}}\n'.encode())
    assert (answered.custom_id, answered.status) == ("r1", status)
    assert answered.origin != ROW_LOST
    assert words in answered.body.decode()
    assert len(answered.body) < 2000


@pytest.mark.parametrize("shape", OPENAI_LIKE, indirect=True)
@pytest.mark.parametrize("response", ["[]", "{}", '""', "null", "false", "0", "[null]"])
async def test_a_response_that_is_empty_is_lost(read: Callable[[bytes], Any], response: str) -> None:
    [answered] = await read(f'{{"custom_id":"r1","response":{response}}}\n'.encode())
    assert (answered.custom_id, answered.origin) == ("r1", ROW_LOST)


@pytest.mark.parametrize("many", [1, 2])
async def test_an_answer_in_a_list_is_never_run_again(
    shape: str, read: Callable[[bytes], Any], many: int
) -> None:
    body = ",".join([BODIES.get(shape, CHAT)] * many)
    [answered] = await read(row(shape, f"[{body}]").encode() + b"\n")
    assert answered.custom_id == "r1"
    assert answered.status == 200 or answered.origin == "batch_answer_unfit"
