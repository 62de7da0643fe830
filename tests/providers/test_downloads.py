"""Result files come as object stores and gateways send them: packed, misnamed, or in a part that nobody asked for."""

from __future__ import annotations

import gzip
import json

import httpx
import pytest

from batchling_client.wire.keys import RequestId
from batchling_client.wire.scripts import RowOut
from batchling_client.wire.states import RowKind
from batchling_worker import providers
from batchling_worker.dialects import gzipped
from batchling_worker.errors import TemporaryError
from batchling_worker.pipeline.result_chunks import Chunk
from batchling_worker.provider import Account, Answer, Ending

from .conftest import KEY
from .wire import Wire, answer

N = 5
FILE = b"".join(
    json.dumps({"custom_id": f"r{number}", "response": {"status_code": 200, "body": {"n": number}}}).encode()
    + b"\n"
    for number in range(N)
)
MEMBERS = gzip.compress(FILE[:100]) + gzip.compress(FILE[100:])
IDS = [f"r{number}" for number in range(N)]


async def read(wire: Wire, http: httpx.AsyncClient, into: list[Answer] | None = None) -> list[str]:
    account = Account(
        base_url=wire.url, headers={"authorization": f"Bearer {KEY}"}, http=http, digest="a" * 20
    )
    found: list[Answer] = [] if into is None else into
    async for one in providers.load("openai").results(account, Ending(results=("file-1",))):
        # What was read before an error counts.
        found.append(one)  # noqa: PERF401
    return [one.custom_id for one in found]


@pytest.mark.parametrize("packed", [gzip.compress(FILE), MEMBERS])
async def test_a_file_that_is_packed_and_does_not_say_so_is_read(
    wire: Wire, http: httpx.AsyncClient, packed: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gzipped, "PIECE_BYTES", 64)
    wire.reply = lambda seen: answer(packed)
    assert await read(wire, http) == IDS


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
@pytest.mark.parametrize("sent", [FILE, gzip.compress(FILE)])
async def test_a_file_that_is_called_packed_and_is_not_is_read(
    wire: Wire, http: httpx.AsyncClient, sent: bytes, encoding: str
) -> None:
    wire.reply = lambda seen: answer(sent, headers=f"Content-Encoding: {encoding}\r\n")
    assert await read(wire, http) == IDS


@pytest.mark.parametrize(("headers", "cut"), [("", 20), ("", -1), ("Content-Encoding: gzip\r\n", 20)])
async def test_a_packed_file_that_ends_too_soon_is_not_a_whole_file(
    wire: Wire, http: httpx.AsyncClient, cut: int, headers: str
) -> None:
    wire.reply = lambda seen: answer(gzip.compress(FILE)[:cut], headers=headers)
    with pytest.raises(TemporaryError):
        await read(wire, http)


async def test_rows_of_a_part_that_does_not_say_which_one_it_is_are_read_and_the_file_is_not_whole(
    wire: Wire, http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("batchling_worker.dialects.provider_call.RESUME_PAUSE_S", 0.0)
    begun = FILE[: FILE.index(b'"r3"')]
    wire.reply = lambda seen: answer(begun, status=206)
    found: list[Answer] = []
    with pytest.raises(TemporaryError):
        await read(wire, http, found)
    assert [one.custom_id for one in found] == IDS[:3]


def test_a_success_takes_the_place_of_a_failure_of_the_same_request() -> None:
    chunk = Chunk()
    for one, kind in [
        ("a", RowKind.FAILURE),
        ("b", RowKind.SUCCESS),
        ("a", RowKind.SUCCESS),
        ("b", RowKind.RETRY),
    ]:
        packed = f"{one} {kind}".encode()
        chunk.add(RowOut(request_id=RequestId(one), kind=kind, packed=packed), ok=kind is RowKind.SUCCESS)
    assert [(row.request_id, row.kind) for row in chunk.rows] == [
        ("a", RowKind.SUCCESS),
        ("b", RowKind.SUCCESS),
    ]
    assert chunk.n_ok == 2
