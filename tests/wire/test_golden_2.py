"""Golden bytes of version 2: what it wrote is read by this release, which derives the same names and ids."""

from __future__ import annotations

import pytest

from batchling_client.wire import sealing
from batchling_client.wire.keys import WIRE_VERSION
from batchling_client.wire.records.row_and_result import Result, Row

from . import golden
from .golden import version_2

GOLDEN = version_2.load()


def packed(name: str) -> bytes:
    return golden.raw(GOLDEN["records"][name])


def test_this_release_writes_version_2() -> None:
    assert WIRE_VERSION == version_2.VERSION
    assert version_2.records().keys() == GOLDEN["records"].keys()


def test_every_name_and_id_is_derived_as_it_was() -> None:
    assert version_2.derived() == GOLDEN["derived"]
    assert version_2.key_names() == GOLDEN["key_names"]


@pytest.mark.parametrize(
    ("name", "attempt", "body"),
    [
        ("row", 1, version_2.BODY),
        ("row_next_attempt", 2, version_2.BODY),
        ("row_squeezed", 1, golden.CANONICAL * 100),
    ],
)
def test_every_row_is_still_opened(name: str, attempt: int, body: bytes) -> None:
    row = Row.decode(packed(name))
    assert (row.request_id, row.run_id, row.attempt) == (version_2.REQUEST, golden.RUN, attempt)
    assert row.body(golden.SPEC.lane_id, version_2.root().cipher()) == body


@pytest.mark.parametrize(
    ("name", "status", "origin", "body"),
    [
        ("result", 200, "provider", b"{}"),
        ("result_failure", 504, "batch_expired", b'{"error":{}}'),
        ("result_squeezed", 200, "provider", golden.CANONICAL * 100),
    ],
)
def test_every_result_is_still_opened(name: str, status: int, origin: str, body: bytes) -> None:
    result = Result.decode(packed(name), version_2.REQUEST, version_2.root().cipher())
    assert (result.status, result.origin, result.body) == (status, origin, body)
    assert result.headers == {"x-request-id": "q"}
    assert Result.fingerprint_of(packed(name)) == version_2.root().fingerprint


def test_the_credential_is_still_opened() -> None:
    assert sealing.unseal(packed("credential"), [golden.PRIVATE_KEY]) == version_2.credential()
