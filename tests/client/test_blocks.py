"""Blocks: what they cover, how they are left, what they refuse; with the official SDKs where it matters."""

import asyncio
import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import groq
import httpx
import openai
import pytest

import batchling
import batchling_client
from batchling_client import (
    BatchExpired,
    DryRun,
    QueueUnreachable,
    RequestRefused,
    Run,
    WrongSettings,
    batchify,
    errors,
)
from batchling_client.block.run import handler_of
from batchling_client.intercept.interceptor import HttpReply, PassThrough
from batchling_client.wire import sealing
from batchling_client.wire.deployment import seal_key_files
from batchling_client.wire.deployment.cancellation import end
from batchling_client.wire.keys import BatchId, Keys
from batchling_client.wire.records.batch import Batch
from batchling_client.wire.records.row_and_result import WorkerPresence
from tests.waiting import wait_until

from .answerer import Answerer, completion, echo
from .asking import ASK, HOST, PATH, a_call, ask, ask_all, batches_of, content, error_of
from .conftest import RedisServer

LINGER_S = 0.05
ROOT = Path(__file__).parents[2]


@pytest.fixture
def working(redis_server: RedisServer, namespace: str) -> Iterator[subprocess.Popen[bytes]]:
    """An answering worker in a process of its own, for tests that block."""
    code = (
        "import asyncio, sys; from tests.client.answerer import Answerer\n"
        "async def main(): await Answerer(sys.argv[1], sys.argv[2]).work()\n"
        "asyncio.run(main())"
    )
    process = subprocess.Popen([sys.executable, "-c", code, redis_server.url, namespace], cwd=ROOT)
    yield process
    process.kill()
    process.wait(5)


@pytest.fixture
def threads_left() -> Callable[[], list[str]]:
    """Return batchling's threads that the test started and that still run; other tests may leave threads."""
    before = set(threading.enumerate())

    def left() -> list[str]:
        return [t.name for t in set(threading.enumerate()) - before if t.name.startswith("batchling")]

    return left


@pytest.fixture
async def groq_client() -> AsyncIterator[groq.AsyncGroq]:
    async with groq.AsyncGroq() as client:
        yield client


async def test_groq_gets_its_typed_object(answerer: Answerer, groq_client: groq.AsyncGroq) -> None:
    async with batchify(batch_window_seconds=LINGER_S):
        answer = await groq_client.chat.completions.create(**ASK)
    assert type(answer) is groq.types.chat.ChatCompletion
    assert str(answer.choices[0].message.content).startswith("hi ")


async def test_openai_gets_its_typed_object_and_request_id(answerer: Answerer) -> None:
    async with openai.AsyncOpenAI() as client, batchify(batch_window_seconds=LINGER_S):
        answer = await client.chat.completions.create(**ASK)
    assert type(answer) is openai.types.chat.ChatCompletion
    assert answer._request_id == "req_200"


@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, openai.BadRequestError), (429, openai.RateLimitError), (500, openai.InternalServerError)],
)
async def test_errors_are_the_sdks_own_and_are_raised_once(
    status: int, kind: type[openai.APIStatusError], answerer: Answerer
) -> None:
    answerer.answer = lambda row: (
        status,
        b'{"error":{"message":"the model says no","code":"c"}}',
        "provider",
    )
    async with openai.AsyncOpenAI() as client, batchify(batch_window_seconds=LINGER_S) as run:
        with pytest.raises(kind, match="the model says no") as caught:
            await client.chat.completions.create(**ASK)
    assert errors.of(caught.value) is None
    assert sum(answerer.times_answered.values()) == 1
    assert run.progress.n_failed == 1


async def test_the_sdks_exception_holds_the_errors_that_http_has_no_status_for(
    answerer: Answerer, groq_client: groq.AsyncGroq
) -> None:
    answerer.answer = lambda row: (504, b'{"error":{"message":"three times too late"}}', "batch_expired")
    async with batchify(batch_window_seconds=LINGER_S):
        with pytest.raises(groq.InternalServerError) as caught:
            await groq_client.chat.completions.create(**ASK)
    found = errors.of(caught.value)
    assert isinstance(found, BatchExpired)
    assert str(found) == "three times too late"
    framework_s = LookupError()
    framework_s.__cause__ = caught.value
    assert isinstance(errors.of(framework_s), BatchExpired)


async def test_a_refused_request_is_a_bad_request_of_the_sdk(groq_client: groq.AsyncGroq) -> None:
    async with batchify(batch_window_seconds=LINGER_S):
        with pytest.raises(groq.BadRequestError) as caught:
            await groq_client.chat.completions.create(model="", messages=[])
    found = errors.of(caught.value)
    assert isinstance(found, RequestRefused)
    assert "model" in str(found)


def test_sync_code_is_batched_together_from_many_threads(
    working: object, threads_left: Callable[[], list[str]]
) -> None:
    with batchify(batch_window_seconds=0.3) as run, groq.Groq() as client, ThreadPoolExecutor(8) as pool:

        def one(i: int) -> str:
            prompt = {"role": "user", "content": f"prompt {i}"}
            answer = client.chat.completions.create(model="llama", messages=[prompt])  # type: ignore[list-item]
            return str(answer.choices[0].message.content).rpartition(" ")[0]

        assert list(pool.map(one, range(8))) == [f"prompt {i}" for i in range(8)]
        assert run.progress.n_succeeded == 8
    assert not threads_left()


async def test_to_thread_inside_an_async_block_is_batched(
    answerer: Answerer, threads_left: Callable[[], list[str]]
) -> None:
    def blocking() -> str:
        with groq.Groq() as client:
            return str(client.chat.completions.create(**ASK).choices[0].message.content)

    async with batchify(batch_window_seconds=LINGER_S) as run:
        answers = await asyncio.gather(*(asyncio.to_thread(blocking) for _ in range(3)))
    assert len(set(answers)) == 3
    assert run.progress.n_succeeded == 3
    assert not threads_left()


def test_an_async_client_inside_a_plain_block_is_batched(working: object) -> None:
    async def main() -> str:
        async with groq.AsyncGroq() as client:
            answer = await client.chat.completions.create(**ASK)
            return str(answer.choices[0].message.content)

    with batchify(batch_window_seconds=LINGER_S) as run:
        assert asyncio.run(main()).startswith("hi ")
        assert run.progress.n_succeeded == 1


PLAIN_IN_A_COROUTINE = """
import asyncio, logging, sys, groq
from batchling_client import batchify
from tests.client.asking import ASK, batches_of

logging.basicConfig(stream=sys.stderr, format="%(message)s")

async def create(client, prompt):
    return await client.chat.completions.create(**{**ASK, "messages": [{"role": "user", "content": prompt}]})

async def main():
    async with groq.AsyncGroq() as client:
        with batchify(batch_window_seconds=WINDOW, live_display=False) as run:
BODY

asyncio.run(main())
"""
PLAIN_LEFT = """
            await create(client, "inside")
            outside = asyncio.create_task(create(client, "awaited after it"))
            while run.progress.n_requests < 2:
                await asyncio.sleep(0)
        print("left", run.progress.n_succeeded)
        await outside
        print("answered", run.progress.n_succeeded)
"""
PLAIN_BROKEN = """
            gone_on = asyncio.create_task(create(client, "keeps running"))
            while not await batches_of(run):
                await asyncio.sleep(0.01)
            asked = asyncio.create_task(create(client, "given up"))
            while (await batches_of(run))[0].n_requests < 2:
                await asyncio.sleep(0.01)
            asked.cancel()
            await asyncio.wait([asked])
            print(run.id, flush=True)
            raise ZeroDivisionError
"""


def in_a_coroutine(body: str, window: float) -> subprocess.CompletedProcess[str]:
    script = PLAIN_IN_A_COROUTINE.replace("BODY", body).replace("WINDOW", str(window))
    return subprocess.run(
        [sys.executable, "-X", "dev", "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=50
    )


def test_a_plain_block_inside_a_coroutine_is_left_and_all_its_calls_are_answered(working: object) -> None:
    done = in_a_coroutine(PLAIN_LEFT, LINGER_S)
    left, answered = done.stdout.splitlines()
    # Both are answered when the block is left only where its process was held up.
    assert (left in ("left 1", "left 2"), answered) == (True, "answered 2"), done.stderr
    assert "Warning" not in done.stderr


SLOW_END = """
            import time
            from asyncio import runners
            cancel_all = runners._cancel_all_tasks
            def held_up(loop):
                time.sleep(0.5)
                cancel_all(loop)
            runners._cancel_all_tasks = held_up
"""


@pytest.mark.parametrize("before", ["", SLOW_END], ids=["at-once", "after-a-pause"])
async def test_a_plain_block_inside_a_coroutine_left_by_an_exception_takes_back_and_says_what_goes_on(
    before: str,
    answerer: Answerer,
) -> None:
    done = await asyncio.to_thread(in_a_coroutine, before + PLAIN_BROKEN, 60)
    assert "ZeroDivisionError" in done.stderr
    run_id = done.stdout.strip()
    # The loop ends with the program, and the call that was still awaited with it.
    assert f"2 requests of run {run_id} were withdrawn" in done.stderr
    assert "keep running" not in done.stderr
    assert "Warning" not in done.stderr
    places = [await answerer.redis.get(key) for key in await answerer.redis.keys(answerer.keys.request("*"))]
    assert [place.partition(b"|")[0] for place in places] == [b"", b""]


class OtherLoop:
    """An event loop in a thread of its own that can be held up in the middle of a turn."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.may_turn = threading.Event()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        self.loop.run_forever()
        assert self.may_turn.wait(20)
        while tasks := asyncio.all_tasks(self.loop):
            self.loop.run_until_complete(end(tasks))
        self.loop.close()

    def do(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(30)

    def hold_up(self) -> None:
        """Return once the loop is in the middle of a turn, which `may_turn` lets continue."""
        held_up = threading.Event()

        def hold() -> None:
            held_up.set()
            assert self.may_turn.wait(20)

        self.loop.call_soon_threadsafe(hold)
        assert held_up.wait(10)

    def stop_before_next_turn(self) -> None:
        """Return once the loop is in the middle of its last turn, which ends when there is more to do."""
        held_up = threading.Event()
        # While a turn is held up only other threads add to what is wanted of the next one, which never comes.
        wanted: Any = vars(self.loop)["_ready"]

        def hold() -> None:
            n_wanted = len(wanted)
            held_up.set()
            while len(wanted) == n_wanted and not self.may_turn.wait(0.001):
                pass
            self.loop.stop()

        self.loop.call_soon_threadsafe(hold)
        assert held_up.wait(10)

    def end(self) -> None:
        if self.loop.is_running():
            self.loop.call_soon_threadsafe(self.loop.stop)
        self.may_turn.set()
        self._thread.join(10)
        assert not self._thread.is_alive()


@pytest.fixture
def other_loop() -> Iterator[OtherLoop]:
    other = OtherLoop()
    yield other
    other.end()


def test_a_loop_that_is_blocked_does_not_keep_a_block_from_being_left(
    working: object, other_loop: OtherLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("batchling_client.block.background_loop.SILENCE_S", 0.3)
    with batchify(batch_window_seconds=LINGER_S) as run:
        assert other_loop.do(ask(run)).status == 200
        other_loop.hold_up()
    # Left: what is to be done on that loop is done once it turns again.
    assert run.progress.n_succeeded == 1
    other_loop.may_turn.set()
    other_loop.do(sessions_gone())


async def sessions_gone() -> None:
    mine = asyncio.current_task()
    await wait_until(lambda: asyncio.all_tasks() == {mine}, description="the session has ended")


def test_a_loop_that_stops_while_a_block_is_left_is_not_waited_for(
    working: object, other_loop: OtherLoop
) -> None:
    with batchify(batch_window_seconds=LINGER_S) as run:
        assert other_loop.do(ask(run)).status == 200
        other_loop.stop_before_next_turn()
    assert run.progress.n_succeeded == 1


class Provider(BaseHTTPRequestHandler):
    """Answers every call over HTTP, at full price."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        body = completion("full price")
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Log nothing."""


@pytest.fixture
def provider_url() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Provider) as server:
        thread = threading.Thread(target=server.serve_forever, args=[0.01])
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()
        thread.join(10)


class WithoutLoop(httpx.AsyncBaseTransport):
    """Sends calls to any host to one URL, and awaits nothing of any event loop."""

    # Like the transports of SDKs that only send, over another library.
    __module__ = "httpx_aiohttp"

    def __init__(self, url: str) -> None:
        self._url = httpx.URL(url)
        self._over = httpx.HTTPTransport()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        url = self._url.join(request.url.path)
        there = httpx.Request(request.method, url, headers=request.headers, content=await request.aread())
        response = self._over.handle_request(there)
        return httpx.Response(response.status_code, content=response.read())

    async def aclose(self) -> None:
        self._over.close()


def driven_by_hand(work: Coroutine[Any, Any, Any]) -> Any:
    """Return the coroutine's result as an event loop other than asyncio's gets it: nothing in it may wait."""
    try:
        work.send(None)
    except StopIteration as done:
        return done.value
    work.close()
    raise AssertionError("it waits")


async def create_twice(url: str) -> list[str]:
    async with httpx.AsyncClient(transport=WithoutLoop(url)) as client:
        headers = {"authorization": "Bearer gsk-test"}
        calls = [await client.post(f"https://{HOST}{PATH}", json=ASK, headers=headers) for _ in range(2)]
        return [call.json()["choices"][0]["message"]["content"] for call in calls]


def test_calls_that_another_loop_than_asyncios_awaits_pass_with_one_warning(
    provider_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    with batchify(live_display=False) as run:
        assert driven_by_hand(create_twice(provider_url)) == ["full price"] * 2
    assert run.progress.n_requests == 0
    assert caplog.text.count("awaited outside of asyncio") == 1


def test_a_dry_run_sends_nothing_for_another_loop_than_asyncios(provider_url: str) -> None:
    with pytest.raises(DryRun), batchify(dry_run=True) as run:
        driven_by_hand(create_twice(provider_url))
    assert run.progress.n_requests == 1


async def test_the_innermost_block_wins_and_the_outer_comes_back(
    answerer: Answerer, groq_client: groq.AsyncGroq
) -> None:
    async with batchify(batch_window_seconds=LINGER_S) as outer:
        async with batchify(batch_window_seconds=LINGER_S) as inner:
            await groq_client.chat.completions.create(**ASK)
        await groq_client.chat.completions.create(**ASK)
    assert (inner.progress.n_requests, outer.progress.n_requests) == (1, 1)


@pytest.mark.parametrize("is_dry", [False, True])
async def test_a_block_whose_calls_an_inner_one_caught_does_not_complain(
    answerer: Answerer, groq_client: groq.AsyncGroq, caplog: pytest.LogCaptureFixture, is_dry: bool
) -> None:
    over = pytest.raises(DryRun) if is_dry else contextlib.nullcontext()
    with caplog.at_level(logging.INFO), over:
        async with batchify() as outer, batchify(batch_window_seconds=LINGER_S, dry_run=is_dry):
            await groq_client.chat.completions.create(**ASK)
    assert "caught no call" not in caplog.text
    assert "blocks inside it" in outer.summary()


async def test_two_blocks_side_by_side_keep_apart(answerer: Answerer, groq_client: groq.AsyncGroq) -> None:
    async def one(n: int) -> int:
        async with batchify(batch_window_seconds=LINGER_S) as run:
            await asyncio.gather(*(groq_client.chat.completions.create(**ASK) for _ in range(n)))
            return run.progress.n_succeeded

    assert list(await asyncio.gather(one(1), one(3))) == [1, 3]


FORKED = """
import os, sys, groq
from batchling_client import batchify
from tests.client.asking import ASK

with batchify(batch_window_seconds=0.05, live_display=False) as run:
    with groq.Groq() as client:
        client.chat.completions.create(**ASK)
    pid = os.fork()
    if pid == 0:
        with batchify(batch_window_seconds=0.05, live_display=False) as mine, groq.Groq() as client:
            client.chat.completions.create(**ASK)
        print("child", mine.progress.n_succeeded, flush=True)
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    with groq.Groq() as client:
        client.chat.completions.create(**ASK)
print("parent", run.progress.n_succeeded, os.waitstatus_to_exitcode(status))
"""


def test_a_forked_child_starts_clean_and_opens_a_block_of_its_own(working: object) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FORKED], cwd=ROOT, capture_output=True, text=True, timeout=50
    )
    assert done.stdout.splitlines() == ["child 1", "parent 2 0"], done.stderr


LEFT_BY_CHILD = """
import asyncio, os, signal, sys, groq
from batchling_client import batchify
from batchling_client.intercept import scope
from tests.client.asking import ASK

def fork():
    pid = os.fork()
    if pid == 0:
        sys.exit(3)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

def left(how, handler):
    print("left", how.code, scope.current(), signal.getsignal(signal.SIGINT) is handler, flush=True)

def ask():
    with groq.Groq() as client:
        client.chat.completions.create(**ASK)

async def in_a_task():
    handler = signal.getsignal(signal.SIGINT)
    try:
        async with batchify(batch_window_seconds=0.05, live_display=False) as run:
            await asyncio.to_thread(ask)
            code = fork()
            await asyncio.to_thread(ask)
    except SystemExit as error:
        left(error, handler)
        # A child that came to the end of its parent's loop would take that one's connections along: asyncio's limit.
        os._exit(error.code)
    return run, code

def in_every_thread():
    handler = signal.getsignal(signal.SIGINT)
    try:
        with batchify(batch_window_seconds=0.05, live_display=False) as run:
            ask()
            code = fork()
            ask()
    except SystemExit as error:
        left(error, handler)
        raise
    return run, code

run, code = LEAVE
print("parent", run.progress.n_succeeded, code)
"""


@pytest.mark.parametrize("leave", ["in_every_thread()", "asyncio.run(in_a_task())"])
def test_a_forked_child_leaves_its_parents_block_and_the_parent_goes_on(leave: str, working: object) -> None:
    script = LEFT_BY_CHILD.replace("LEAVE", leave)
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=50
    )
    assert done.stdout.splitlines() == ["left 3 None True", "parent 2 3"], done.stderr


async def test_a_cancelled_call_is_withdrawn_before_anybody_pays(answerer: Answerer) -> None:
    async with batchify(batch_window_seconds=60) as run:
        await give_up(run, "given up")
        kept = asyncio.create_task(ask(run, "kept"))

        async def dropped() -> bool:
            return [(batch.n_requests, batch.n_dropped) for batch in await batches_of(run)] == [(2, 1)]

        await wait_until(dropped, description="the request is withdrawn")
        [batch] = await batches_of(run)
        await answerer.due(batch.batch_id)
        assert content(await kept).startswith("kept")
    assert run.progress.n_left == 1


async def give_up(run: batchling_client.Run, prompt: str) -> None:
    """Cancel a call once it is in a batch."""
    asked = asyncio.create_task(ask(run, prompt))

    async def placed() -> bool:
        return bool(await batches_of(run))

    await wait_until(placed, description="the request is in a batch")
    asked.cancel()
    await asyncio.wait([asked])
    assert asked.cancelled()


async def test_a_block_left_in_order_withdraws_what_was_cancelled_in_it(answerer: Answerer) -> None:
    async with batchify(batch_window_seconds=60) as run:
        await give_up(run, "given up")
    places = [await answerer.redis.get(key) for key in await answerer.redis.keys(answerer.keys.request("*"))]
    assert [place.partition(b"|")[0] for place in places] == [b""]


async def test_one_caller_that_leaves_does_not_take_the_request_from_another(answerer: Answerer) -> None:
    async with batchify(batch_window_seconds=0.5) as one, batchify(batch_window_seconds=0.5) as two:
        leaver = asyncio.create_task(ask(one))
        stayer = asyncio.create_task(ask(two))

        async def placed() -> bool:
            return bool(await batches_of(one)) and bool(await batches_of(two))

        await wait_until(placed, description="both are in")
        leaver.cancel()
        assert (await stayer).status == 200


async def test_a_block_left_by_an_exception_says_what_goes_on_and_how_to_get_it(
    answerer: Answerer, caplog: pytest.LogCaptureFixture
) -> None:
    answerer.go_on.clear()
    asked: list[asyncio.Task[HttpReply]] = []
    block = batchify(batch_window_seconds=LINGER_S, name="mine")

    async def break_off() -> None:
        async with block as run:
            asked.extend(asyncio.create_task(ask(run, f"prompt {i}")) for i in range(3))
            await wait_until(lambda: answerer.n_batches == 1, description="submitted")
            raise ZeroDivisionError(run.id)

    with pytest.raises(ZeroDivisionError) as left:
        await break_off()
    run_id = left.value.args[0]
    assert f"3 requests of run 'mine' {run_id} keep running" in caplog.text
    assert f"batchling show {run_id}" in caplog.text
    answerer.go_on.set()
    assert {reply.status for reply in await asyncio.gather(*asked)} == {200}


INTERRUPTED = """
import asyncio, groq
from batchling_client import batchify
from tests.client.asking import ASK

async def main():
    async with batchify(batch_size=5, batch_window_seconds=60), groq.AsyncGroq() as client:
        await asyncio.gather(*(client.chat.completions.create(**ASK) for _ in range(5)))

asyncio.run(main())
"""


async def test_ctrl_c_says_what_goes_on_and_a_rerun_attaches(answerer: Answerer) -> None:
    answerer.go_on.clear()
    caller = subprocess.Popen(
        [sys.executable, "-X", "dev", "-c", INTERRUPTED], cwd=ROOT, stderr=subprocess.PIPE, text=True
    )
    await wait_until(lambda: answerer.n_batches == 1, description="submitted", within_s=30)
    caller.send_signal(signal.SIGINT)
    _, said = await asyncio.to_thread(caller.communicate, timeout=30)
    assert "5 requests of run" in said
    assert "keep running" in said
    assert "Warning" not in said
    answerer.go_on.set()
    async with batchify(batch_window_seconds=LINGER_S) as run, groq.AsyncGroq() as client:
        await asyncio.gather(*(client.chat.completions.create(**ASK) for _ in range(5)))
        assert run.progress.n_succeeded == 5
    assert sum(answerer.times_answered.values()) == 5


async def test_a_deadline_is_an_error_in_the_providers_shape(answerer: Answerer) -> None:
    answerer.go_on.clear()
    async with batchify(batch_window_seconds=LINGER_S, deadline=0.3) as run:
        reply = await ask(run)
    assert (reply.status, error_of(reply)["code"]) == (504, "deadline_passed")
    assert run.progress.n_failed == 1


async def test_at_a_realtime_deadline_the_call_passes_and_its_batch_is_cancelled(
    answerer: Answerer, caplog: pytest.LogCaptureFixture
) -> None:
    answerer.go_on.clear()
    async with batchify(batch_window_seconds=LINGER_S, deadline="2.5s", on_deadline="realtime") as run:
        replies = await asyncio.gather(*(handler_of(run).answer(a_call(f"prompt {i}")) for i in range(3)))
        assert all(isinstance(reply, PassThrough) for reply in replies)

        async def cancelled() -> bool:
            return [batch.cancel_requested for batch in await batches_of(run)] == [True]

        await wait_until(cancelled, description="the batch is cancelled")
    assert caplog.text.count("full price") == 1


async def test_a_realtime_deadline_leaves_a_batch_of_others_alone(answerer: Answerer) -> None:
    answerer.go_on.clear()
    patient = batchify(batch_window_seconds=0.2)
    hasty = batchify(batch_window_seconds=0.2, deadline=0.5, on_deadline="realtime")
    async with patient as one, hasty as two:
        kept = asyncio.create_task(ask(one, "patient"))
        await handler_of(two).answer(a_call("hasty"))
        answerer.go_on.set()
        assert (await kept).status == 200
        assert not any(batch.cancel_requested for batch in await batches_of(one))


async def test_a_request_that_joins_a_batch_while_it_is_being_cancelled_is_asked_anew(
    answerer: Answerer,
) -> None:
    told = json.dumps({"error": {"message": "Cancelled."}}).encode()
    answers = iter([(499, told, "batch_cancelled")])
    answerer.answer = lambda row: next(answers, None) or echo(row)
    answerer.go_on.clear()

    async def elsewhere() -> HttpReply:
        async with batchify(batch_window_seconds=LINGER_S) as one:
            reply = await handler_of(one).answer(a_call("the same"))
            assert isinstance(reply, HttpReply)
            return reply

    cancelled = asyncio.create_task(asyncio.to_thread(asyncio.run, elsewhere()))
    batches: list[Batch] = []

    async def at_provider() -> bool:
        names = await answerer.redis.zrange(answerer.keys.schedule, 0, -1)
        fields = [await answerer.redis.hgetall(answerer.keys.batch(BatchId(name.decode()))) for name in names]
        batches[:] = [Batch.decode(one) for one in fields if one[b"state"] == b"submitted"]
        return len(batches) == 1

    await wait_until(at_provider, description="the batch is at its provider")
    [batch] = batches
    await answerer.scripts.cancel(
        batch_id=batch.batch_id, lane_id=batch.lane_id, ending=b"{}", error="by a person"
    )
    async with batchify(batch_window_seconds=LINGER_S) as two:
        late = asyncio.create_task(ask(two, "the same"))

        async def joined() -> bool:
            return len(await batches_of(two)) == 1

        await wait_until(joined, description="the second has joined it")
        answerer.go_on.set()
        assert (await late).status == 200
        # It was in the cancelled batch and gets that error, unless it looks after the other call was enqueued anew.
        assert (await cancelled).status in (499, 200)
        assert two.progress.n_succeeded == 1
    assert answerer.n_batches == 2


async def test_requests_too_few_for_a_batch_are_an_error_or_pass_as_asked(
    answerer: Answerer, caplog: pytest.LogCaptureFixture
) -> None:
    too_few = json.dumps({"error": {"message": "Too few."}}).encode()
    answerer.answer = lambda row: (400, too_few, "batch_too_small")
    async with batchify(batch_window_seconds=LINGER_S) as run:
        reply = await ask(run, "alone")
        assert (reply.status, reply.headers["x-batchling-error"]) == (400, "batch_too_small")
    async with batchify(batch_window_seconds=LINGER_S, on_too_few="realtime") as run:
        replies = await asyncio.gather(*(handler_of(run).answer(a_call(f"prompt {i}")) for i in range(3)))
        assert (run.progress.n_realtime, run.progress.n_waiting) == (0, 3)
        passed = [reply for reply in replies if isinstance(reply, PassThrough)]
        for one in passed:
            with one:
                pass  # the library sends the call
        assert (run.progress.n_realtime, run.progress.n_answered, run.progress.n_failed) == (3, 3, 0)
    assert caplog.text.count("full price") == 1


async def test_a_dry_run_counts_gathered_calls_and_ends_the_block(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, groq_client: groq.AsyncGroq
) -> None:
    monkeypatch.setenv("BATCHLING_REDIS_URL", "redis://127.0.0.1:1")
    monkeypatch.setattr("batchling_client.block.dry_run.QUIET_S", 2.0)
    after = False
    with pytest.raises(DryRun, match="5 requests were counted"):  # noqa: PT012 - its last line must not run
        async with batchify(dry_run=True, batch_size=2) as run:
            await asyncio.gather(*(groq_client.chat.completions.create(**ASK) for _ in range(5)))
            after = True
    assert not after
    assert run.progress.n_requests == 5
    assert "5 requests in 3 batches" in run.summary()
    assert "Dry run" in capfd.readouterr().err


def test_a_dry_run_ends_a_blocking_block_too() -> None:
    with (  # noqa: PT012 - the block ends where its calls are awaited
        pytest.raises(DryRun),
        batchify(dry_run=True) as run,
        groq.Groq() as client,
        ThreadPoolExecutor(4) as pool,
    ):
        for asked in [pool.submit(lambda: client.chat.completions.create(**ASK)) for _ in range(4)]:
            asked.result()
    assert run.progress.n_requests == 4


async def test_a_dry_run_hides_what_a_program_logs_of_its_ended_calls(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """Evaluation tools log each call that fails, with a traceback; the report says instead what was not counted."""

    async def logs_its_end(run: Run, text: str) -> None:
        try:
            await ask(run, text)
        except BaseException:
            logging.getLogger("program").exception("no answer to %s", text)
            raise

    with pytest.raises(DryRun):  # noqa: PT012 - the block ends where its calls are awaited
        async with batchify(dry_run=True) as run:
            logging.getLogger("program").error("before")
            await asyncio.gather(*(logs_its_end(run, f"prompt {n}") for n in range(3)))
    logging.getLogger("program").error("after")

    said = [record.getMessage() for record in caplog.records if record.name == "program"]
    assert said == ["before", "after"]
    assert "Calls that wait for the answers of others" in run.summary()
    assert "Traceback" not in capfd.readouterr().err


async def test_a_dry_run_does_not_swallow_what_is_not_its_own() -> None:
    async def broken() -> None:
        async with batchify(dry_run=True) as run:
            with pytest.raises(DryRun):
                await ask(run)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await broken()

    async def cancelled() -> None:
        async with batchify(dry_run=True) as run:
            with contextlib.suppress(DryRun):
                await ask(run)
            await asyncio.Event().wait()

    task = asyncio.create_task(cancelled())
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(task, 0.5)


async def test_redis_away_at_the_start_is_a_clear_error_without_the_password(
    threads_left: Callable[[], list[str]],
) -> None:
    for url in ("redis://:s3cret@127.0.0.1:1/0", "unix:///nowhere/redis.sock"):
        with pytest.raises(QueueUnreachable) as caught:
            async with batchify(redis_url=url):
                pass
        assert "cannot be reached" in str(caught.value)
        assert "s3cret" not in str(caught.value)
    with pytest.raises(QueueUnreachable), batchify(redis_url="redis://127.0.0.1:1"):
        pass
    assert not threads_left()


async def test_nobody_working_is_said_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("batchling_client.operate.worker_presence.PATIENCE_S", 0.2)
    monkeypatch.setattr("batchling_client.operate.worker_presence.LOOK_EVERY_S", 0.05)
    async with batchify(batch_window_seconds=LINGER_S) as run:
        await ask_all_until(run, lambda: "No worker is alive" in caplog.text)
    assert caplog.text.count("No worker is alive") == 1
    assert "celery -A batchling_worker worker" in caplog.text


async def ask_all_until(run: batchling_client.Run, condition: Any) -> None:
    asked = asyncio.create_task(ask_all(run, "a", "b"))
    await wait_until(condition, description="it is said")
    asked.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await asked


async def test_workers_with_another_seal_key_are_a_clear_error(
    redis_server: RedisServer, namespace: str
) -> None:
    other, _ = sealing.new_pair()
    announce(redis_server, namespace, sealing.digest(other))
    with pytest.raises(WrongSettings, match="BATCHLING_SEAL_PUBLIC_KEY"):
        async with batchify():
            pass


async def test_a_worker_with_our_seal_key_is_nothing_to_speak_of(
    redis_server: RedisServer,
    namespace: str,
    tmp_path: Path,
    answerer: Answerer,
    caplog: pytest.LogCaptureFixture,
) -> None:
    announce(redis_server, namespace, sealing.digest(seal_key_files.stored_pair(tmp_path)[0]))
    async with batchify(batch_window_seconds=LINGER_S) as run:
        await ask(run)
    assert "worker" not in caplog.text


def announce(server: RedisServer, namespace: str, digest: str) -> None:
    keys = Keys(namespace)
    presence = WorkerPresence(name="w1", pid=1, version="0", pool="threads", seal_public_key=digest)
    with server.client() as client:
        client.set(keys.worker("w1"), presence.encode(), ex=15)
        client.zadd(keys.workers, {"w1": 1})
        client.expire(keys.workers, 60)


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        ({"batch_size": 0}, "batch_size"),
        ({"batch_size": 1.5}, "batch_size"),
        ({"batch_window_seconds": -1}, "batch_window_seconds"),
        ({"batch_poll_interval_seconds": float("nan")}, "batch_poll_interval_seconds"),
        ({"completion_window": "169h"}, "completion_window"),
        ({"deadline": "soon"}, "deadline"),
        ({"deadline": 0}, "deadline"),
        ({"on_deadline": "panic"}, "on_deadline"),
        ({"redis_url": "http://example.org"}, "redis://"),
        ({"redis_url": "redis://:s3cret@host:port"}, "REDIS_URL"),
    ],
)
def test_wrong_parameters_are_one_clear_sentence(wrong: dict[str, Any], word: str) -> None:
    with pytest.raises(WrongSettings, match=word) as caught:
        batchify(**wrong)
    assert "s3cret" not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize(
    ("name", "value"), [("NAMESPACE", "a{b}"), ("SEAL_PUBLIC_KEY", "short"), ("REDIS_URL", "ftp://x")]
)
def test_wrong_settings_name_their_variable(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"BATCHLING_{name}", value)
    with pytest.raises(WrongSettings, match=f"^BATCHLING_{name} "):
        batchify()


def test_an_unreadable_seal_key_is_a_clear_error(tmp_path: Path) -> None:
    seal_key_files.stored_pair(tmp_path)
    (tmp_path / "keys" / "seal.key").write_text("nonsense")
    with pytest.raises(WrongSettings, match="seal key"), batchify():
        pass


async def test_a_block_is_entered_once() -> None:
    block = batchify(dry_run=True)
    async with block:
        pass
    with pytest.raises(RuntimeError, match="once"):
        async with block:
            pass


@pytest.mark.usefixtures("nothing_intercepted")
async def test_a_library_that_slips_past_is_an_error_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("batchling_client.intercept.switch.install", lambda: None)
    with pytest.raises(batchling_client.NotIntercepted, match="full price"):
        async with batchify(dry_run=True):
            pass


def test_the_seeds_import_is_the_same_object() -> None:
    assert batchling.batchify is batchling_client.batchify
    assert batchling_client.__all__ == sorted(batchling_client.__all__)


def test_importing_the_client_imports_no_celery_and_no_http_library() -> None:
    code = (
        "import sys, batchling; "
        "print([m for m in ('celery','kombu','httpx','httpx2','aiohttp','requests','rich') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ})
    assert done.stdout.strip() == "[]"


def test_a_worker_imports_the_wire_and_not_the_rest_of_the_client() -> None:
    """Each process of a worker, and the first block that starts a stack, would wait for the imports."""
    code = (
        "import sys, batchling_worker.stack.worker_settings, batchling_worker.store; "
        "print(sorted(name for name in sys.modules if name.startswith('batchling_client.') "
        "and not name.startswith(('batchling_client.wire', 'batchling_client.errors'))))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ})
    assert done.stdout.strip() == "[]", done.stderr


@pytest.mark.parametrize("name", ["Progress", "Run", "batchify", "outside", "__version__"])
def test_every_public_name_can_be_imported_first(name: str) -> None:
    code = f"from batchling_client import {name}; import batchling_client; assert '{name}' in dir(batchling_client)"
    subprocess.run([sys.executable, "-c", code], check=True)


async def test_a_block_inside_a_dry_run_sends_nothing_either(
    groq_client: groq.AsyncGroq, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("batchling_client.block.dry_run.QUIET_S", 2.0)
    with pytest.raises(DryRun):  # noqa: PT012 - two blocks
        async with batchify(dry_run=True) as outer, batchify() as inner:
            assert handler_of(inner).is_dry
            await asyncio.gather(*(groq_client.chat.completions.create(**ASK) for _ in range(3)))
    assert (inner.progress.n_requests, outer.progress.n_requests) == (3, 0)
