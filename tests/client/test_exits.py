"""Leaving a block is completed whatever comes: rows are withdrawn, the line is printed, the session ends."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import subprocess
import sys
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

import anyio
import pytest
from redis.asyncio import Redis

from batchling_client import Run, batchify, session
from batchling_client.block.counts import Progress
from batchling_client.operate import worker_presence
from batchling_client.progress import display
from batchling_client.views.inspection import Inspection
from batchling_client.wire.keys import BatchId, Keys, RunId
from tests.waiting import wait_until

from .answerer import Answerer
from .asking import ask, batches_of
from .conftest import RedisServer

ROOT = Path(__file__).parents[2]
N_CALLS = 3


async def asks(run: Run) -> None:
    await asyncio.gather(*(ask(run, f"prompt {n}") for n in range(N_CALLS)))


async def until_placed(run: Run) -> None:
    async def placed() -> bool:
        return sum(batch.n_requests for batch in await batches_of(run)) == N_CALLS

    await wait_until(placed, description="the requests are in Redis")


async def in_a_block(entered: Callable[[], None]) -> None:
    """Wait in a block until it is interrupted."""
    async with batchify(batch_window_seconds=60, live_display=False) as run:
        asking = asyncio.create_task(asks(run))
        try:
            await until_placed(run)
            entered()
            await asking
        finally:
            asking.cancel()


async def an_anyio_scope_is_cancelled() -> None:
    with anyio.CancelScope() as around:
        await in_a_block(around.cancel)
    assert around.cancelled_caught


async def an_anyio_timeout_fails() -> None:
    async def limited() -> None:
        with anyio.fail_after(60) as limit:

            def pass_time() -> None:
                limit.deadline = anyio.current_time()

            await in_a_block(pass_time)

    with pytest.raises(TimeoutError):
        await limited()


async def an_anyio_group_around_the_block_is_cancelled() -> None:
    async with anyio.create_task_group() as group:
        await in_a_block(group.cancel_scope.cancel)


async def an_anyio_group_in_the_block_has_the_calls() -> None:
    with anyio.CancelScope() as around:
        async with (
            batchify(batch_window_seconds=60, live_display=False) as run,
            anyio.create_task_group() as group,
        ):
            group.start_soon(asks, run)
            await until_placed(run)
            around.cancel()


async def a_timeout_of_asyncio_passes() -> None:
    async def limited() -> None:
        async with asyncio.timeout(60) as limit:
            loop = asyncio.get_running_loop()
            await in_a_block(lambda: limit.reschedule(loop.time()))

    with pytest.raises(TimeoutError):
        await limited()


async def a_sibling_in_a_task_group_fails() -> None:
    entered = asyncio.Event()

    async def fails() -> None:
        await entered.wait()
        raise ZeroDivisionError

    async def together() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(fails())
            group.create_task(in_a_block(entered.set))

    with pytest.raises(ExceptionGroup):
        await together()


async def it_is_cancelled_each_turn_of_the_loop() -> None:
    entered = asyncio.Event()
    task = asyncio.create_task(in_a_block(entered.set))
    await entered.wait()
    while not task.done():
        task.cancel()
        await asyncio.sleep(0)
    assert task.cancelled()


async def every_task_of_the_loop_is_cancelled_again_and_again() -> None:
    """Cancel like a server that shuts down without a grace period."""
    entered = asyncio.Event()
    task = asyncio.create_task(in_a_block(entered.set))
    await entered.wait()
    mine = asyncio.current_task()
    for _ in range(20):
        for one in asyncio.all_tasks() - {mine}:
            one.cancel()
        await asyncio.sleep(0.005)
    await asyncio.wait([task])
    assert task.cancelled()


WAYS = [
    an_anyio_scope_is_cancelled,
    an_anyio_timeout_fails,
    an_anyio_group_around_the_block_is_cancelled,
    an_anyio_group_in_the_block_has_the_calls,
    a_timeout_of_asyncio_passes,
    a_sibling_in_a_task_group_fails,
    it_is_cancelled_each_turn_of_the_loop,
    every_task_of_the_loop_is_cancelled_again_and_again,
]


@pytest.mark.parametrize("way", WAYS)
async def test_a_block_that_is_broken_off_withdraws_its_rows_says_so_and_ends_its_session(
    way: Callable[[], Coroutine[Any, Any, None]], redis: Answerer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="batchling")
    before = await connections(redis)

    await way()

    assert await n_dropped(redis) == N_CALLS
    assert f"{N_CALLS} requests of run" in caplog.text
    assert f"0 of {N_CALLS} requests answered, {N_CALLS} left" in caplog.text
    assert all(one.over for one in session._sessions.open.values())
    assert asyncio.all_tasks() == {asyncio.current_task()}
    await none_since(before, redis)


async def connections(worker: Answerer) -> set[str]:
    return {client["id"] for client in await worker.redis.client_list()}


async def none_since(before: set[str], worker: Answerer) -> None:
    async def gone() -> bool:
        return await connections(worker) <= before

    await wait_until(gone, description="Redis has seen the connections end")


async def n_dropped(worker: Answerer) -> int:
    names = await worker.redis.zrange(worker.keys.batches, 0, -1)
    found = [await worker.redis.hget(worker.keys.batch(BatchId(n.decode())), "n_dropped") for n in names]
    return sum(int(n or 0) for n in found)


async def test_cancels_while_the_exit_waits_for_redis_break_nothing_off(
    redis: Answerer, redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    entered = asyncio.Event()
    task = asyncio.create_task(in_a_block(entered.set))
    await entered.wait()
    assert redis_server.process is not None
    redis_server.process.send_signal(signal.SIGSTOP)
    try:
        for _ in range(10):
            task.cancel()
            await asyncio.sleep(0.02)
        assert not task.done()
    finally:
        redis_server.process.send_signal(signal.SIGCONT)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await n_dropped(redis) == N_CALLS
    assert "were withdrawn" in caplog.text
    assert all(one.over for one in session._sessions.open.values())


async def test_a_block_left_normally_that_is_cancelled_meanwhile_is_closed_first(
    answerer: Answerer, redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="batchling")
    left = asyncio.Event()

    async def leave() -> None:
        async with batchify(batch_window_seconds=0.05, live_display=False) as run:
            await ask(run)
            left.set()

    task = asyncio.create_task(leave())
    await left.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert "1 of 1 requests answered" in caplog.text
    assert all(one.over for one in session._sessions.open.values())


class HidesCancels(Redis):
    """Answer a cancel with a ConnectionError, as redis-py does now and then."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.asked = asyncio.Event()

    async def execute_command(self, *words: Any, **options: Any) -> Any:
        asking: Coroutine[Any, Any, Any] = super().execute_command(*words, **options)  # type: ignore[no-untyped-call]
        self.asked.set()
        try:
            return await asking
        except asyncio.CancelledError:
            raise ConnectionError("closed by a cancel") from None


class OfRun:
    """A run, as its display sees it."""

    id = RunId("r1")
    name = None
    progress = Progress()

    def __init__(self, redis: Redis, keys: Keys) -> None:
        self.redis = redis
        self.keys = keys

    def summary(self) -> str:
        return ""

    def failures(self) -> Sequence[str]:
        return ()

    def set_reasons(self, reasons: Sequence[str]) -> None:
        """Do nothing: nobody asks why batches wait."""


def the_display(redis: Redis, keys: Keys) -> Coroutine[Any, Any, None]:
    return display.show(OfRun(redis, keys), live=False)


def the_watch_for_workers(redis: Redis, keys: Keys) -> Coroutine[Any, Any, None]:
    return worker_presence.watch(
        Inspection(redis, keys), "", asked=lambda: False, missing=worker_presence.Missing()
    )


@pytest.mark.parametrize("companion", [the_display, the_watch_for_workers])
async def test_a_companion_of_a_block_ends_at_one_cancel_though_redis_py_hides_it(
    companion: Callable[[Redis, Keys], Coroutine[Any, Any, None]], redis_server: RedisServer, namespace: str
) -> None:
    assert redis_server.process is not None
    async with HidesCancels(unix_socket_path=f"{redis_server.home}/redis.sock") as hiding:
        redis_server.process.send_signal(signal.SIGSTOP)
        try:
            task = asyncio.create_task(companion(hiding, Keys(namespace)))
            await hiding.asked.wait()
            # An event loop at its end cancels each task once and waits for it.
            task.cancel()
        finally:
            redis_server.process.send_signal(signal.SIGCONT)
        await asyncio.wait([task], timeout=20)
        assert task.done()


async def test_an_entry_that_is_broken_off_leaves_nothing(redis: Answerer) -> None:
    before = await connections(redis)
    with anyio.CancelScope() as around:
        around.cancel()
        async with batchify(live_display=False):
            pass
    await none_since(before, redis)
    assert asyncio.all_tasks() == {asyncio.current_task()}


def test_without_asyncio_an_async_block_says_so() -> None:
    entering = batchify(dry_run=True).__aenter__()
    with pytest.raises(RuntimeError, match="needs asyncio"):
        entering.send(None)


PROGRAM = """
import asyncio, gc, logging, signal, sys, threading
from batchling_client import batchify
from batchling_client.block.run import handler_of
from tests.client.asking import a_call, ask, batches_of

logging.basicConfig(stream=sys.stderr, format="%(message)s", level=logging.INFO)

async def asked(run):
    calls = [asyncio.create_task(ask(run, f"prompt {n}")) for n in range(3)]
    while sum(batch.n_requests for batch in await batches_of(run)) < 3:
        await asyncio.sleep(0.01)
    return calls

async def in_a_block(then=lambda: None):
    async with batchify(batch_window_seconds=60, live_display=False) as run:
        calls = await asked(run)
        then()
        await asyncio.gather(*calls)

async def generator():
    async with batchify(batch_window_seconds=60, live_display=False) as run:
        yield await asked(run)

"""
THE_LOOP_ENDS_AROUND_A_TASK = """
async def main():
    entered = asyncio.Event()
    task = asyncio.create_task(in_a_block(entered.set))
    await entered.wait()
    sys.exit(3)
asyncio.run(main())
"""
A_GENERATOR_IS_FINALISED_WITH_ITS_LOOP = """
async def main():
    global held
    held = generator()
    await anext(held)
asyncio.run(main())
"""
A_GENERATOR_IS_CLOSED_BY_HAND = """
async def main():
    held = generator()
    calls = await anext(held)
    for call in calls:
        call.cancel()
    await asyncio.wait(calls)
    await held.aclose()
asyncio.run(main())
"""
A_GENERATOR_IS_DROPPED = """
async def main():
    held = generator()
    calls = await anext(held)
    for call in calls:
        call.cancel()
    await asyncio.wait(calls)
    del held, calls
    gc.collect()
asyncio.run(main())
"""
A_LOOP_IS_STOPPED_AND_CLOSED = """
async def main():
    loop = asyncio.get_running_loop()
    await in_a_block(loop.stop)
loop = asyncio.new_event_loop()
task = loop.create_task(main())
loop.run_forever()
loop.close()
"""
A_LOOP_STOPS_AND_ITS_TASKS_ARE_CANCELLED = """
async def main():
    await in_a_block(asyncio.get_running_loop().stop)
with asyncio.Runner() as runner:
    loop = runner.get_loop()
    task = loop.create_task(main())
    loop.run_forever()
"""
CTRL_C_TWICE = """
def press():
    signal.raise_signal(signal.SIGINT)
    asyncio.get_running_loop().call_later(0.01, signal.raise_signal, signal.SIGINT)
asyncio.run(in_a_block(press))
"""
CTRL_C_TWICE_AT_ONCE = """
def press():
    signal.raise_signal(signal.SIGINT)
    signal.raise_signal(signal.SIGINT)
asyncio.run(in_a_block(press))
"""
CTRL_C_AGAIN_IN_A_PLAIN_EXIT = """
from batchling_client.block.run_end import RunEnd

def call(run, n):
    try:
        handler_of(run).answer_blocking(a_call(f"prompt {n}"))
    except asyncio.CancelledError:
        pass

before = RunEnd.close
async def close(run, **how):
    for _ in range(3):
        signal.raise_signal(signal.SIGINT)
        await asyncio.sleep(0.01)
    await before(run, **how)
RunEnd.close = close

with batchify(batch_window_seconds=60, live_display=False) as run:
    threads = [threading.Thread(target=call, args=(run, n)) for n in range(3)]
    for thread in threads:
        thread.start()
    while sum(batch.n_requests for batch in asyncio.run(batches_of(run))) < 3:
        pass
    signal.raise_signal(signal.SIGINT)
"""
WAYS_OF_A_PROGRAM = {
    name.lower(): code
    for name, code in globals().items()
    if name.isupper() and isinstance(code, str) and name.startswith(("THE_", "A_", "CTRL_C"))
}


@pytest.mark.parametrize("name", WAYS_OF_A_PROGRAM)
async def test_a_program_that_ends_within_a_block_withdraws_its_rows_and_says_so(
    name: str, redis: Answerer
) -> None:
    code = PROGRAM + WAYS_OF_A_PROGRAM[name]
    program = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", code), cwd=ROOT, stderr=subprocess.PIPE
    )
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(program.wait(), 40)
    if program.returncode is None:
        program.kill()
    _, stderr = await program.communicate()
    said = stderr.decode()

    assert await n_dropped(redis) == N_CALLS, said
    assert f"{N_CALLS} requests of run" in said, said
    assert f"0 of {N_CALLS} requests answered" in said, said
    assert "ignored GeneratorExit" not in said
