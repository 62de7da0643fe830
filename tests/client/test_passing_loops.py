"""Event loops that come and go in one block, and the trace of the caller."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio.client import Pipeline, Redis

from batchling_client import Run, batchify
from batchling_client.block import background_loop
from batchling_client.block.run import handler_of
from batchling_client.intercept.interceptor import HttpReply
from batchling_client.session.own_context import own_context
from tests.waiting import wait_until

from .answerer import Answerer
from .asking import a_call, ask
from .conftest import RedisServer

LINGER_S = 0.05
ROOT = Path(__file__).parents[2]

LOOPS = """
import asyncio, gc, os, redis, sys
from batchling_client import batchify
from tests.client.asking import ask

def files():
    return len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0

async def counted(n):
    while run.progress.n_requests < n:
        await asyncio.sleep(0.005)

look = redis.Redis.from_url(os.environ["BATCHLING_REDIS_URL"])
with batchify(batch_window_seconds=0.05, live_display=False) as run:
    asyncio.run(ask(run, "warm"))
    before = len(look.client_list()), files()
    for n in range(8):
        loop = asyncio.new_event_loop()
        if n % 2:
            # A call that is given up with its loop.
            task = loop.create_task(ask(run, f"left {n}"))
            loop.run_until_complete(counted(n + 2))
            task.cancel()
            loop.run_until_complete(asyncio.wait([task]))
        else:
            assert loop.run_until_complete(ask(run, f"prompt {n}")).status == 200
        loop.close()
    gc.collect()
    print(len(look.client_list()) - before[0], files() - before[1])
print(run.progress.n_succeeded, run.progress.n_left)
"""


async def test_loops_that_come_and_go_leave_nothing_of_ours(answerer: Answerer) -> None:
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-X", "dev", "-c", LOOPS],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert done.stdout.splitlines() == ["0 0", "5 4"], done.stderr
    assert "destroyed" not in done.stderr
    assert "Traceback" not in done.stderr
    assert "Warning" not in done.stderr


async def test_a_loop_that_is_closed_over_its_call_keeps_no_block_from_being_left(
    redis_server: RedisServer, namespace: str
) -> None:
    worker = Answerer(redis_server.url, namespace)

    def close_over_it(run: Run) -> None:
        loop = asyncio.new_event_loop()
        kept.append(loop.create_task(ask(run, "nobody waits")))
        loop.run_until_complete(asyncio.sleep(0.05))
        loop.close()

    kept: list[asyncio.Task[HttpReply]] = []
    async with batchify(batch_window_seconds=60, live_display=False) as run:
        await asyncio.to_thread(close_over_it, run)
        await wait_until(lambda: run.progress.n_requests == 1, description="it is counted")
    assert run.progress.n_left == 1
    places = [await worker.redis.get(key) for key in await worker.redis.keys(worker.keys.request("*"))]
    assert all(place.startswith(b"|") for place in places)
    await worker.redis.aclose()
    # What asyncio says of the program's own task is the program's.
    kept[0]._log_destroy_pending = False  # type: ignore[attr-defined]
    kept.clear()
    gc.collect()


async def test_a_call_that_ends_before_its_thread_has_another_turn_keeps_no_block_open(
    answerer: Answerer, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = threading.Event()

    def program(run: Run) -> None:
        shared = background_loop.hold()
        begin = shared.loop.call_soon_threadsafe

        def begin_and_end(work: Callable[[], None]) -> object:
            handle = begin(work)
            begin(lambda: ended_after(work))
            assert ended.wait(10)
            return handle

        def ended_after(work: Any) -> None:
            work.__self__.task.add_done_callback(lambda _: ended.set())

        monkeypatch.setattr(shared.loop, "call_soon_threadsafe", begin_and_end)
        try:
            assert asyncio.run(ask(run)).status == 200
        finally:
            monkeypatch.undo()
            background_loop.let_go()

    async with asyncio.timeout(20), batchify(batch_window_seconds=LINGER_S, live_display=False) as run:
        await asyncio.to_thread(program, run)
    assert handler_of(run).n_in_flight() == 0


async def test_a_call_given_up_on_a_passing_loop_is_joined_there(answerer: Answerer) -> None:
    answerer.go_on.clear()

    async def twice(run: Run) -> int:
        try:
            await asyncio.wait_for(ask(run, "the same"), 0.2)
        except TimeoutError:
            asyncio.get_running_loop().call_later(0.1, let_go)
        return (await ask(run, "the same")).status

    here = asyncio.get_running_loop()

    def let_go() -> None:
        here.call_soon_threadsafe(answerer.go_on.set)

    async with batchify(batch_window_seconds=LINGER_S, live_display=False) as run:
        assert await asyncio.to_thread(lambda: asyncio.run(twice(run))) == 200
    assert sum(answerer.times_answered.values()) == 1


span: contextvars.ContextVar[str] = contextvars.ContextVar("span", default="")


@pytest.mark.parametrize("colour", ["async", "plain", "another loop"])
async def test_looks_and_reads_are_no_spans_of_the_callers_trace(
    colour: str, answerer: Answerer, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside: list[object] = []
    own = {id(answerer.redis)}
    for owner, name in ((Redis, "execute_command"), (Pipeline, "execute")):
        plain = getattr(owner, name)

        def traced(self: Any, *args: Any, plain: Any = plain, **options: Any) -> Any:
            if span.get() and id(self) not in own:
                inside.append(args[:1])
            return plain(self, *args, **options)

        monkeypatch.setattr(owner, name, traced)

    async def in_a_block() -> None:
        async with batchify(batch_window_seconds=LINGER_S, live_display=False) as run:
            assert (await ask(run)).status == 200

    def in_a_plain_block() -> None:
        span.set("the caller's")
        with batchify(batch_window_seconds=LINGER_S, live_display=False) as run:
            if colour == "plain":
                assert getattr(handler_of(run).answer_blocking(a_call()), "status", None) == 200
            else:
                assert asyncio.run(ask(run)).status == 200

    if colour == "async":

        async def traced_block() -> None:
            span.set("the caller's")
            await in_a_block()

        await asyncio.create_task(traced_block())
    else:
        await asyncio.to_thread(in_a_plain_block)
    assert not inside


def test_opentelemetry_records_none_of_our_own_calls() -> None:
    context = pytest.importorskip("opentelemetry.context")
    key = context._SUPPRESS_INSTRUMENTATION_KEY
    assert own_context().run(lambda: context.get_value(key)) is True
    assert context.get_value(key) is None


def test_the_background_loop_is_closed_where_a_library_has_replaced_asyncio_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # As nest_asyncio has it (nest_asyncio.py, _patch_asyncio): asyncio.run leaves its loop open for the next one.
    kept: list[asyncio.AbstractEventLoop] = []

    def run(main: Any, **options: Any) -> Any:
        kept.append(asyncio.new_event_loop())
        return kept[-1].run_until_complete(main)

    monkeypatch.setattr(asyncio, "run", run)
    shared = background_loop.hold()
    loop = shared.loop
    background_loop.let_go()
    shared.join(10)
    for one in kept:
        one.close()
    assert not kept
    assert loop.is_closed()
