"""Calls that threads, pools, timers and exit handlers of a block make after its end are counted and warned of."""

from __future__ import annotations

import asyncio
import atexit
import gc
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any

import anyio.to_thread
import httpx
import pytest

from batchling_client import Run, batchify
from batchling_client.block import in_flight
from batchling_client.intercept import scope
from tests.waiting import wait_until

from .gateway import Site, ask, ask_blocking, warnings

ROOT = Path(__file__).parents[2]


def block(**terms: Any) -> Any:
    return batchify(live_display=False, **terms)


@pytest.fixture(autouse=True)
def short_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(in_flight, "QUIET_S", 0.05)


Late = Callable[[], None]
"""Waits until the block was left, then makes two calls."""


def in_a_thread(late: Late, stack: ExitStack) -> None:
    thread = threading.Thread(target=late)
    thread.start()
    stack.callback(thread.join, 10)


def in_a_thread_class_of_its_own(late: Late, stack: ExitStack) -> None:
    class Worker(threading.Thread):
        def run(self) -> None:
            late()

    thread = Worker(daemon=True)
    thread.start()
    stack.callback(thread.join, 10)


def in_a_thread_of_a_thread(late: Late, stack: ExitStack) -> None:
    inner = threading.Thread(target=late)
    left = threading.Event()

    def outer() -> None:
        # Started after the block was left.
        left.wait(10)
        inner.start()
        inner.join(10)

    thread = threading.Thread(target=outer)
    thread.start()
    stack.callback(thread.join, 10)
    stack.callback(left.set)


def in_a_timer(late: Late, stack: ExitStack) -> None:
    timer = threading.Timer(0.01, late)
    timer.start()
    stack.callback(timer.join, 10)


def in_a_pool(late: Late, stack: ExitStack) -> None:
    pool = stack.enter_context(ThreadPoolExecutor(1))
    pool.submit(late)


def in_an_older_pool(late: Late, stack: ExitStack) -> None:
    OLDER[-1].submit(late)


def behind_others_in_a_pool(late: Late, stack: ExitStack) -> None:
    pool = stack.enter_context(ThreadPoolExecutor(1))
    first = threading.Event()
    pool.submit(first.wait, 10)
    pool.submit(late)
    stack.callback(first.set)


def in_a_pool_of_multiprocessing(late: Late, stack: ExitStack) -> None:
    pool = ThreadPool(1)
    pool.apply_async(late)
    stack.callback(pool.join)
    stack.callback(pool.close)


def in_a_loop_of_a_thread(late: Late, stack: ExitStack) -> None:
    async def main() -> None:
        await asyncio.to_thread(late)

    in_a_thread(lambda: asyncio.run(main()), stack)


def over_anyio(late: Late, stack: ExitStack) -> None:
    in_a_thread(lambda: anyio.run(anyio.to_thread.run_sync, late), stack)


WAYS = (
    in_a_thread,
    in_a_thread_class_of_its_own,
    in_a_thread_of_a_thread,
    in_a_timer,
    in_a_pool,
    in_an_older_pool,
    behind_others_in_a_pool,
    in_a_pool_of_multiprocessing,
    in_a_loop_of_a_thread,
    over_anyio,
)
OLDER: list[ThreadPoolExecutor] = []


@pytest.fixture
def older_pool() -> Iterator[None]:
    """A pool whose threads and items are older than the block."""
    with ThreadPoolExecutor(1) as pool:
        pool.submit(time.sleep, 0).result(10)
        OLDER.append(pool)
        yield
        OLDER.pop()


@pytest.mark.usefixtures("older_pool", "nothing_intercepted")
@pytest.mark.parametrize("start", WAYS, ids=lambda way: way.__name__)
async def test_calls_of_threads_that_outlive_a_plain_block_are_counted_and_warned_of_once(
    start: Callable[[Late, ExitStack], None], site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    plain = vars(httpx.Client)["send"]
    left, done = threading.Event(), threading.Event()

    def late() -> None:
        left.wait(10)
        ask_blocking(site.url)
        done.set()

    def program() -> Run:
        with ExitStack() as stack:
            with block() as run:
                start(late, stack)
            left.set()
        assert done.wait(10)
        return run  # type: ignore[no-any-return]

    run = await asyncio.to_thread(program)
    assert [(one.reason, one.host, one.n_calls) for one in run.progress.passed] == [
        ("after the block had ended", site.host, 2)
    ]
    [warning] = warnings(caplog)
    assert "Join such threads" in warning
    assert "full price" in warning
    # Nothing stays patched once the threads have ended.
    gc.collect()
    await wait_until(lambda: vars(httpx.Client)["send"] is plain, description="the patches are gone")


async def test_tasks_and_callbacks_that_outlive_a_plain_block_are_counted(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    left = asyncio.Event()

    async def late() -> None:
        await left.wait()
        await ask(site.url)

    with block() as run:
        task = asyncio.create_task(late())
    left.set()
    await task
    assert [(one.reason, one.n_calls) for one in run.progress.passed] == [("after the block had ended", 2)]
    assert "open a TaskGroup inside it" in warnings(caplog)[0]


async def test_a_pool_of_an_async_block_is_counted_after_it_too(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    left = threading.Event()

    def late() -> None:
        left.wait(10)
        ask_blocking(site.url)

    async with block() as run:
        asked = asyncio.get_running_loop().run_in_executor(None, late)
    left.set()
    await asked
    assert [(one.reason, one.n_calls) for one in run.progress.passed] == [("after the block had ended", 2)]
    assert "Join such threads" in warnings(caplog)[0]


def test_a_pool_and_threads_that_are_used_outside_on_purpose_are_not_counted(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    with ThreadPoolExecutor(1) as pool:
        with block() as run:
            pool.submit(time.sleep, 0).result(10)
            with scope.outside():
                outside = pool.submit(time.sleep, 0)
        outside.result(10)
        # A thread that the block saw start serves what is submitted after its end.
        pool.submit(ask_blocking, site.url).result(10)
        thread = threading.Thread(target=ask_blocking, args=[site.url])
        thread.start()
        thread.join(10)
        ask_blocking(site.url)
    assert run.progress.n_passed == 0
    assert warnings(caplog) == []


@pytest.mark.usefixtures("nothing_intercepted")
def test_threads_and_pools_are_themselves_again(site: Site) -> None:
    start, submit, register = (
        vars(threading.Thread)["start"],
        vars(ThreadPoolExecutor)["submit"],
        vars(atexit)["register"],
    )
    seen: list[Any] = []
    with block():
        thread = threading.Thread(target=lambda: seen.append(vars(thread).get("run")))
        thread.start()
        thread.join(10)
        with pytest.raises(RuntimeError, match="once"):
            thread.start()
        seen.append(vars(thread).get("run"))
        assert atexit.register(seen.clear) == seen.clear
    atexit.unregister(seen.clear)
    assert seen == [None, None]
    assert vars(threading.Thread)["start"] is start
    assert vars(ThreadPoolExecutor)["submit"] is submit
    assert vars(atexit)["register"] is register


AT_EXIT = """
import atexit, logging, sys
logging.basicConfig(stream=sys.stdout, format="%(message)s")
import httpx
from batchling_client import batchify

def late():
    httpx.post(sys.argv[1], json={})
    print(run.progress.n_passed, flush=True)

plain = vars(httpx.Client)["send"]
atexit.register(httpx.post, sys.argv[1], json={})
with batchify(live_display=False) as run:
    atexit.register(late)
    atexit.register(print, "never")
atexit.unregister(print)
print(vars(httpx.Client)["send"] is plain, flush=True)
"""


def test_an_exit_handler_of_a_block_is_counted_and_keeps_nothing_patched(site: Site) -> None:
    done = subprocess.run(
        [sys.executable, "-c", AT_EXIT, site.url],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=50,
        check=True,
    )
    lines = done.stdout.splitlines()
    assert [line for line in lines if line in ("True", "1", "never")] == ["True", "1"], (
        done.stdout + done.stderr
    )
    assert done.stdout.count("by a thread, a pool or an exit handler") == 1
    assert len(site.called) == 2


@pytest.mark.usefixtures("nothing_intercepted")
def test_a_plain_block_that_another_thread_leaves_keeps_nothing_patched(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    plain = vars(httpx.Client)["send"]
    opened = block()
    run = opened.__enter__()
    leaving = threading.Thread(target=opened.__exit__, args=(None, None, None))
    leaving.start()
    leaving.join(30)
    gc.collect()
    assert vars(httpx.Client)["send"] is plain
    ask_blocking(site.url)
    assert run.progress.n_passed == 0
    assert warnings(caplog) == []


def test_a_thread_of_a_block_keeps_no_process_alive(site: Site) -> None:
    program = """
import sys, threading
from batchling_client import batchify
with batchify(live_display=False):
    threading.Thread(target=threading.Event().wait, daemon=True).start()
"""
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, timeout=30, check=True)
