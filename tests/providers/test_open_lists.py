"""A search reads on after a page that does not say it is the last: a batch on the next page would be paid for twice."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any

import httpx
import pytest

from batchling_worker import providers
from batchling_worker.provider import Account

from .conftest import KEY
from .desk import Desk, credential
from .wire import Seen, Wire, answer

LABEL = "batchling-test-1"
NOW = dt.datetime(2026, 11, 25, 12, tzinfo=dt.UTC)


def desk(provider: str, wire: Wire, http: httpx.AsyncClient) -> Desk:
    account = Account(base_url=wire.url, headers=credential(provider, KEY), http=http, digest="a" * 20)
    return Desk(provider=providers.load(provider), account=account)


def batches(name: str, label: str, n: int) -> list[dict[str, Any]]:
    shared = {"status": "completed", "created_at": int(NOW.timestamp()), "metadata": {"batchling": label}}
    return [{"id": f"{name}-{number}", "input_files": ["f"], **shared} for number in range(n)]


def pages(seen: Seen, place: str, *, first: dict[str, Any], second: dict[str, Any]) -> bytes:
    return answer(json.dumps(second if place in seen.target else first).encode())


async def test_a_page_without_a_word_on_more_is_followed_by_its_next(
    wire: Wire, http: httpx.AsyncClient
) -> None:
    first, second = {"data": batches("other", "x", 20)}, {"data": batches("ours", LABEL, 1)}
    wire.reply = lambda seen: pages(seen, "after=other-19", first=first, second=second)
    assert await desk("openai", wire, http).find(since=NOW) == ["ours-0"]


async def test_a_list_that_comes_whole_each_time_is_read_twice_and_searched_to_its_end(
    wire: Wire, http: httpx.AsyncClient
) -> None:
    wire.reply = lambda seen: answer(json.dumps({"data": batches("other", "x", 3)}).encode())
    assert await desk("openai", wire, http).find(since=NOW) == []
    assert len(wire.seen) == 2


@pytest.mark.parametrize(("n_first", "total"), [(100, 0), (20, 3), (100, 100), (100, None)])
async def test_a_total_that_is_too_low_ends_no_search(
    wire: Wire, http: httpx.AsyncClient, n_first: int, total: int | None
) -> None:
    first = {"data": batches("other", "x", n_first), "total": total}
    second = {"data": batches("ours", LABEL, 1), "total": total}
    rest: dict[str, Any] = {"data": [], "total": total}
    wire.reply = lambda seen: (
        pages(seen, "page=1&", first=first, second=second)
        if "page=0&" in seen.target or "page=1&" in seen.target
        else answer(json.dumps(rest).encode())
    )
    assert await desk("mistral", wire, http).find(since=NOW) == ["ours-0"]


async def test_a_page_token_in_snake_case_is_followed(wire: Wire, http: httpx.AsyncClient) -> None:
    ours = {"name": "batches/ours", "metadata": {"displayName": LABEL, "createTime": NOW.isoformat()}}
    first, second = {"next_page_token": "second"}, {"operations": [ours]}
    wire.reply = lambda seen: pages(seen, "pageToken=second", first=first, second=second)
    found = await desk("gemini", wire, http).find(since=NOW)
    assert [one.rpartition("batches/")[2] for one in found] == ["ours"]
