"""A result in Redis is input: nobody who writes there can send a caller's client, its key or its cookies anywhere."""

from __future__ import annotations

import pytest

from batchling_client.session import replies
from batchling_client.wire.keys import RequestId
from batchling_client.wire.records.row_and_result import CorruptRecord, Result
from batchling_client.wire.row_cipher import RowCipher
from batchling_client.wire.states import RowKind

ONE = RequestId("a" * 26)
CIPHER = RowCipher(b"root", "f" * 20)


def stored(status: int = 200, **headers: str) -> bytes:
    named = {name.replace("_", "-"): said for name, said in headers.items()}
    return Result.pack(
        kind=RowKind.SUCCESS,
        status=status,
        headers=named,
        body=b'{"id": "x"}',
        request_id=ONE,
        cipher=CIPHER,
    )


@pytest.mark.parametrize("status", [0, 100, 199, 300, 301, 302, 307, 308, 399, 600, 99999, -200])
def test_a_status_that_redirects_or_is_none_is_never_replayed(status: int) -> None:
    with pytest.raises(CorruptRecord):
        Result.decode(stored(status, location="https://attacker.example/"), ONE, CIPHER)

    reply = replies.of_result(ONE, stored(status, location="https://attacker.example/"), CIPHER)
    assert reply.status == 502
    assert "location" not in reply.headers


@pytest.mark.parametrize("status", [200, 201, 299, 400, 401, 429, 503, 599])
def test_the_status_of_an_answer_is_replayed(status: int) -> None:
    assert replies.of_result(ONE, stored(status), CIPHER).status == status


def test_headers_that_act_on_the_client_are_left_out() -> None:
    reply = replies.of_result(
        ONE,
        stored(
            content_type="application/json",
            request_id="req_1",
            location="https://attacker.example/",
            set_cookie="session=1",
            content_encoding="gzip",
            transfer_encoding="chunked",
            x_should_retry="true",
        ),
        CIPHER,
    )

    assert reply.headers == {
        "content-type": "application/json",
        "request-id": "req_1",
        "x-request-id": ONE,
    }


@pytest.mark.parametrize("said", ["a\r\nset-cookie: b", "ü", "x" * 2000, "\x00"])
def test_a_value_that_would_begin_another_header_is_left_out(said: str) -> None:
    assert "request-id" not in replies.of_result(ONE, stored(request_id=said), CIPHER).headers
