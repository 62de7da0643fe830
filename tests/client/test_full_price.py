"""Requests that go to their provider after all: a bounded number at once, and counted as answered."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor

import groq
import pytest
from aiohttp import web

from batchling import batchify
from batchling_client.block.full_price import AT_ONCE, FullPrice

from .answerer import Answerer

LINGER_S = 0.05
N_CALLS = 2 * AT_ONCE + 16


class Provider:
    """A provider on a loopback port that counts how many calls it answers at once."""

    def __init__(self) -> None:
        self.url = ""
        self.n_seen = self._n_now = self.most = 0

    async def answer(self, request: web.Request) -> web.Response:
        await request.read()
        self.n_seen += 1
        self._n_now += 1
        self.most = max(self.most, self._n_now)
        # Long enough that all calls that are let through meet here.
        await asyncio.sleep(0.2)
        self._n_now -= 1
        said = {"role": "assistant", "content": "at full price"}
        choice = {"index": 0, "message": said, "finish_reason": "stop"}
        return web.json_response(
            {"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}
        )


@pytest.fixture
async def provider(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Provider]:
    made = Provider()
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", made.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.url = "http://{}:{}".format(*runner.addresses[0][:2])
    monkeypatch.setenv("BATCHLING_PROVIDERS__GROQ__BASE_URL", made.url)
    yield made
    await runner.cleanup()


def words(number: int) -> str:
    return json.dumps(f"question {number}")


async def test_past_a_deadline_few_calls_are_sent_at_once_and_all_count_as_answered(
    answerer: Answerer, provider: Provider
) -> None:
    answerer.go_on.clear()
    async with (
        groq.AsyncGroq(api_key="k", base_url=provider.url, max_retries=0) as client,
        batchify(batch_window_seconds=LINGER_S, deadline=0.4, on_deadline="realtime") as run,
    ):
        await asyncio.gather(
            *(
                client.chat.completions.create(model="m", messages=[{"role": "user", "content": words(n)}])
                for n in range(N_CALLS)
            )
        )

    assert (provider.n_seen, provider.most) == (N_CALLS, AT_ONCE)
    assert (run.progress.n_realtime, run.progress.n_answered, run.progress.n_left) == (N_CALLS, N_CALLS, 0)
    assert f"{N_CALLS} of {N_CALLS} requests answered, {N_CALLS} of them at full price" in run.summary()


async def test_threads_share_the_bound(answerer: Answerer, provider: Provider) -> None:
    answerer.go_on.clear()

    def program() -> int:
        client = groq.Groq(api_key="k", base_url=provider.url, max_retries=0)

        def ask(number: int) -> None:
            client.chat.completions.create(model="m", messages=[{"role": "user", "content": words(number)}])

        with (
            batchify(batch_window_seconds=LINGER_S, deadline=0.4, on_deadline="realtime") as run,
            ThreadPoolExecutor(AT_ONCE + 8) as pool,
        ):
            list(pool.map(ask, range(AT_ONCE + 8)))
        client.close()
        return run.progress.n_realtime

    assert await asyncio.to_thread(program) == AT_ONCE + 8
    assert 1 < provider.most <= AT_ONCE


async def test_calls_that_are_cancelled_while_they_wait_keep_no_place() -> None:
    full_price = FullPrice(at_once=2)
    n_now = most = 0
    lock = threading.Lock()

    async def send() -> None:
        nonlocal n_now, most
        with await full_price.turn():
            with lock:
                n_now += 1
                most = max(most, n_now)
            await asyncio.sleep(0.002)
            with lock:
                n_now -= 1

    async def many(n: int) -> None:
        tasks = [asyncio.create_task(send()) for _ in range(n)]
        await asyncio.sleep(0)
        for task in tasks[::3]:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    elsewhere = threading.Thread(target=lambda: asyncio.run(many(60)))
    elsewhere.start()
    await many(60)
    await asyncio.to_thread(elsewhere.join)
    for _ in range(2):
        await asyncio.wait_for(full_price.turn(), 5)

    assert most <= 2


async def test_a_call_at_full_price_counts_as_answered_when_it_is_and_not_when_it_is_sent() -> None:
    full_price = FullPrice()

    with await full_price.turn():
        sent = full_price.n_answered, full_price.n_under_way
    with await full_price.turn(counts=False):
        repeated = full_price.n_answered, full_price.n_under_way

    assert (sent, repeated) == ((0, 1), (1, 0))
    assert (full_price.n_answered, full_price.n_under_way) == (1, 0)
