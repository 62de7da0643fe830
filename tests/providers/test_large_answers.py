"""Answers without end, packed or not: a worker reads no further than an answer of that kind goes."""

from __future__ import annotations

import asyncio
import gzip
import json
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable

import httpx
import pytest

from batchling_client.wire.keys import ProviderBatchId
from batchling_worker import providers
from batchling_worker.dialects import bounded
from batchling_worker.errors import MaybeDone, PermanentError, TemporaryError
from batchling_worker.provider import Account, Ending, Running, SpentFiles

from .desk import Desk
from .wire import Reply, Seen, Wire, answer

MB = 1024 * 1024
LEAST_S = 30.0
"""No test waits for that long: an answer that is read on for ever fails here."""


class Flood:
    """An answer that never ends, and how much of it was taken."""

    def __init__(self, status: int = 200, headers: str = "", piece: bytes = b" " * 65536) -> None:
        self.n_sent = 0
        self._head = f"HTTP/1.1 {status} Said\r\n{headers}\r\n".encode()
        self._piece = piece

    async def __call__(self) -> AsyncIterator[bytes]:
        yield self._head
        while True:
            self.n_sent += len(self._piece)
            yield self._piece


async def look(desk: Desk) -> object:
    one = ProviderBatchId("batch_1")
    seen = (await desk.provider.look(desk.account, [one]))[one]
    if isinstance(seen, Exception):
        raise seen
    return seen


async def cancel(desk: Desk) -> object:
    await desk.provider.cancel(desk.account, ProviderBatchId("batch_1"))
    return None


async def delete(desk: Desk) -> object:
    spent = SpentFiles(
        endpoint="/v1/chat/completions", label="batchling-a", provider_batch_id=None, inputs=("f",)
    )
    await desk.provider.delete(desk.account, spent)
    return None


async def results(desk: Desk) -> object:
    return [one async for one in desk.provider.results(desk.account, Ending(results=("c responses",)))]


async def listed(desk: Desk) -> object:
    """Looks at several batches, of which the list alone answers."""
    ids = [ProviderBatchId(f"batch_{n}") for n in range(4)]
    seen = await desk.provider.look(desk.account, ids)
    assert all(isinstance(one, Running) for one in seen.values())
    return seen


CALLS: dict[str, Callable[[Desk], Awaitable[object]]] = {
    "look": look,
    "list": listed,
    "create": lambda desk: desk.create("file-1"),
    "upload": lambda desk: desk.upload(),
    "cancel": cancel,
    "delete": delete,
    "results": results,
}
PASSES = {("cancel", 200), ("cancel", 400), ("delete", 200)}
"""Of these answers only the status is read."""


def alone(call: str, flood: Reply, seen: Seen) -> Reply:
    """Answers the call with the flood, and those around it as a provider does."""
    if call == "delete" and seen.head.startswith("GET"):
        return answer(b'{"id":"f","purpose":"batch"}')
    if call == "list" and "/batches/" in seen.target:
        shown = {"id": seen.target.rpartition("/")[2], "status": "in_progress"}
        return answer(json.dumps(shown).encode())
    return flood


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("status", [200, 400, 500])
async def test_an_answer_without_end_is_read_no_further_than_its_kind_goes(
    wire: Wire, wired: Desk, call: str, status: int
) -> None:
    if call == "results" and status == 200:
        pytest.skip("a result file may have any length, and its lines have theirs")
    flood = Flood(status)
    wire.reply = lambda seen: alone(call, flood(), seen)
    async with asyncio.timeout(LEAST_S):
        if call == "list" or (call, status) in PASSES:
            await CALLS[call](wired)
        else:
            with pytest.raises((TemporaryError, PermanentError)) as caught:
                await CALLS[call](wired)
            assert isinstance(caught.value, MaybeDone) is (call == "create" and status != 400)
    longest = bounded.LONGEST_LIST if call == "list" else bounded.LONGEST_ANSWER
    assert flood.n_sent <= (longest if status == 200 else bounded.LONGEST_ERROR) + 8 * MB


@pytest.mark.long
@pytest.mark.parametrize(
    ("call", "encoding"),
    [("look", "gzip"), ("list", "deflate"), ("upload", "raw deflate"), ("create", "gzip")],
)
@pytest.mark.parametrize("name", ["openai"])
async def test_an_answer_that_swells_costs_no_more_than_one_that_is_sent_plainly(
    wire: Wire, wired: Desk, call: str, encoding: str
) -> None:
    window = {"gzip": 31, "deflate": 15, "raw deflate": -15}[encoding]
    packer = zlib.compressobj(9, zlib.DEFLATED, window)
    bomb = b"".join(packer.compress(b" " * MB) for _ in range(256)) + packer.flush()
    headers = f"Content-Encoding: {encoding.rpartition(' ')[2]}\r\n"
    wire.reply = lambda seen: alone(call, answer(bomb, headers=headers), seen)
    tracemalloc.start()
    try:
        if call == "list":
            await listed(wired)
        else:
            with pytest.raises(TemporaryError, match="more than"):
                await CALLS[call](wired)
        assert tracemalloc.get_traced_memory()[1] < 64 * MB
    finally:
        tracemalloc.stop()


@pytest.mark.long
@pytest.mark.parametrize("value", [b"{}", b'{"a":1}', b"0.5"])
@pytest.mark.parametrize("name", ["openai"])
async def test_an_answer_of_many_small_values_is_not_parsed(wire: Wire, wired: Desk, value: bytes) -> None:
    n = (bounded.LONGEST_LIST - 100) // (len(value) + 1)
    many = b'{"object":"list","data":[' + b",".join([value] * n) + b"]}"
    wire.reply = lambda seen: alone("list", answer(many), seen)
    tracemalloc.start()
    try:
        await listed(wired)
        assert tracemalloc.get_traced_memory()[1] < 64 * MB
    finally:
        tracemalloc.stop()


def test_commas_and_brackets_inside_of_texts_are_no_values() -> None:
    text = json.dumps({"error": 'a, [b], {c}, \\"d", ' * bounded.MOST_VALUES}).encode()
    assert not bounded.holds_too_much(text)
    assert bounded.holds_too_much(b"[" + b"{}," * bounded.MOST_VALUES + b"{}]")


async def test_a_packed_answer_is_read(wire: Wire, wired: Desk) -> None:
    shown = {"id": "batch_1", "status": "in_progress", "noise": "x, y" * 200_000}
    packed = gzip.compress(json.dumps(shown).encode())
    wire.reply = lambda seen: answer(packed, headers="Content-Encoding: gzip\r\n")
    assert isinstance(await look(wired), Running)


async def test_an_answer_packed_in_a_way_that_was_not_asked_for_is_an_error_and_no_bomb(
    wire: Wire, wired: Desk
) -> None:
    wire.reply = lambda seen: answer(b"\x28\xb5\x2f\xfd" * 100, headers="Content-Encoding: gzip, zstd\r\n")
    with pytest.raises(TemporaryError):
        await look(wired)
    assert wire.seen[-1].header("accept-encoding") == "gzip, deflate"


@pytest.mark.parametrize("tokens", [["A", "B"], ["A" * 10_000, "B"]])
async def test_pages_of_results_that_name_each_other_end(
    wire: Wire, http: httpx.AsyncClient, tokens: list[str]
) -> None:
    def page(seen: Seen) -> bytes:
        token = tokens[len(wire.seen) % len(tokens)]
        return answer(json.dumps({"results": [], "pagination_token": token}).encode())

    wire.reply = page
    account = Account(base_url=wire.url, headers={"authorization": "Bearer x"}, http=http, digest="a" * 20)
    with pytest.raises(TemporaryError):
        await results(Desk(provider=providers.load("xai"), account=account))
    assert len(wire.seen) <= 3


async def test_pages_of_results_without_a_row_end(wire: Wire, http: httpx.AsyncClient) -> None:
    wire.reply = lambda seen: answer(b'{"results":[],"pagination_token":"%d"}' % len(wire.seen))
    account = Account(base_url=wire.url, headers={"authorization": "Bearer x"}, http=http, digest="a" * 20)
    with pytest.raises(TemporaryError, match="more pages"):
        await results(Desk(provider=providers.load("xai"), account=account))
