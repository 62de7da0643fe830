"""A document with JSON that msgspec refuses is read all the same; text that is not JSON is an error."""

from __future__ import annotations

import json

import httpx
import msgspec
import pytest

from batchling_worker.dialects import lenient_json
from batchling_worker.dialects.google.operation import OperationPage
from batchling_worker.dialects.provider_call import ProviderCall
from batchling_worker.provider import Account
from batchling_worker.providers import doubleword

from .wire import Wire, answer

HALF = b'{"text":"a \\ud83d b \\ud83d\\ude00","n":NaN}'


def test_a_document_is_read_with_a_sign_for_each_half_of_a_pair() -> None:
    assert lenient_json.decoded(HALF, object) == {"text": "a \ufffd b \U0001f600", "n": None}
    assert lenient_json.decoded(b'{"a":[1.50]}', dict[str, msgspec.Raw]) == {"a": msgspec.Raw(b"[1.50]")}


def test_parts_of_a_document_keep_what_they_hold() -> None:
    whole = lenient_json.fields_of(b'{"rows":[%b, {"x":1.50}],"token":"t"}' % HALF)
    assert lenient_json.text_in(whole["token"]) == "t"
    first, second = (json.loads(one) for one in lenient_json.elements_of(whole["rows"]))
    assert first["text"] == json.loads(HALF)["text"]
    assert second == {"x": 1.5}
    assert lenient_json.elements_of(b'[1.50, "a"]') == [b"1.50", b'"a"']
    assert lenient_json.elements_of(b"null") == lenient_json.elements_of(b"") == []


@pytest.mark.parametrize("raw", [b"", b"{", b"\xff", b"[" * 100_000, b'{"a":'])
def test_text_that_is_not_json_is_refused(raw: bytes) -> None:
    with pytest.raises((ValueError, RecursionError)):
        lenient_json.decoded(raw, object)
    with pytest.raises((ValueError, RecursionError)):
        lenient_json.fields_of(raw)


async def test_a_list_that_shows_somebody_s_answers_is_read(wire: Wire, http: httpx.AsyncClient) -> None:
    """Gemini shows the answers of an inline batch wherever it shows the batch."""
    shown = {"name": "batches/1", "response": {"inlinedResponses": [{"response": json.loads(HALF)}]}}
    wire.reply = lambda seen: answer(json.dumps({"operations": [shown, {"name": "batches/2"}]}).encode())
    account = Account(base_url=wire.url, headers={}, http=http, digest="a" * 20)
    page = await ProviderCall(account, "gemini", "look at batches", "GET", "/v1/batches").ask(OperationPage)
    assert [one.known_name for one in page.batches] == ["batches/1", "batches/2"]


def test_an_error_with_half_a_surrogate_pair_is_read_from_google() -> None:
    assert lenient_json.value_in(b'{"code":3,"message":"no \\ud83d"}') == {"code": 3, "message": "no \ufffd"}
    assert lenient_json.text_in(b'"Bad Request \\ud83d"') == "Bad Request \ufffd"


def test_a_sentence_of_doubleword_s_that_holds_half_a_pair_costs_no_row() -> None:
    said = json.dumps({"status": 400, "body": "no \ud83d"})
    rows = [
        {"custom_id": "a", "response": None, "error": {"code": "x", "message": said}},
        {"custom_id": "b", "response": {"status_code": 200, "body": {"x": 1}}},
    ]
    told = list(doubleword.reader(0).answers([json.dumps(row).encode() for row in rows]))
    assert [(one.custom_id, one.status) for one in told] == [("a", 400), ("b", 200)]
    assert told[0].body.decode() == "no \ufffd"
