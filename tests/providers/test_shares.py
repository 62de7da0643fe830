"""Each account and each server has its share of a worker's connections: endless calls keep nobody else waiting."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager

import httpx
import pytest

from batchling_worker.call_outcome import Underway
from batchling_worker.dialects import blocking, slow_answers
from batchling_worker.engine.shares import OF_ACCOUNT, OF_SERVER, Shares

FOR_EVER = 3600.0


async def filled(turn: Callable[[], AbstractAsyncContextManager[None]], n: int) -> contextlib.AsyncExitStack:
    held = contextlib.AsyncExitStack()
    for _ in range(n):
        await held.enter_async_context(turn())
    return held


async def test_an_account_whose_calls_never_end_leaves_the_others_their_connections() -> None:
    shares = Shares(FOR_EVER)
    async with await filled(shares.of("bad", "http://a"), OF_ACCOUNT), asyncio.timeout(30):
        waiting = asyncio.create_task(filled(shares.of("bad", "http://a"), 1))
        async with shares.of("good", "http://a")():
            assert not waiting.done()
    async with await waiting:
        pass


async def test_a_server_whose_calls_never_end_leaves_the_others_their_connections() -> None:
    shares = Shares(FOR_EVER)
    held = contextlib.AsyncExitStack()
    for n in range(OF_SERVER // OF_ACCOUNT):
        await held.enter_async_context(await filled(shares.of(f"bad{n}", "http://a"), OF_ACCOUNT))
    async with held, asyncio.timeout(30):
        waiting = asyncio.create_task(filled(shares.of("another", "http://a"), 1))
        async with shares.of("good", "http://b")():
            assert not waiting.done()
    async with await waiting:
        pass


async def test_a_call_that_waits_too_long_for_its_turn_was_not_sent_and_keeps_no_place() -> None:
    shares = Shares(0.01)
    held = await filled(shares.of("bad", "http://a"), OF_ACCOUNT)
    with pytest.raises(httpx.PoolTimeout):
        await filled(shares.of("bad", "http://a"), 1)
    await held.aclose()
    async with await filled(shares.of("bad", "http://a"), OF_ACCOUNT):
        pass


async def test_a_download_that_always_brings_enough_ends_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(slow_answers, "LONGEST_TRANSFER_S", 0.05)

    async def without_end() -> AsyncIterator[bytes]:
        while True:
            await asyncio.sleep(0.01)
            yield b" " * slow_answers.LEAST_BYTES

    with pytest.raises(slow_answers.TooSlowError, match="not at its end"):
        async for _ in slow_answers.paced(without_end(), FOR_EVER):
            pass


async def test_an_upload_that_always_takes_some_ends_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slow_answers, "LONGEST_TRANSFER_S", 0.05)
    monkeypatch.setattr(blocking, "LONGEST_TRANSFER_S", 0.05)
    never = asyncio.Event()

    async def ask(trace: slow_answers.Trace) -> None:
        await trace("http11.send_request_body.started", None)
        await never.wait()

    async def seen(event: str, more: object) -> None:
        return None

    with pytest.raises(TimeoutError):
        await slow_answers.in_time(ask, seen, FOR_EVER)

    ends = threading.Event()
    with pytest.raises(blocking.TooSlowError):
        await blocking.in_thread(ends.wait, Underway("aws", "store", 1.0), FOR_EVER, ends.set)
