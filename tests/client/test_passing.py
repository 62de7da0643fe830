"""Calls that pass a block at full price: each kind is warned of once a run, counted, and summed up at the end."""

import asyncio
import contextlib
import gc
import http.client
import os
import subprocess
import sys
import textwrap
import threading
import urllib.request
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import httpx
import httpx2
import pytest
import requests
import urllib3
from lm15.transports import StdlibAsyncTransport, StdlibTransport, TransportRequest

from batchling_client import Run, batchify
from batchling_client.intercept import child_processes, scope, switch
from batchling_client.intercept.passed import Passed, Why
from batchling_client.wire.routes import Routes

from .gateway import Site, ask, ask_blocking, warnings


def block(**terms: Any) -> Any:
    return batchify(live_display=False, **terms)


async def in_the_block(url: str) -> Run:
    async with block() as run:
        await ask(url)
    return run  # type: ignore[no-any-return]


async def in_a_task_group_around_it(url: str) -> Run:
    left = asyncio.Event()

    async def late() -> None:
        await left.wait()
        await ask(url)

    async with asyncio.TaskGroup() as group:
        async with block() as run:
            group.create_task(late())
        left.set()
    return run  # type: ignore[no-any-return]


async def by_an_older_worker(url: str) -> Run:
    queue: asyncio.Queue[str] = asyncio.Queue()

    async def work() -> None:
        while True:
            await ask(await queue.get())
            queue.task_done()

    worker = asyncio.create_task(work())
    async with block() as run:
        queue.put_nowait(url)
        await queue.join()
    worker.cancel()
    return run  # type: ignore[no-any-return]


async def by_a_request_beside_a_lifespan(url: str) -> Run:
    serving, over = asyncio.Event(), asyncio.Event()
    opened: list[Run] = []

    async def lifespan() -> None:
        async with block() as run:
            opened.append(run)
            serving.set()
            await over.wait()

    server = asyncio.create_task(lifespan())
    await serving.wait()
    await asyncio.create_task(ask(url))
    over.set()
    await server
    return opened[0]


async def entered_in_a_task_of_its_own(url: str) -> Run:
    """Enter the block as `wait_for` before Python 3.12 does, and a notebook with the block in a cell of its own."""
    opened = block()
    run = await asyncio.create_task(opened.__aenter__())
    await ask(url)
    await opened.__aexit__(None, None, None)
    return run  # type: ignore[no-any-return]


async def by_run_coroutine_threadsafe(url: str) -> Run:
    loop = asyncio.get_running_loop()
    asked = threading.Event()

    def feed() -> None:
        asked.wait(10)
        asyncio.run_coroutine_threadsafe(ask(url), loop).result(10)

    with ThreadPoolExecutor(1) as pool:
        feeding = pool.submit(feed)
        async with block() as run:
            asked.set()
            await asyncio.wrap_future(feeding)
    return run  # type: ignore[no-any-return]


async def by_a_thread_with_a_loop(url: str) -> Run:
    async with block() as run:
        await asyncio.get_running_loop().run_in_executor(None, asyncio.run, ask(url))
    return run  # type: ignore[no-any-return]


async def by_a_pool(url: str) -> Run:
    async with block() as run:
        await asyncio.get_running_loop().run_in_executor(None, ask_blocking, url)
    return run  # type: ignore[no-any-return]


WAYS: dict[Callable[[str], Coroutine[Any, Any, Run]], tuple[str, str]] = {
    in_the_block: ("unknown host", "BATCHLING_PROVIDERS__<NAME>__BASE_URL"),
    in_a_task_group_around_it: ("after the block had ended", "inside the block"),
    by_an_older_worker: ("task outside the block", "start workers"),
    by_a_request_beside_a_lifespan: ("task outside the block", "request handlers"),
    entered_in_a_task_of_its_own: ("task outside the block", "wait_for or in another notebook cell"),
    by_run_coroutine_threadsafe: ("task outside the block", "with batchify():"),
    by_a_thread_with_a_loop: ("event loop of another thread", "with batchify():"),
    by_a_pool: ("thread outside the block", "asyncio.to_thread"),
}


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_calls_that_a_block_misses_are_counted_and_warned_of_once_in_each_run(
    way: Callable[[str], Coroutine[Any, Any, Run]], site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    reason, mend = WAYS[way]
    for n in (1, 2):
        caplog.clear()
        run = asyncio.run(way(site.url))
        assert [(one.reason, one.host, one.n_calls) for one in run.progress.passed] == [
            (reason, site.host, 2)
        ]
        assert run.progress.n_passed == 2
        assert f"2 calls passed at full price: 2 to {site.host} ({reason})" in run.summary()
        [warning] = warnings(caplog)
        assert mend in warning
        assert "full price" in warning
        assert len(site.called) == 2 * n


def over_requests(url: str) -> None:
    assert requests.post(url, json={}, timeout=10).status_code == 200


def over_urllib(url: str) -> None:
    with urllib.request.urlopen(urllib.request.Request(url, b"{}", method="POST"), timeout=10) as response:
        assert response.status == 200


def over_http_client(url: str) -> None:
    parts = urlsplit(url)
    with contextlib.closing(http.client.HTTPConnection(parts.netloc, timeout=10)) as connection:
        connection.request("POST", parts.path, b"{}")
        assert connection.getresponse().status == 200


def over_urllib3(url: str) -> None:
    with urllib3.PoolManager() as pool:
        assert pool.request("POST", url, body=b"{}").status == 200


def over_httpx(library: ModuleType) -> Callable[[str], None]:
    def post(url: str) -> None:
        assert library.post(url, json={}).status_code == 200

    return post


def over_lm15(url: str) -> None:
    with (
        StdlibTransport() as transport,
        transport.stream(TransportRequest("POST", url, body=b"{}")) as response,
    ):
        assert response.status == 200


async def over_lm15_async(url: str) -> None:
    request = TransportRequest("POST", url, body=b"{}")
    async with StdlibAsyncTransport() as transport, transport.stream(request) as response:
        assert response.status == 200


async def over_aiohttp(url: str) -> None:
    async with aiohttp.ClientSession() as session, session.post(url, json={}) as response:
        assert response.status == 200


def over_httpx_async(library: ModuleType) -> Callable[[str], Awaitable[None]]:
    async def post(url: str) -> None:
        async with library.AsyncClient() as client:
            assert (await client.post(url, json={})).status_code == 200

    return post


BLOCKING = {
    "requests": over_requests,
    "httpx": over_httpx(httpx),
    "httpx2": over_httpx(httpx2),
    "lm15": over_lm15,
    "urllib": over_urllib,
    "http.client": over_http_client,
    "urllib3": over_urllib3,
}
AWAITING = {
    "aiohttp": over_aiohttp,
    "httpx": over_httpx_async(httpx),
    "httpx2": over_httpx_async(httpx2),
    "lm15": over_lm15_async,
}


async def test_a_call_to_an_unknown_host_is_counted_once_over_every_library(site: Site) -> None:
    for n, (name, post) in enumerate(BLOCKING.items()):
        with block() as run:
            post(site.url)
        assert run.progress.n_passed == 1, name
        assert len(site.called) == n + 1
    for name, awaited in AWAITING.items():
        async with block() as run:
            await awaited(site.url)
        assert run.progress.n_passed == 1, name


def test_a_block_that_has_caught_nothing_says_what_it_saw(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    with block():
        pass
    with block(name="evals"):
        requests.post(f"http://{site.host}/generate", json={}, timeout=10)
    with block():
        requests.post(site.url, json={}, timeout=10)
    nothing, others, passed = [
        record.getMessage() for record in caplog.records if "caught no call" in record.getMessage()
    ]
    assert "It saw no LLM call at all" in nothing
    assert "Run 'evals'" in others
    assert f"1 to {site.host}" in others
    assert f"1 call passed at full price: 1 to {site.host} (unknown host)" in passed


def test_a_block_left_by_an_error_before_its_first_call_says_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with pytest.raises(ZeroDivisionError), block():
        _ = 1 / 0
    assert caplog.records == []


async def test_calls_that_are_outside_on_purpose_are_not_warned_of(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    await ask(site.url)
    async with block():
        with scope.outside():
            await ask(site.url)
        # Another block's call is that block's alone.
        async with block() as inner:
            await ask(site.url, 1)
    await ask(site.url)
    assert inner.progress.n_passed == 1
    assert len(warnings(caplog)) == 1


@pytest.mark.usefixtures("nothing_intercepted")
async def test_patches_stay_while_tasks_outlive_their_block_and_no_longer(site: Site) -> None:
    plain = vars(httpx.AsyncClient)["send"]
    go_on = asyncio.Event()
    async with block() as run:
        late = asyncio.create_task(go_on.wait())
    assert vars(httpx.AsyncClient)["send"] is not plain
    go_on.set()
    await late
    del late
    await asyncio.sleep(0)
    gc.collect()
    assert vars(httpx.AsyncClient)["send"] is plain
    assert run.progress.n_passed == 0


@pytest.mark.usefixtures("nothing_intercepted")
def test_interception_is_let_go_of_in_the_middle_of_being_switched_on() -> None:
    plain = vars(httpx.Client)["send"]
    switch.install()
    with switch._switch.lock:
        switch.let_go()
        assert vars(httpx.Client)["send"] is not plain
    switch.install()
    switch.uninstall()
    assert vars(httpx.Client)["send"] is plain


def test_threads_that_count_at_once_lose_no_call(caplog: pytest.LogCaptureFixture) -> None:
    passed = Passed(Routes())
    with ThreadPoolExecutor(4) as pool:
        for n in range(400):
            pool.submit(passed.note, Why.UNKNOWN_HOST, f"host-{n % 100}", f"sentence {n % 100}")
    assert sum(one.n_calls for one in passed.counts()) == 400
    assert len(passed.counts()) <= 51
    assert len(caplog.records) == 20


CHILD = """
import logging, sys
logging.basicConfig(stream=sys.stdout, format="%(message)s")
import batchling_client, httpx
for _ in range(2):
    httpx.post(sys.argv[1], json={})
"""


def test_a_child_that_imports_batchling_says_once_that_it_is_in_no_block(site: Site) -> None:
    def said() -> str:
        command = [sys.executable, "-c", textwrap.dedent(CHILD), site.url]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
        return done.stdout

    before = dict(os.environ)
    with block():
        assert os.environ[child_processes.VARIABLE].startswith(f"{os.getpid()}:")
        inside = said()
    assert dict(os.environ) == before
    assert inside.count("started inside a batchify block") == 1
    assert said() == ""
