"""A block reaches exactly as far as the contract says: tasks and what they start, or every thread."""

import asyncio
import contextvars
import subprocess
import sys
import textwrap
import threading
import timeit
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from batchling_client.intercept import scope

from .fakes import PATH, FakeHandler, Upstream, process_block, task_block, who

ROOT = Path(__file__).parents[2]


def name_of_current() -> str | None:
    handler = scope.current()
    return handler.name if isinstance(handler, FakeHandler) else None


def in_a_fresh_thread(work: Callable[[], str | None]) -> str | None:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(work).result(10)


def enter_from_a_fresh_thread(handler: FakeHandler) -> None:
    thread = threading.Thread(target=scope.enter_process, args=[handler])
    thread.start()
    thread.join(10)


async def test_two_blocks_in_two_tasks_do_not_see_each_other() -> None:
    both_open = asyncio.Barrier(2)

    async def run(name: str) -> str | None:
        token = scope.enter_task(FakeHandler(name))
        await both_open.wait()
        seen = name_of_current()
        await both_open.wait()
        scope.leave_task(token)
        return seen

    assert list(await asyncio.gather(run("a"), run("b"))) == ["a", "b"]
    assert scope.current() is None


async def test_the_innermost_block_wins_and_the_outer_one_comes_back() -> None:
    outer = scope.enter_task(FakeHandler("outer"))
    inner = scope.enter_task(FakeHandler("inner"))
    assert name_of_current() == "inner"
    scope.leave_task(inner)
    assert name_of_current() == "outer"
    scope.leave_task(outer)
    assert scope.current() is None


async def test_blocks_closed_out_of_order_leave_the_open_one_in_force() -> None:
    outer = scope.enter_task(FakeHandler("outer"))
    inner = scope.enter_task(FakeHandler("inner"))
    scope.leave_task(outer)
    assert name_of_current() == "inner"
    scope.leave_task(inner)
    scope.leave_task(inner)
    assert scope.current() is None


async def test_a_task_that_outlives_its_block_falls_back_to_the_block_around_it() -> None:
    may_look = asyncio.Event()

    async def late() -> str | None:
        await may_look.wait()
        return name_of_current()

    outer = scope.enter_task(FakeHandler("outer"))
    inner = scope.enter_task(FakeHandler("inner"))
    task = asyncio.create_task(late())
    await asyncio.sleep(0)
    scope.leave_task(inner)
    may_look.set()
    assert await task == "outer"
    scope.leave_task(outer)
    assert await asyncio.create_task(late()) is None


async def test_a_block_closed_in_another_context_is_closed_for_all() -> None:
    token = scope.enter_task(FakeHandler())
    contextvars.Context().run(scope.leave_task, token)
    assert name_of_current() is None


async def test_a_task_block_reaches_to_thread_but_no_foreign_thread() -> None:
    token = scope.enter_task(FakeHandler("task"))
    assert await asyncio.to_thread(name_of_current) == "task"
    assert in_a_fresh_thread(name_of_current) is None
    scope.leave_task(token)


def post(url: str) -> str:
    return who(httpx.post(url, json={}).content)


async def test_a_call_of_a_pools_thread_beside_a_task_block_passes_with_one_warning(
    upstream: Upstream, caplog: pytest.LogCaptureFixture
) -> None:
    loop = asyncio.get_running_loop()
    url = upstream.url + PATH
    handler = FakeHandler()
    with task_block(handler), task_block(FakeHandler(wanting=False)):
        assert await loop.run_in_executor(None, post, upstream.url + "/other") == "upstream"
        assert caplog.records == []
        asked = [loop.run_in_executor(None, post, url) for _ in range(3)]
        assert await asyncio.gather(*asked) == ["upstream"] * 3
    assert handler.calls == []
    [record] = caplog.records
    assert "asyncio.to_thread" in record.getMessage()
    assert "full price" in record.getMessage()


async def test_calls_that_chose_to_be_outside_of_a_task_block_cause_no_warning(
    upstream: Upstream, caplog: pytest.LogCaptureFixture
) -> None:
    loop = asyncio.get_running_loop()
    url = upstream.url + PATH
    may_ask = asyncio.Event()

    async def elsewhere() -> str:
        await may_ask.wait()
        async with httpx.AsyncClient() as client:
            return who((await client.post(url, json={})).content)

    outside = asyncio.create_task(elsewhere())
    handler = FakeHandler()
    with task_block(handler):
        assert await asyncio.to_thread(post, url) == "batch"
        handler.passed.caught = True
        may_ask.set()
        assert await outside == "upstream"
        with process_block(FakeHandler("process")):
            assert await loop.run_in_executor(None, post, url) == "process"
    assert await loop.run_in_executor(None, post, url) == "upstream"
    assert caplog.records == []
    assert [one.n_calls for one in handler.passed.counts()] == [1]


def test_a_process_block_reaches_every_thread_while_it_is_open() -> None:
    handler = FakeHandler("process")
    scope.enter_process(handler)
    assert in_a_fresh_thread(name_of_current) == "process"
    scope.leave_process(handler)
    assert in_a_fresh_thread(name_of_current) is None


def test_process_blocks_close_in_any_order() -> None:
    first, second = FakeHandler("first"), FakeHandler("second")
    scope.enter_process(first)
    scope.enter_process(second)
    assert name_of_current() == "second"
    scope.leave_process(first)
    assert name_of_current() == "second"
    scope.leave_process(second)
    scope.leave_process(second)
    assert scope.current() is None


async def test_a_task_block_wins_over_a_process_block_around_or_beside_it() -> None:
    beside = FakeHandler("process")
    token = scope.enter_task(FakeHandler("task"))
    enter_from_a_fresh_thread(beside)
    assert name_of_current() == "task"
    scope.leave_task(token)
    assert name_of_current() == "process"
    scope.leave_process(beside)


async def test_a_process_block_opened_inside_a_task_block_is_the_inner_one() -> None:
    inner = FakeHandler("process")
    token = scope.enter_task(FakeHandler("task"))
    scope.enter_process(inner)
    assert name_of_current() == "process"
    innermost = scope.enter_task(FakeHandler("innermost"))
    assert name_of_current() == "innermost"
    scope.leave_task(innermost)
    assert name_of_current() == "process"
    scope.leave_process(inner)
    assert name_of_current() == "task"
    scope.leave_task(token)


def test_threads_that_open_and_close_blocks_at_once_leave_nothing_behind() -> None:
    def churn() -> None:
        for _ in range(500):
            handler = FakeHandler()
            scope.enter_process(handler)
            assert scope.current() is not None
            scope.leave_process(handler)

    threads = [threading.Thread(target=churn) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert scope.current() is None


def test_looking_costs_next_to_nothing_where_no_block_is_open() -> None:
    # Short rounds: one of them has a busy machine to itself.
    best = min(timeit.repeat(scope.current, number=1_000, repeat=100)) / 1_000
    assert best < 2e-6


FORKED = """
import logging, os, sys
from batchling_client.intercept import scope

logging.basicConfig(stream=sys.stdout, format="%(message)s")


class Handler:
    passed = None

    def __init__(self, name):
        self.name = name

    def wants(self, method, host, path):
        return path == "/v1/embeddings"

    def passes(self, method, host, path):
        return False


def look(where):
    handler = scope.current()
    paths = ("/other", "/v1/embeddings", "/v1/embeddings")
    wanted = [handler.wants("POST", "h", path) or handler.passes("POST", "h", path) and None for path in paths]
    print(where, getattr(handler, "name", "none of its own"), wanted, flush=True)


def in_child(work):
    pid = os.fork()
    if pid == 0:
        work()
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0


def child():
    look("child")
    own = Handler("own")
    OPEN_OWN
    look("child's block")
    in_child(lambda: look("grandchild"))


OPEN
in_child(child)
look("parent")
"""


@pytest.mark.parametrize("open_in_parent", ["scope.enter_task", "scope.enter_process"])
@pytest.mark.parametrize("open_in_child", ["scope.enter_task", "scope.enter_process"])
def test_a_forked_child_starts_clean_and_says_so_once(open_in_parent: str, open_in_child: str) -> None:
    script = FORKED.replace("OPEN_OWN", f"{open_in_child}(own)")
    script = script.replace("OPEN", f'{open_in_parent}(Handler("parent"))')
    out = run_script(script).splitlines()
    is_warning = [line.startswith("This process was forked inside a batchify block") for line in out]
    assert is_warning == [True, False, False, True, False, False]
    assert "Open a batchify block of its own" in out[0]
    assert [line for line, warning in zip(out, is_warning, strict=True) if not warning] == [
        "child none of its own [False, None, None]",
        "child's block own [False, True, True]",
        "grandchild none of its own [False, None, None]",
        "parent parent [False, True, True]",
    ]


def run_script(script: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
