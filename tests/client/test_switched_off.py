"""Blocks that are switched off, and calls that are taken out of a block."""

from __future__ import annotations

import asyncio
import socket
import threading
from typing import Any, Final

import httpx
import pytest

import batchling
from batchling_client import batchify, outside
from batchling_client.block.run import handler_of
from batchling_client.intercept import scope

OFF: list[dict[str, Any]] = [{"enabled": False}, {}]


@pytest.mark.parametrize("how", OFF, ids=["parameter", "setting"])
async def test_a_block_that_is_switched_off_does_nothing(
    how: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    # No queue is needed: this Redis does not exist.
    monkeypatch.setenv("BATCHLING_REDIS_URL", "redis://127.0.0.1:1")
    if not how:
        monkeypatch.setenv("BATCHLING_ENABLED", "false")
    async with batchify(name="off", **how) as run:
        assert scope.current() is None
        assert (run.name, run.progress.n_requests) == ("off", 0)
    with batchify(**how) as run:
        assert scope.current() is None
    assert "switched off" in run.summary()
    assert capfd.readouterr().err == ""


async def test_a_parameter_wins_over_the_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BATCHLING_ENABLED", "false")
    async with batchify(enabled=True, dry_run=True) as run:
        assert scope.current() is handler_of(run)


async def test_outside_takes_calls_tasks_and_threads_out_of_a_block() -> None:
    def seen() -> object:
        return scope.current()

    async def of_a_task() -> object:
        return scope.current()

    with batchify(dry_run=True) as run:
        assert scope.current() is handler_of(run)
        with outside():
            assert scope.current() is None
            assert await asyncio.create_task(of_a_task()) is None
            assert await asyncio.to_thread(seen) is None
        assert scope.current() is handler_of(run)

    found: list[object] = []

    @outside()
    def thread() -> None:
        found.append(scope.current())

    with batchify(dry_run=True):
        one = threading.Thread(target=thread)
        one.start()
        one.join(10)
    assert found == [None]


async def test_a_block_inside_outside_is_a_block_again() -> None:
    async with batchify(dry_run=True):
        with outside():
            async with batchify(dry_run=True) as inner:
                assert scope.current() is handler_of(inner)
            assert scope.current() is None
            with batchify(dry_run=True) as plain:
                assert scope.current() is handler_of(plain)
            assert scope.current() is None


def test_it_is_in_the_short_import() -> None:
    assert batchling.outside is outside


EU: Final = "https://eu.api.openai.com/v1/chat/completions"
CALL: Final = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hello?"}]}
KEY: Final = {"authorization": "Bearer sk-canary-5f1c2d"}
COUNTED_NOTHING: Final = "counted nothing.* left 1 call to test doubles"


def _double() -> httpx.MockTransport:
    return httpx.MockTransport(lambda request: httpx.Response(200, json={}))


async def test_a_dry_run_that_a_test_double_answers_says_that_it_counted_nothing() -> None:
    with pytest.warns(UserWarning, match=COUNTED_NOTHING):
        async with batchify(dry_run=True), httpx.AsyncClient(transport=_double()) as client:
            assert (await client.post(EU, json=CALL, headers=KEY)).json() == {}


def test_a_plain_dry_run_that_a_test_double_answers_says_that_it_counted_nothing() -> None:
    with (
        pytest.warns(UserWarning, match=COUNTED_NOTHING),
        batchify(dry_run=True),
        httpx.Client(transport=_double()) as client,
    ):
        assert client.post(EU, json=CALL, headers=KEY).json() == {}


@pytest.mark.parametrize("package", ["httpretty", "mocket"])
async def test_a_block_that_opens_while_a_double_replaces_the_network_is_off(
    package: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # Both put a class of their own in the place of socket.socket, over which no Redis can be reached.
    double = type("socket", (socket.socket,), {"__module__": f"{package}.core"})
    monkeypatch.setattr(socket, "socket", double)
    async with batchify() as run:
        assert scope.current() is None
    with batchify() as run:
        assert scope.current() is None
    assert "switched off" in run.summary()
    monkeypatch.undo()
    assert caplog.text.count(f"{package} replaces the network") == 2
