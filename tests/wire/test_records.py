"""Records: what goes in comes out, and what nobody of this version wrote is refused, not guessed at."""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchling_client.views.batch_view import view_of
from batchling_client.views.spelling import as_json
from batchling_client.wire.ids import new_request_id
from batchling_client.wire.keys import RequestId
from batchling_client.wire.records import row_and_result
from batchling_client.wire.records.batch import Batch
from batchling_client.wire.records.row_and_result import (
    COMPRESS_FROM,
    CorruptRecord,
    LaneSpec,
    Result,
    Row,
    WorkerPresence,
    line_bytes,
)
from batchling_client.wire.states import BatchState, RowKind

SPEC = LaneSpec(
    provider="groq",
    host="api.groq.com",
    endpoint="/v1/chat/completions",
    model="llama",
    fingerprint="f" * 20,
    completion_window="24h",
    headers=(("openai-project", "p"),),
)
AMONG_HEADERS = (
    b'{"completion_window":"24h","endpoint":"/v1/chat/completions","fingerprint":"ffffffffffffffffffff",'
    b'"headers":[["?api-version","2025-04-01"],["openai-project","p"],["x-batchling-carried","+x-tenant"],'
    b'["x-batchling-staging","gs://b/run"]],"host":"api.groq.com","model":"llama","provider":"groq"}'
)
PRESENCE = WorkerPresence(name="w@h", pid=7, version="1", pool="threads", seal_public_key="ab")
ROW = Row.pack(request_id=RequestId("a" * 26), run_id="r", body=b"{}" * 10)
RESULT = Result.pack(kind=RowKind.SUCCESS, status=200, headers={"x": "y"}, body=b"{}" * 10)
BATCH = {
    b"id": b"b1",
    b"lane": SPEC.lane_id.encode(),
    b"spec": SPEC.encode(),
    b"state": b"open",
    b"created_at": b"1795400000000",
    b"updated_at": b"1795400000001",
}
bodies = st.one_of(st.binary(max_size=64), st.binary(max_size=64).map(lambda part: part * 200))


@given(body=bodies, attempt=st.integers(1, 99))
def test_a_row_comes_back_as_it_went_in_on_every_attempt(body: bytes, attempt: int) -> None:
    request_id = new_request_id()
    first = Row.decode(Row.pack(request_id=request_id, run_id="r", body=body))
    again = Row.decode(first.next_attempt(attempt))
    assert (first.request_id, first.run_id, first.attempt, first.body()) == (request_id, "r", 1, body)
    assert (again.request_id, again.run_id, again.attempt, again.body()) == (request_id, "r", attempt, body)


statuses = st.one_of(st.integers(200, 299), st.integers(400, 599))


@given(body=bodies, status=statuses, kind=st.sampled_from(tuple(RowKind)))
def test_a_result_comes_back_as_it_went_in(body: bytes, status: int, kind: RowKind) -> None:
    packed = Result.pack(kind=kind, status=status, headers={"x-request-id": "req 1"}, body=body, origin="o")
    result = Result.decode(packed)
    assert (result.status, result.headers, result.body, result.origin) == (
        status,
        {"x-request-id": "req 1"},
        body,
        "o",
    )
    assert packed[:1] == (b"+" if kind is RowKind.SUCCESS else b"-"), (
        "scripts tell a success by its first byte"
    )


def test_long_bodies_are_stored_small() -> None:
    body = b'{"role":"user"}' * 1000
    assert len(body) > COMPRESS_FROM
    assert len(Row.pack(request_id=new_request_id(), run_id="r", body=body)) < len(body) / 3


def test_a_line_is_never_longer_than_what_it_is_counted_as() -> None:
    body = b"x" * 5000
    line = msgspec.json.encode(
        {"custom_id": "a" * 26, "method": "POST", "url": "/v1/images/generations", "body": body.decode()}
    )
    assert len(line) <= line_bytes(body)


def test_a_lane_spec_has_one_spelling_and_one_id() -> None:
    assert LaneSpec.decode(SPEC.encode()) == SPEC
    assert LaneSpec.decode(SPEC.encode()).lane_id == SPEC.lane_id
    fields = ("provider", "host", "endpoint", "model", "fingerprint", "completion_window")
    others = [msgspec.structs.replace(SPEC, **{field: "other"}) for field in fields]
    others += [msgspec.structs.replace(SPEC, headers=()), SPEC]
    assert len({other.lane_id for other in others}) == len(others)


def test_query_staging_and_carried_names_are_stored_as_the_first_version_stored_them() -> None:
    spec = msgspec.structs.replace(
        SPEC, query=(("api-version", "2025-04-01"),), staging="gs://b/run", carried="+x-tenant"
    )
    assert spec.encode() == AMONG_HEADERS
    assert spec.lane_id == "962248fc17a155865e2c"
    assert LaneSpec.decode(AMONG_HEADERS) == spec


def test_a_heartbeat_comes_back_as_it_went_in() -> None:
    assert WorkerPresence.decode(PRESENCE.encode()) == PRESENCE


DECODERS: dict[str, tuple[Callable[[bytes], object], bytes]] = {
    "row": (Row.decode, ROW),
    "result": (Result.decode, RESULT),
    "lane spec": (LaneSpec.decode, SPEC.encode()),
    "heartbeat": (WorkerPresence.decode, PRESENCE.encode()),
}


@pytest.mark.parametrize("kind", DECODERS)
@given(data=st.data())
def test_damaged_values_are_refused_or_read_but_never_fall_through(kind: str, data: st.DataObject) -> None:
    decode, good = DECODERS[kind]
    at = data.draw(st.integers(0, len(good) - 1))
    junk = data.draw(st.binary(max_size=4))
    for raw in (good[:at] + junk + good[at + 1 :], good[:at], junk, good + junk):
        with contextlib.suppress(CorruptRecord):
            decode(raw)


@pytest.mark.parametrize("kind", DECODERS)
def test_foreign_values_are_refused(kind: str) -> None:
    decode, _ = DECODERS[kind]
    pickled = b"\x80\x04\x95\x0b\x00\x00\x00\x00\x00\x00\x00\x8c\x07invader\x94."
    for raw in (b"", b"+", b"null", b"[]", b"{}", b"\xff" * 40, pickled, msgspec.msgpack.encode({"a": 1})):
        with pytest.raises(CorruptRecord):
            decode(raw)


def test_a_body_that_cannot_be_decompressed_is_refused() -> None:
    squeezed = Row(request_id=RequestId("a"), run_id="r", attempt=1, squeezed=True, packed_body=b"no zlib")
    with pytest.raises(CorruptRecord):
        squeezed.body()
    with pytest.raises(CorruptRecord):
        _ = Result(status=200, headers={}, squeezed=True, packed_body=b"no zlib", origin="provider").body


def test_a_batch_is_read_with_aware_times_and_nothing_guessed() -> None:
    batch = Batch.decode(BATCH)
    assert batch.state is BatchState.OPEN
    assert batch.created_at.isoformat() == "2026-11-23T02:13:20+00:00"
    assert (batch.settled_at, batch.provider_batch_id, batch.outcome, batch.moved_to) == (
        None,
        None,
        None,
        None,
    )
    assert msgspec.json.encode(as_json(view_of(batch, now=batch.created_at, next_look_at=None, version=1)))


@pytest.mark.parametrize("field", BATCH)
def test_a_batch_without_a_field_that_it_cannot_do_without_is_refused(field: bytes) -> None:
    fields = {name: value for name, value in BATCH.items() if name != field}
    if field in (b"created_at", b"updated_at"):
        assert Batch.decode(fields).created_at is not None
    else:
        with pytest.raises(CorruptRecord):
            Batch.decode(fields)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        (b"state", b"flying"),
        (b"created_at", b"1.7954e+12"),
        (b"created_at", b"9" * 400),
        (b"created_at", b"9" * 30),
        (b"n_requests", b"many"),
        (b"outcome", b"fine"),
        (b"spec", b"{}"),
        (b"label", b"\xff\xfe"),
    ],
)
def test_a_batch_with_a_damaged_field_is_refused(field: bytes, value: bytes) -> None:
    with pytest.raises(CorruptRecord):
        Batch.decode({**BATCH, field: value})


def test_a_body_that_would_fill_the_memory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few stored bytes can claim to be any length; only so much is ever expanded."""
    monkeypatch.setattr(row_and_result, "LONGEST_BODY", 1000)
    fits = Row.decode(Row.pack(request_id=RequestId("a" * 26), run_id="r", body=b" " * 1000))
    assert len(fits.body()) == 1000
    bomb = zlib.compress(b" " * 1001)
    with pytest.raises(CorruptRecord, match="longer than any"):
        _ = Row(request_id=RequestId("a"), run_id="r", attempt=1, squeezed=True, packed_body=bomb).body()


def test_a_batch_with_the_spec_of_another_lane_is_refused() -> None:
    """Sent with another's spec it would be sent with another's key."""
    other = msgspec.structs.replace(SPEC, fingerprint="0" * 20)
    with pytest.raises(CorruptRecord):
        Batch.decode({**BATCH, b"spec": other.encode()})
