"""A block that is left normally waits for its calls in flight, and for nothing else."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import groq
import openai
import pytest

from batchling_client import Run, batchify
from batchling_client.block import in_flight
from batchling_client.block.run import handler_of
from batchling_client.intercept.interceptor import HttpReply
from batchling_client.wire.deployment.cancellation import end
from tests.waiting import wait_until

from .answerer import Answerer
from .asking import a_call, ask, content
from .conftest import RedisServer

LINGER_S = 0.05
ROOT = Path(__file__).parents[2]
N_CALLS = 3


@pytest.fixture
def working(redis_server: RedisServer, namespace: str) -> Iterator[None]:
    """An answering worker on a loop of its own, for tests that block."""

    async def work() -> None:
        worker = Answerer(redis_server.url, namespace)
        task = asyncio.create_task(worker.work())
        loops.append(asyncio.get_running_loop())
        stopped.append(asyncio.Event())
        ready.set()
        await stopped[0].wait()
        await end([task])
        await worker.redis.aclose()

    loops: list[asyncio.AbstractEventLoop] = []
    stopped: list[asyncio.Event] = []
    ready = threading.Event()
    thread = threading.Thread(target=asyncio.run, args=(work(),), daemon=True)
    thread.start()
    assert ready.wait(10)
    yield
    loops[0].call_soon_threadsafe(stopped[0].set)
    thread.join(10)


async def create(client: groq.AsyncGroq | openai.AsyncOpenAI, n: int) -> str:
    prompt = {"role": "user", "content": f"prompt {n}"}
    answer = await client.chat.completions.create(model="llama", messages=[prompt])  # type: ignore[list-item]
    return str(answer.choices[0].message.content)


@pytest.mark.parametrize("client_class", [groq.AsyncGroq, openai.AsyncOpenAI])
async def test_tasks_that_nobody_awaits_are_answered(
    answerer: Answerer, client_class: Callable[[], groq.AsyncGroq | openai.AsyncOpenAI]
) -> None:
    async with client_class() as client:
        async with batchify(batch_window_seconds=LINGER_S, live_display=False) as run:
            # Not one of them has begun when the block ends.
            tasks = [asyncio.create_task(create(client, n)) for n in range(N_CALLS)]
        assert (run.progress.n_succeeded, run.progress.n_passed) == (N_CALLS, 0)
        await asyncio.gather(*tasks)


async def test_tasks_that_hold_up_the_loop_before_they_call_are_answered(
    answerer: Answerer, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """As an import does that takes long: nobody could call meanwhile."""
    monkeypatch.setattr(in_flight, "QUIET_S", 0.5)
    monkeypatch.setattr("batchling_client.block.block.SAY_WAITING_AFTER_S", 0.1)

    async def late(run: Run, n: int) -> str:
        time.sleep(0.3)  # noqa: ASYNC251 - what is played
        await asyncio.sleep(0.1)
        return content(await ask(run, f"prompt {n}"))

    async with batchify(batch_window_seconds=LINGER_S, live_display=False) as run:
        tasks = [asyncio.create_task(late(run, n)) for n in range(N_CALLS)]

    assert run.progress.n_succeeded == N_CALLS
    assert "waits for 0 calls" not in capfd.readouterr().err
    await asyncio.gather(*tasks)


async def test_a_group_around_the_block_is_answered(answerer: Answerer) -> None:
    async with groq.AsyncGroq() as client, asyncio.TaskGroup() as group:
        block = batchify(batch_window_seconds=LINGER_S, live_display=False)
        async with block as run:
            tasks = [group.create_task(create(client, n)) for n in range(N_CALLS)]
    assert [task.result().rpartition(" ")[0] for task in tasks] == [f"prompt {n}" for n in range(N_CALLS)]
    assert run.progress.n_succeeded == N_CALLS


async def test_a_call_that_follows_on_an_answer_is_waited_for_too(answerer: Answerer) -> None:
    async def chain(run: Run) -> list[str]:
        first = content(await ask(run, "one"))
        await asyncio.to_thread(time.sleep, 0.1)
        return [first, content(await ask(run, "two"))]

    async with batchify(batch_window_seconds=LINGER_S, live_display=False) as run:
        task = asyncio.create_task(chain(run))
    assert run.progress.n_succeeded == 2
    assert len(await task) == 2


async def test_a_block_does_not_wait_for_tasks_that_wait_for_something_else(
    answerer: Answerer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(in_flight, "QUIET_S", 0.2)
    async with batchify(batch_window_seconds=LINGER_S, live_display=False) as run:
        hanging = asyncio.create_task(asyncio.Event().wait())
        assert (await ask(run)).status == 200
    assert not hanging.done()
    await end([hanging])


async def test_a_caller_that_has_given_up_is_not_waited_for(answerer: Answerer) -> None:
    answerer.go_on.clear()
    async with batchify(batch_window_seconds=LINGER_S, live_display=False) as run:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.2):
                await ask(run, "given up")
        left = asyncio.create_task(ask(run, "cancelled"))
        await wait_until(lambda: run.progress.n_waiting == 1, description="it waits")
        left.cancel()
    assert run.progress.n_left == 2


async def leave_while_calls_wait(run_of: list[Run], tasks: list[asyncio.Task[HttpReply]]) -> None:
    async with batchify(batch_window_seconds=60, live_display=False) as run:
        run_of.append(run)
        tasks.extend(asyncio.create_task(ask(run, f"prompt {n}")) for n in range(N_CALLS))


async def test_a_cancel_ends_the_wait_and_says_what_goes_on(
    redis: Answerer, caplog: pytest.LogCaptureFixture
) -> None:
    runs: list[Run] = []
    tasks: list[asyncio.Task[HttpReply]] = []
    leaving = asyncio.create_task(leave_while_calls_wait(runs, tasks))
    await wait_until(lambda: bool(runs) and runs[0].progress.n_waiting == N_CALLS, description="they wait")
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    assert f"{N_CALLS} requests of run" in caplog.text
    await end(tasks)


async def test_a_long_wait_is_said_once(
    answerer: Answerer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO, logger="batchling")
    monkeypatch.setattr("batchling_client.block.block.SAY_WAITING_AFTER_S", 0.1)
    answerer.go_on.clear()
    asyncio.get_running_loop().call_later(0.6, answerer.go_on.set)
    async with batchify(batch_window_seconds=LINGER_S, live_display=False) as run:
        task = asyncio.create_task(ask(run))
    assert caplog.text.count("waits for 1 call in flight") == 1
    assert (await task).status == 200


async def test_a_detached_block_is_left_once_its_calls_are_queued_and_a_rerun_has_the_answers(
    answerer: Answerer, caplog: pytest.LogCaptureFixture
) -> None:
    answerer.go_on.clear()
    async with batchify(batch_window_seconds=LINGER_S, live_display=False, detach=True) as run:
        tasks = [asyncio.create_task(ask(run, f"prompt {n}")) for n in range(N_CALLS)]
    assert f"{N_CALLS} requests stay queued" in caplog.text
    assert f"`batchling show {run.id}`" in caplog.text
    # The program ends before the batch does: what it had queued stays queued.
    await end(tasks)
    answerer.go_on.set()
    async with batchify(batch_window_seconds=LINGER_S, live_display=False) as again:
        assert [(await ask(again, f"prompt {n}")).status for n in range(N_CALLS)] == [200] * N_CALLS
    assert set(answerer.times_answered.values()) == {1}
    assert len(answerer.times_answered) == N_CALLS


def test_threads_that_nobody_joins_are_answered(working: None) -> None:
    client, answers = groq.Groq(), list[str | None]()

    def call(n: int) -> None:
        prompt = {"role": "user", "content": f"prompt {n}"}
        answer = client.chat.completions.create(model="llama", messages=[prompt])  # type: ignore[list-item]
        answers.append(answer.choices[0].message.content)

    with batchify(batch_window_seconds=LINGER_S, live_display=False) as run:
        threads = [threading.Thread(target=call, args=(n,)) for n in range(N_CALLS)]
        for thread in threads:
            thread.start()
    assert (run.progress.n_succeeded, run.progress.n_passed) == (N_CALLS, 0)
    for thread in threads:
        thread.join(10)
    assert len(answers) == N_CALLS


def test_work_that_a_pool_has_not_begun_is_answered_too(
    working: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A pool whose threads get no processor for a while: they look as if they had nothing to do.
    monkeypatch.setattr(in_flight, "BEGIN_S", 0.0)
    monkeypatch.setattr(in_flight, "QUIET_S", 20.0)
    monkeypatch.setattr(in_flight, "_waits", lambda thread: True)
    futures: list[Future[str | None]] = []
    with ThreadPoolExecutor(2) as pool, groq.Groq() as client:

        def call(n: int) -> str | None:
            prompt = {"role": "user", "content": f"prompt {n}"}
            answer = client.chat.completions.create(model="llama", messages=[prompt])  # type: ignore[list-item]
            return answer.choices[0].message.content

        with batchify(batch_window_seconds=LINGER_S, live_display=False) as run:
            futures += [pool.submit(call, n) for n in range(5)]
        assert run.progress.n_succeeded == 5
    assert [str(one.result()).rpartition(" ")[0] for one in futures] == [f"prompt {n}" for n in range(5)]


def test_threads_that_do_something_else_are_not_waited_for(
    working: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(in_flight, "QUIET_S", 0.2)
    done = threading.Event()
    with batchify(batch_window_seconds=LINGER_S, live_display=False) as run:
        thread = threading.Thread(target=done.wait, args=(30,))
        thread.start()
        assert getattr(handler_of(run).answer_blocking(a_call()), "status", None) == 200
    assert thread.is_alive()
    done.set()
    thread.join(10)


CTRL_C_AT_THE_END = """
import asyncio, logging, sys, threading
from batchling_client import batchify
from tests.client.asking import a_call, ask, handler_of

logging.basicConfig(stream=sys.stderr, format="%(message)s", level=logging.INFO)

def call(run, n):
    try:
        handler_of(run).answer_blocking(a_call(f"prompt {n}"))
    except asyncio.CancelledError:
        pass

def plain():
    with batchify(batch_window_seconds=60, live_display=False) as run:
        for n in range(3):
            threading.Thread(target=call, args=(run, n)).start()

async def of_a_task():
    async with batchify(batch_window_seconds=60, live_display=False) as run:
        tasks = [asyncio.create_task(ask(run, f"prompt {n}")) for n in range(3)]

"""


@pytest.mark.parametrize("way", ["plain()", "asyncio.run(of_a_task())"])
async def test_ctrl_c_ends_the_wait_and_withdraws(way: str, redis: Answerer) -> None:
    program = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", CTRL_C_AT_THE_END + way), cwd=ROOT, stderr=subprocess.PIPE
    )

    async def placed() -> bool:
        names = await redis.redis.keys(redis.keys.request("*"))
        return len(names) == N_CALLS

    await wait_until(placed, description="the requests are in Redis", within_s=30)
    program.send_signal(signal.SIGINT)
    _, stderr = await asyncio.wait_for(program.communicate(), 40)
    said = stderr.decode()
    assert "KeyboardInterrupt" in said
    assert f"{N_CALLS} requests of run" in said, said
    assert f"0 of {N_CALLS} requests answered" in said, said
