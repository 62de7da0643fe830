"""A batch whose create was not answered is found though its provider shows it in other words than it was given."""

from __future__ import annotations

import datetime as dt
import json
import re
from email.utils import format_datetime
from typing import Any

import httpx
import pytest

from batchling_client.wire.keys import ProviderBatchId
from batchling_worker import providers
from batchling_worker.errors import TemporaryError
from batchling_worker.provider import Account, label_in

from .conftest import KEY
from .desk import Desk, credential
from .wire import Seen, Wire, answer

LABEL = "batchling-test-1"
SINCE = dt.datetime(2026, 11, 25, 12, tzinfo=dt.UTC)
ALIKE = [
    "BATCHLING-TEST-1",
    "batchling_test_1",
    "acme:batchling-test-1",
    "batchling.test.1/eu",
    "batchling test 1",
]
OTHERS = ["batchling-test-2", "batchling-test-12", "abatchling-test-1", "nightly", "-", "batchling-test-1x"]


def desk(provider: str, wire: Wire, http: httpx.AsyncClient) -> Desk:
    account = Account(base_url=wire.url, headers=credential(provider, KEY), http=http, digest="a" * 20)
    return Desk(provider=providers.load(provider), account=account)


def batch(**fields: Any) -> dict[str, Any]:
    return {"id": "ours", "status": "in_progress", "created_at": int(SINCE.timestamp()), **fields}


class Server:
    """Lists some batches, shows each, and names files."""

    def __init__(self, wire: Wire, *batches: dict[str, Any]) -> None:
        self.batches = batches
        self.files: dict[str, str] = {}
        self.headers = ""
        wire.reply = self.reply

    def reply(self, seen: Seen) -> bytes:
        path = seen.target.partition("?")[0]
        last = path.rpartition("/")[2]
        if "/files/" in path:
            if last not in self.files:
                return answer(b"{}", status=404)
            return self._said({"id": last, "filename": self.files[last]})
        one = next((one for one in self.batches if str(one["id"]) == last), None)
        return self._said({"data": self.batches, "has_more": False, "total": 1} if one is None else one)

    def _said(self, said: Any) -> bytes:
        return answer(json.dumps(said).encode(), headers=self.headers)


@pytest.mark.parametrize("shown", ALIKE)
def test_a_label_is_known_in_another_spelling(shown: str) -> None:
    assert label_in(shown, LABEL) is True


@pytest.mark.parametrize("shown", OTHERS)
def test_another_label_is_another(shown: str) -> None:
    assert label_in(shown, LABEL) is False


@pytest.mark.parametrize("shown", ["batchling-te", "BATCHLING_", "b"])
def test_the_beginning_of_a_label_may_be_this_one(shown: str) -> None:
    assert label_in(shown, LABEL) is None


@pytest.mark.parametrize("shown", ALIKE)
async def test_a_batch_is_found_by_a_label_in_another_spelling(
    wire: Wire, http: httpx.AsyncClient, shown: str
) -> None:
    Server(wire, batch(metadata={"batchling": shown}))
    assert await desk("openai", wire, http).find(since=SINCE) == ["ours"]


async def test_a_label_that_was_cut_off_is_completed_by_the_name_of_the_file(
    wire: Wire, http: httpx.AsyncClient
) -> None:
    server = Server(wire, batch(metadata={"batchling": LABEL[:12]}, input_file_id="shown-1"))
    at = desk("openai", wire, http)
    with pytest.raises(TemporaryError, match="may be batchling-test-1"):
        await at.find(since=SINCE, files=["given-1"])
    server.files["shown-1"] = "batchling-test-1.jsonl"
    assert await at.find(since=SINCE, files=["given-1"]) == ["ours"]


async def test_a_batch_that_shows_another_id_of_its_file_is_found_by_the_name_of_that_file(
    wire: Wire, http: httpx.AsyncClient
) -> None:
    server = Server(wire, batch(input_file_id="shown-1"), batch(id="other", input_file_id="shown-2"))
    server.files = {"shown-1": "batchling-test-1.jsonl", "shown-2": "nightly.jsonl"}
    at = desk("openai", wire, http)
    assert await at.find(since=SINCE, files=["given-1"]) == ["ours"]
    n_calls = len(wire.seen)
    assert await at.find(since=SINCE, files=["given-1"]) == ["ours"]
    # The other one is not looked at again, unless it is the batch that is sought.
    assert len(wire.seen) == 2 * n_calls - 2
    assert await at.find(label="nightly", since=SINCE, files=["given-2"]) == ["other"]


async def test_a_batch_whose_file_nobody_can_name_is_not_taken_for_anothers(
    wire: Wire, http: httpx.AsyncClient
) -> None:
    Server(wire, batch(input_file_id="shown-1"))
    with pytest.raises(TemporaryError, match="may be batchling-test-1"):
        await desk("openai", wire, http).find(since=SINCE, files=["given-1"])


@pytest.mark.parametrize("provider", ["openai", "anthropic", "gemini", "mistral"])
async def test_a_batch_of_a_server_whose_clock_is_behind_is_not_too_old(
    provider: str, wire: Wire, http: httpx.AsyncClient
) -> None:
    now = dt.datetime.now(dt.UTC)
    made = now - dt.timedelta(hours=2)
    one = batch(created_at=int(made.timestamp()) if provider in ("openai", "mistral") else made.isoformat())
    one |= {"processing_status": "in_progress", "request_counts": {"processing": 1}}
    operation = {"name": "batches/ours", "metadata": {"createTime": made.isoformat()}}
    server = Server(wire, one)
    wire.reply = lambda seen: answer(
        json.dumps(
            {"data": [one], "operations": [operation], "has_more": False, "total": 1}
            if seen.target.partition("?")[0].endswith(("batches", "jobs"))
            else {**one, **operation}
        ).encode(),
        headers=server.headers,
    )
    at = desk(provider, wire, http)
    assert await at.find(since=now) == []
    server.headers = f"Date: {format_datetime(made, usegmt=True)}\r\n"
    with pytest.raises(TemporaryError, match="may be batchling-test-1"):
        await at.find(since=now)


@pytest.mark.parametrize("provider", ["openai", "groq", "azure", "mistral", "doubleword"])
async def test_ids_that_are_numbers_are_ids(provider: str, wire: Wire, http: httpx.AsyncClient) -> None:
    one = batch(id=1001, metadata={"batchling": LABEL}, status="completed", output_file_id=7, output_file=7)
    Server(wire, one)
    at = desk(provider, wire, http)
    [found] = await at.find(since=SINCE)
    assert found == "1001"
    assert (await at.ended(found)).ending.results == ("7",)


async def test_no_two_uploads_have_the_same_name(wire: Wire, http: httpx.AsyncClient) -> None:
    at = desk("openai", wire, http)
    wire.reply = lambda seen: answer(b'{"id": "file-1"}')
    for _ in range(2):
        await at.upload()
    names = {re.findall(rb'filename="([^"]+)"', seen.body)[0].decode() for seen in wire.seen}
    assert len(names) == 2
    assert {label_in(name.removesuffix(".jsonl"), LABEL) for name in names} == {True}


async def test_a_created_batch_and_a_stored_file_may_have_numbers(
    wire: Wire, http: httpx.AsyncClient
) -> None:
    for provider in ("openai", "together"):
        wire.reply = lambda seen: answer(b'{"id": 1001, "job": {"id": 1002}}')
        at = desk(provider, wire, http)
        assert await at.upload() == "1001"
        assert await at.create("1001") in ("1001", "1002")


@pytest.mark.parametrize(
    "shown", [{"id": "file-1", "object": "file"}, ["file-1"], [{"id": "file-1"}], " file-1 "]
)
async def test_a_result_file_is_read_from_whatever_names_it(
    wire: Wire, http: httpx.AsyncClient, shown: Any
) -> None:
    Server(wire, batch(status="completed", output_file_id=shown))
    ending = (await desk("openai", wire, http).ended(ProviderBatchId("ours"))).ending
    assert ending.results == ("file-1",)
