"""Rows and results are encrypted for one request each: nobody without the key reads, forges or exchanges them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchling_client.session import replies
from batchling_client.wire.ids import new_request_id
from batchling_client.wire.keys import RequestId
from batchling_client.wire.records.row_and_result import CorruptRecord, Result, Row
from batchling_client.wire.row_cipher import LockBroken, RowCipher
from batchling_client.wire.states import RowKind

ONE, OTHER = RequestId("a" * 26), RequestId("b" * 26)
OWN, ANOTHERS = RowCipher(b"own", "f" * 20), RowCipher(b"another's", "e" * 20)
PROMPT, ANSWER = b'{"model":"m","prompt":"a secret wish"}', b'{"id":"x","text":"a secret answer"}'


def a_row(request_id: RequestId = ONE, lane: str = "lane", cipher: RowCipher = OWN) -> bytes:
    return Row.pack(request_id=request_id, run_id="r", body=PROMPT * 40, lane_id=lane, cipher=cipher)


def a_result(
    request_id: RequestId = ONE, kind: RowKind = RowKind.SUCCESS, cipher: RowCipher | None = OWN
) -> bytes:
    return Result.pack(kind=kind, status=200, headers={}, body=ANSWER, request_id=request_id, cipher=cipher)


def in_clear(kind: RowKind, status: int, origin: str = "provider") -> bytes:
    return Result.pack(kind=kind, status=status, headers={}, body=ANSWER, origin=origin)


bodies = st.one_of(
    st.binary(min_size=1, max_size=64), st.binary(min_size=1, max_size=64).map(lambda x: x * 200)
)


@given(body=bodies, attempt=st.integers(1, 99))
def test_a_row_comes_back_as_it_went_in_on_every_attempt(body: bytes, attempt: int) -> None:
    request_id = new_request_id()
    packed = Row.pack(request_id=request_id, run_id="r", body=body, lane_id="lane", cipher=OWN)
    again = Row.decode(Row.decode(packed).next_attempt(attempt))
    assert (again.request_id, again.attempt, again.body("lane", OWN)) == (request_id, attempt, body)
    assert again.size == len(body) + 256


@given(body=bodies)
def test_a_result_comes_back_as_it_went_in(body: bytes) -> None:
    packed = Result.pack(
        kind=RowKind.SUCCESS, status=200, headers={"request-id": "q"}, body=body, request_id=ONE, cipher=OWN
    )
    result = Result.decode(packed, ONE, OWN)
    assert (result.status, result.headers, result.body) == (200, {"request-id": "q"}, body)
    assert Result.fingerprint_of(packed) == OWN.fingerprint


def test_neither_prompt_nor_answer_is_in_what_is_stored() -> None:
    assert b"secret" not in a_row()
    assert b"secret" not in a_result()
    assert a_row() != a_row()


@pytest.mark.parametrize(
    ("packed", "lane"),
    [
        (a_row(cipher=ANOTHERS), "lane"),
        (a_row(lane="another"), "lane"),
        (Row.pack(request_id=ONE, run_id="r", body=PROMPT), "lane"),
        (a_row(OTHER).replace(OTHER.encode(), ONE.encode()), "lane"),
    ],
    ids=["under another key", "of another lane", "in clear", "of another request"],
)
def test_a_row_that_its_caller_did_not_write_for_its_lane_is_refused(packed: bytes, lane: str) -> None:
    with pytest.raises(CorruptRecord):
        Row.decode(packed).body(lane, OWN)


@pytest.mark.parametrize(
    "packed",
    [
        a_result(cipher=ANOTHERS),
        a_result(OTHER),
        b"-" + a_result()[1:],
        b"+" + a_result(kind=RowKind.FAILURE)[1:],
        in_clear(RowKind.SUCCESS, 200),
        in_clear(RowKind.SUCCESS, 400),
        in_clear(RowKind.FAILURE, 200),
        in_clear(RowKind.FAILURE, 201, "batch_failed"),
    ],
    ids=[
        *("under another key", "of another request", "a success as a failure", "a failure as a success"),
        *(
            "a success in clear",
            "a success in clear with 400",
            "a failure with 200",
            "a code of ours with 201",
        ),
    ],
)
def test_an_answer_that_no_worker_wrote_is_refused(packed: bytes) -> None:
    with pytest.raises(CorruptRecord):
        Result.decode(packed, ONE, OWN)
    assert replies.of_result(ONE, packed, OWN).status == 502


def test_a_failure_in_clear_is_delivered_as_workers_without_the_key_write_them() -> None:
    reply = replies.of_result(ONE, in_clear(RowKind.FAILURE, 401), OWN)
    assert reply.status == 401


@given(data=st.data(), of_row=st.booleans())
def test_no_changed_byte_goes_unnoticed(data: st.DataObject, of_row: bool) -> None:
    good = OWN.lock(PROMPT, b"context")
    at = data.draw(st.integers(0, len(good) - 1))
    changed = bytearray(good)
    changed[at] ^= data.draw(st.integers(1, 255))
    for locked in (bytes(changed), good[:at], b"", good + b"x"):
        with pytest.raises(LockBroken):
            OWN.open(locked, b"context")
    with pytest.raises(LockBroken):
        OWN.open(good, b"another context" if of_row else b"")
