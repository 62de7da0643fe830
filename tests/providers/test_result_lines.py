"""Result files are cut and read whatever their pieces, and a bad line costs no other."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchling_client.wire.states import RowKind
from batchling_worker.decisions import fates
from batchling_worker.dialects.openai.rows import openai_rows
from batchling_worker.dialects.result_lines import LineReader, LineSplitter
from batchling_worker.pipeline.answer_check import checked
from batchling_worker.provider import ROW_LOST, Answer

CHAT = "/v1/chat/completions"


def split(pieces: list[bytes]) -> list[bytes]:
    splitter = LineSplitter()
    lines = [line for piece in pieces for line in splitter.feed(piece)]
    return lines + splitter.rest()


@given(st.lists(st.sampled_from([b"\n", b"a", b"bc", b"\r\n", b"", b"x\ny\n", b"\n\n"])))
def test_lines_do_not_depend_on_where_pieces_are_cut(pieces: list[bytes]) -> None:
    assert split(pieces) == b"".join(pieces).split(b"\n")


ROWS = [
    {"custom_id": f"r{number}", "response": {"status_code": 200, "body": {"n": "}{"}}} for number in range(3)
]
SPELT = [json.dumps(one).encode() for one in ROWS]


@pytest.mark.parametrize(
    "file",
    {
        "a list in one line": b"[" + b",".join(SPELT) + b"]",
        "a list in several lines": b"[\n" + b",\n".join(SPELT) + b"\n]\n",
        "a comma behind each": b",\n".join(SPELT) + b",\n",
        "no line breaks": b"".join(SPELT),
        "carriage returns": b"\r".join(SPELT) + b"\r",
        "a NUL behind each": b"\0\r\n".join(SPELT) + b"\0",
        "NULs around all": bytes(512) + b"\n".join(SPELT) + bytes(512),
        "record separators": b"".join(b"\x1e" + one + b"\n" for one in SPELT),
        "server-sent events": b"".join(b"data: " + one + b"\n\n" for one in SPELT),
        "texts": b"\n".join(json.dumps(one.decode()).encode() for one in SPELT),
        "a byte order mark": b"\xef\xbb\xbf" + b"\n".join(SPELT),
    }.items(),
    ids=lambda file: file[0],
)
@pytest.mark.parametrize("size", [7, 1_000_000])
def test_rows_are_read_however_a_server_puts_them_behind_each_other(
    file: tuple[str, bytes], size: int
) -> None:
    lines = split([file[1][at : at + size] for at in range(0, len(file[1]), size)])
    assert [json.loads(line) for line in lines if line.strip(b"\0\r\n ,[]")] == ROWS
    answers = list(openai_rows().answers(lines))
    assert [answer.custom_id for answer in answers] == ["r0", "r1", "r2"]


@pytest.mark.parametrize("begun", [b'{"custom_id": "r9", "resp', b"<html>", b"null", b"12"])
def test_text_that_is_not_a_row_stays_apart_from_the_rows_of_its_line(begun: bytes) -> None:
    reader = openai_rows()
    lines = split([SPELT[0] + begun + b"\n" + SPELT[1]])
    assert lines == [SPELT[0], begun, SPELT[1]]
    assert [answer.custom_id for answer in reader.answers(lines)] == ["r0", "r1"]
    assert reader.n_broken == 1


def test_a_line_without_end_is_let_go() -> None:
    splitter = LineSplitter(longest=100)
    tracemalloc.start()
    lines = [line for _ in range(500) for line in splitter.feed(bytes(10_000))]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1_000_000
    lines += splitter.feed(b"tail\nnext\n")
    assert [line for line in lines if line] == [b"next"]
    assert splitter.n_too_long == 1
    assert splitter.too_long == []


IDS = [letter * 26 for letter in "abc"]


@pytest.mark.parametrize("name", ["custom_id", "key", "recordId", "batch_request_id"])
@pytest.mark.parametrize("size", [7, 1_000, 10_000_000])
@pytest.mark.parametrize("at", ["beginning", "end"])
def test_a_line_that_is_too_long_says_whose_it_is(name: str, size: int, at: str) -> None:
    text = b'"text": "%b"' % (b"x" * 300_000)
    spelt = [b'"%b": "%b"' % (name.encode(), one.encode()) for one in IDS]
    long = b", ".join((spelt[1], text) if at == "beginning" else (text, spelt[1]))
    file = b"{%b}\n{%b}\n{%b}\n" % (spelt[0], long, spelt[2])
    splitter = LineSplitter(longest=250_000)
    lines = [row for start in range(0, len(file), size) for row in splitter.feed(file[start : start + size])]
    assert [line for line in lines if line] == [b"{%b}" % spelt[0], b"{%b}" % spelt[2]]
    assert splitter.too_long == [IDS[1]]


def read(*rows: Any) -> tuple[list[Answer], LineReader]:
    reader = openai_rows()
    lines = [row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows]
    return list(reader.answers(lines)), reader


def read_one(row: Any) -> Answer:
    answers, reader = read(row)
    assert reader.n_broken == 0
    (answer,) = answers
    return answer


def row(response: Any, error: Any = None) -> dict[str, Any]:
    return {"id": "batch_req_1", "custom_id": "r1", "response": response, "error": error}


def test_a_body_comes_out_byte_for_byte() -> None:
    body = b'{"b": 1.10,  "a":"\\u00e9\xc3\xa9", "n":12345678901234567890, "b":2}'
    answer = read_one(
        b'{"id":"x","custom_id":"r1","response":{"status_code":200,"request_id":"req_9","body":%b},"error":null}'
        % body
    )
    assert answer.body == body
    assert (answer.custom_id, answer.status, answer.origin) == ("r1", 200, "provider")
    assert answer.headers == {"content-type": "application/json", "x-request-id": "req_9"}


@pytest.mark.parametrize("status", [400, 404, 422, 429, 500, 503])
def test_a_failed_row_keeps_its_status_and_body(status: int) -> None:
    said = {"error": {"message": "no", "code": "json_validate_failed", "failed_generation": "{"}}
    answer = read_one(row({"status_code": status, "request_id": "", "body": said}))
    assert (answer.status, answer.origin, json.loads(answer.body)) == (status, "provider", said)
    assert "x-request-id" not in answer.headers


@pytest.mark.parametrize(
    ("code", "status", "origin"),
    [
        ("batch_expired", 504, "batch_expired"),
        ("batch_cancelled", 499, "batch_cancelled"),
        ("server_error", 500, "provider"),
        (None, 500, "provider"),
    ],
)
def test_a_row_that_never_ran_carries_the_provider_s_reason(
    code: str | None, status: int, origin: str
) -> None:
    answer = read_one(row(None, {"code": code, "message": "It could not be executed."}))
    assert (answer.status, answer.origin) == (status, origin)
    error = json.loads(answer.body)["error"]
    assert (error["message"], error["code"]) == ("It could not be executed.", code)


@pytest.mark.parametrize(
    "response",
    [
        {"status_code": 0, "request_id": "", "body": {}},
        {"status_code": None, "request_id": "", "body": None},
        {"status_code": 999},
        {},
        None,
    ],
)
def test_a_row_without_a_status_and_an_answer_is_lost_and_worth_another_attempt(response: Any) -> None:
    answer = read_one(row(response))
    assert (answer.status, answer.origin) == (503, ROW_LOST)
    assert fates.row_kind(answer) is RowKind.RETRY
    assert json.loads(answer.body)["error"]["code"] == "batch_row_lost"


ANSWER = {"id": "x", "choices": [{"message": {"content": "hi"}}]}


@pytest.mark.parametrize(
    "body",
    [{}, None, "", [], [ANSWER], [[ANSWER]], 7, 0, -1.5, True, False, "a sentence", "[1]", {"id": "x"}],
)
def test_a_success_without_an_answer_is_a_failure_and_never_run_again(body: Any) -> None:
    """The provider has counted the row as done: to run it again would be to pay for it again."""
    for said in ({"status_code": 200, "body": body}, {"status_code": 201, "request_id": "", "body": body}):
        answer = checked(read_one(row(said)), CHAT)
        assert (answer.status, answer.origin) == (502, "batch_answer_unfit")
        assert fates.row_kind(answer) is RowKind.FAILURE
        assert json.dumps(body)[:40] in json.loads(answer.body)["error"]["message"]


def test_a_success_without_any_body_says_that_it_is_empty() -> None:
    answer = checked(read_one(row({"status_code": 200})), CHAT)
    assert (answer.status, fates.row_kind(answer)) == (502, RowKind.FAILURE)
    assert "it is empty" in json.loads(answer.body)["error"]["message"]


@pytest.mark.parametrize("status", [0, 101, 777, None, True, "fine", 200.5, [200]])
def test_an_answer_beside_a_status_that_is_none_is_taken(status: Any) -> None:
    said = {"status_code": status, "body": ANSWER}
    answer = checked(read_one(row(said)), CHAT)
    assert (answer.status, json.loads(answer.body)) == (200, ANSWER)


@pytest.mark.parametrize("how", ["in the answer", "beside half of a surrogate pair"])
def test_bytes_that_are_not_utf_8_cost_no_more_than_themselves(how: str) -> None:
    half = b"" if how == "in the answer" else b" \\ud83d"
    line = b'{"custom_id":"r1","response":{"status_code":200,"body":{"choices":[{"text":"\xff!%b"}]}}}' % half
    answer = checked(read_one(line), "/v1/completions")
    assert answer.status == 200
    assert json.loads(answer.body)["choices"][0]["text"].startswith("\ufffd!")


def test_an_answer_in_a_text_in_a_text_is_taken_out_of_both() -> None:
    answer = read_one(row({"status_code": 200, "body": json.dumps(json.dumps(ANSWER))}))
    assert json.loads(answer.body) == ANSWER


def test_oddly_typed_fields_do_not_cost_the_row() -> None:
    odd = row({"status_code": 200, "request_id": 17, "body": {"id": "x"}}, "none")
    assert read_one(odd).body == b'{"id": "x"}'
    assert json.loads(read_one(row(None, "overloaded")).body)["error"]["message"] == "overloaded"
    assert json.loads(read_one(row(None, {"code": 7})).body)["error"]["message"] == '{"code":7}'


@pytest.mark.parametrize("request_id", ["a\r\nset-cookie: x", "é", "\x00"])
def test_a_request_id_cannot_smuggle_a_header(request_id: str) -> None:
    answer = read_one(row({"status_code": 200, "request_id": request_id, "body": {"id": "x"}}))
    assert list(answer.headers) == ["content-type"]


def test_broken_lines_are_counted_and_cost_no_other() -> None:
    good = row({"status_code": 200, "request_id": "q", "body": {"id": "x"}})
    broken = [b'{"custom_id":"r', b"[]", b"7", b"\xff\xfe", {"custom_id": None}, {"custom_id": 5}, {}]
    answers, reader = read(good, *broken, b"", b"  \r", good)
    assert [answer.custom_id for answer in answers] == ["r1", "r1"]
    assert reader.n_broken == len(broken)


WHY = "This model's maximum context length is 8192 tokens."
OBJECT = {"object": "error", "message": WHY, "type": "BadRequestError", "param": None, "code": 400}
REFUSED: dict[str, dict[str, Any]] = {
    "a text beside an empty body": row({"status_code": 400, "request_id": "v", "body": None}, WHY),
    "an object beside an empty body": row({"status_code": 400, "request_id": "v", "body": None}, OBJECT),
    "an object beside an empty object": row({"status_code": 400, "body": {}}, OBJECT),
    "an object beside a success without a body": row({"status_code": 200, "body": None}, OBJECT),
    "an object beside a success that is none": row({"status_code": 200, "body": {"model": "m"}}, OBJECT),
    "an object and no response": row(None, OBJECT),
    "an object in an object": row(None, {"error": OBJECT}),
    "a status under another name": row(None, {"message": WHY, "status_code": 400}),
    "a status as a text": row(None, {"message": WHY, "code": "400"}),
    "a type alone": row(None, {"message": WHY, "type": "BadRequestError"}),
    "a code in words": row(None, {"message": WHY, "code": "invalid_request_error"}),
    "a list of validation errors": row(None, {"detail": [{"loc": ["body"], "msg": WHY}], "code": 400}),
    "problem details": row(
        None, {"type": "about:blank", "title": "Bad Request", "status": 400, "detail": WHY}
    ),
    "a list of errors": row(None, {"errors": [{"status": "400", "title": "Bad", "detail": WHY}]}),
    "a body in a text": row({"status_code": 400, "body": json.dumps({"error": OBJECT})}),
}


@pytest.mark.parametrize("how", REFUSED)
def test_the_reason_of_a_failed_row_arrives_with_its_status(how: str) -> None:
    answer = read_one(REFUSED[how])
    assert (answer.status, answer.origin) == (400, "provider")
    assert json.loads(answer.body)["error"]["message"].removeprefix("body: ") == WHY
    assert answer.body.decode().count("maximum context length") == 1
    assert fates.row_kind(answer) is RowKind.FAILURE


@pytest.mark.parametrize(
    ("error", "status"),
    [
        ({"code": 503, "message": "Try later."}, 503),
        ({"code": "server_error", "message": "Try later."}, 500),
        ({"type": "InternalServerError", "message": "Try later."}, 500),
        ({"type": "overloaded_error", "message": "Try later."}, 503),
        ({"code": "rate_limit_exceeded", "message": "Try later."}, 429),
        ({"code": "inference_failed", "message": "Try later."}, 500),
        ("Try later.", 500),
    ],
)
def test_a_row_that_failed_for_the_server_is_worth_another_attempt(error: Any, status: int) -> None:
    answer = read_one(row(None, error))
    assert (answer.status, fates.row_kind(answer)) == (status, RowKind.RETRY)
    assert json.loads(answer.body)["error"]["message"] == "Try later."


def test_a_row_without_money_fails_at_once() -> None:
    error = {"message": "You exceeded your current quota.", "code": "insufficient_quota"}
    for answer in (read_one(row(None, error)), read_one(row({"status_code": 429, "body": {"error": error}}))):
        assert (answer.status, fates.row_kind(answer)) == (429, RowKind.FAILURE)


@pytest.mark.parametrize("error", [None, "", {}, [], False, "none"])
def test_an_answer_beside_an_error_that_says_nothing_is_one(error: Any) -> None:
    assert read_one(row({"status_code": 200, "body": {"id": "x", "choices": [1]}}, error)).status == 200


def test_an_answer_in_a_text_is_taken_out_of_it() -> None:
    body = {"id": "x", "choices": [{"message": {"content": "Zoë \\ud83d"}}]}
    answer = read_one(row({"status_code": 200, "body": json.dumps(body)}))
    assert (answer.status, json.loads(answer.body)) == (200, body)


@pytest.mark.parametrize("status", [300, 301, 302, 304, 307, 308, "307"])
def test_a_row_with_a_redirect_is_a_failure(status: Any) -> None:
    answer = read_one(row({"status_code": status, "body": {"detail": "moved to /v2"}}))
    assert (answer.status, fates.row_kind(answer)) == (502, RowKind.FAILURE)
    assert "moved to /v2" in json.loads(answer.body)["error"]["message"]
