"""Cancelling withdraws unsubmitted requests; submitted batches keep running, and a rerun gets their answers."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from batchling_client import Run, batchify
from batchling_client.intercept.interceptor import HttpReply
from batchling_client.wire.deployment.cancellation import end
from batchling_client.wire.keys import BatchId, LaneId, ProviderBatchId
from batchling_client.wire.states import BatchState, Outcome
from tests.waiting import wait_until

from .answerer import LEASE_MS, Answerer
from .asking import ask, batches_of
from .conftest import RedisServer

LINGER_S = 0.05
ROOT = Path(__file__).parents[2]
EARLY = (BatchState.OPEN, BatchState.SEALED)
Asked = Callable[[], Coroutine[Any, Any, HttpReply]]
Way = Callable[[Asked, asyncio.Event], Coroutine[Any, Any, None]]
LATE = (BatchState.SUBMITTING, BatchState.SUBMITTED, BatchState.ENDED)


@pytest.fixture
async def byhand(redis_server: RedisServer, namespace: str) -> AsyncIterator[Answerer]:
    """A worker that does only what a test says."""
    worker = Answerer(redis_server.url, namespace)
    yield worker
    await worker.redis.aclose()


async def the_batch(run: Run) -> BatchId:
    async def placed() -> bool:
        return bool(await batches_of(run))

    await wait_until(placed, description="the requests are in a batch")
    return (await batches_of(run))[0].batch_id


async def move_to(worker: Answerer, batch_id: BatchId, state: BatchState) -> None:
    """Take a batch to that state, and leave it there."""
    scripts, provider_batch_id = worker.scripts, ProviderBatchId("batch_1")
    lane_id = LaneId((await worker.redis.hget(worker.keys.batch(batch_id), "lane")).decode())
    moves: list[Callable[[int], Coroutine[Any, Any, object]]] = [
        lambda token: scripts.seal(batch_id=batch_id, token=token, lane_id=lane_id),
        lambda token: scripts.intend(batch_id=batch_id, token=token, label="label"),
        lambda token: scripts.submitted(
            batch_id=batch_id, token=token, provider_batch_id=provider_batch_id, delay_s=0
        ),
        lambda token: scripts.ended(
            batch_id=batch_id, token=token, outcome=Outcome.COMPLETED, status="", ending=b"{}", error=""
        ),
    ]
    for move in moves[: (*EARLY, *LATE).index(state)]:
        await worker.redis.zadd(worker.keys.schedule, {batch_id: 0})
        [claim] = await scripts.claim(batch_ids=[batch_id], lease_ms=LEASE_MS)
        await move(claim.token)


async def time_out(asked: Asked, given_up: asyncio.Event) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(30) as limit:
            call = asyncio.create_task(_reschedule(limit, given_up))
            try:
                await asked()
            finally:
                await call


async def _reschedule(limit: asyncio.Timeout, given_up: asyncio.Event) -> None:
    await given_up.wait()
    limit.reschedule(asyncio.get_running_loop().time())


async def fail_a_group(asked: Asked, given_up: asyncio.Event) -> None:
    async def fails() -> None:
        await given_up.wait()
        raise ZeroDivisionError

    with contextlib.suppress(BaseExceptionGroup):
        async with asyncio.TaskGroup() as group:
            group.create_task(asked())
            group.create_task(fails())


async def cancel_a_gather(asked: Asked, given_up: asyncio.Event) -> None:
    gathered = asyncio.gather(asked(), given_up.wait())
    await given_up.wait()
    gathered.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await gathered


WAYS = [time_out, fail_a_group, cancel_a_gather]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("state", [*EARLY, *LATE])
async def test_a_call_that_is_given_up_is_taken_back_in_every_state_before_submission_and_none_after(
    byhand: Answerer,
    state: BatchState,
    way: Way,
) -> None:
    given_up = asyncio.Event()
    async with batchify(batch_window_seconds=60) as run:
        giving_up = asyncio.create_task(way(lambda: ask(run, "given up"), given_up))
        kept = asyncio.create_task(ask(run, "kept"))
        batch_id = await the_batch(run)
        await wait_until(lambda: run.progress.n_requests == 2, description="both asked")
        await move_to(byhand, batch_id, state)
        given_up.set()
        await giving_up
        if state in EARLY:
            await wait_until(lambda: was_dropped(byhand, batch_id), description="it is withdrawn")
        await byhand.redis.zadd(byhand.keys.schedule, {batch_id: 0})
        work = asyncio.create_task(byhand.work())
        assert (await kept).status == 200
        await end([work])
    assert await was_dropped(byhand, batch_id) is (state in EARLY)
    assert len(await byhand.redis.keys(byhand.keys.result("*"))) == (1 if state in EARLY else 2)


async def was_dropped(worker: Answerer, batch_id: BatchId) -> bool:
    return bool(await worker.redis.hget(worker.keys.batch(batch_id), "n_dropped") == b"1")


async def test_an_exception_in_the_block_drops_what_is_not_submitted_and_the_rest_is_had_by_a_rerun(
    byhand: Answerer, caplog: pytest.LogCaptureFixture
) -> None:
    """Two lanes: the one is at the provider when the block breaks off, the other still lingers."""

    async def both(run: Run) -> list[HttpReply]:
        at_provider = [ask(run, f"a{i}", model="fast") for i in range(3)]
        lingering = [ask(run, f"b{i}", model="slow") for i in range(2)]
        return list(await asyncio.gather(*at_provider, *lingering))

    async def break_off() -> None:
        async with batchify(batch_window_seconds=60) as run:
            asked = asyncio.create_task(both(run))
            await wait_until(lambda: placed(run, 2), description="two batches")
            [fast] = [batch for batch in await batches_of(run) if batch.spec.model == "fast"]
            await move_to(byhand, fast.batch_id, BatchState.SUBMITTED)
            asked.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await asked
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await break_off()
    assert "3 requests of run" in caplog.text
    assert "keep running without this program" in caplog.text
    assert "2 requests of run" in caplog.text
    assert "were withdrawn before they were submitted" in caplog.text

    work = asyncio.create_task(byhand.work())
    async with batchify(batch_window_seconds=LINGER_S) as run:
        assert {reply.status for reply in await both(run)} == {200}
    await end([work])
    assert set(byhand.times_answered.values()) == {1}
    assert len(byhand.times_answered) == 5


async def placed(run: Run, n_batches: int) -> bool:
    return len(await batches_of(run)) == n_batches


CTRL_C_EARLY = """
import asyncio, groq
from batchling_client import batchify
from tests.client.asking import ASK

async def main():
    async with batchify(batch_window_seconds=60), groq.AsyncGroq() as client:
        await asyncio.gather(*(client.chat.completions.create(**ASK) for _ in range(5)))

asyncio.run(main())
"""


async def test_ctrl_c_before_the_submission_takes_everything_back(answerer: Answerer) -> None:
    caller = program(CTRL_C_EARLY)
    await wait_until(lambda: n_placed(answerer, 5), description="placed", within_s=30)
    caller.send_signal(signal.SIGINT)
    _, said = await asyncio.to_thread(caller.communicate, timeout=30)
    assert "5 requests of run" in said
    assert "were withdrawn" in said
    assert "keep running without" not in said
    assert all(place.startswith(b"|") for place in await places(answerer))


POOL = """
import groq
from concurrent.futures import ThreadPoolExecutor
from batchling_client import batchify
from tests.client.asking import ASK

with batchify(batch_size=SIZE, batch_window_seconds=60), groq.Groq() as client, ThreadPoolExecutor(4) as pool:
    asked = [pool.submit(client.chat.completions.create, **ASK) for _ in range(40)]
    [one.result() for one in asked]
"""


@pytest.mark.parametrize("submitted", [True, False])
async def test_one_ctrl_c_releases_every_thread_of_a_pool_in_a_plain_block(
    answerer: Answerer, submitted: bool
) -> None:
    """The pool waits for its threads before the block is left: without a release it would hang for hours."""
    answerer.go_on.clear()
    caller = program(POOL.replace("SIZE", "4" if submitted else "None"))
    ready = (lambda: answerer.n_batches == 1) if submitted else (lambda: n_placed(answerer, 4))
    await wait_until(ready, description="four threads wait", within_s=30)
    caller.send_signal(signal.SIGINT)
    _, said = await asyncio.to_thread(caller.communicate, timeout=30)
    assert caller.returncode == -signal.SIGINT, said
    assert said.rstrip().endswith("KeyboardInterrupt")
    assert "4 requests of run" in said
    assert ("keep running without" in said) is submitted
    assert ("were withdrawn" in said) is not submitted
    assert len([place for place in await places(answerer) if not place.startswith(b"|")]) == 4 * submitted


THREADS_OF_AN_ASYNC_BLOCK = """
import asyncio, groq
from batchling_client import batchify
from tests.client.asking import ASK

async def main():
    async with batchify(batch_size=3, batch_window_seconds=60):
        with groq.Groq() as client:
            calls = [asyncio.to_thread(client.chat.completions.create, **ASK) for _ in range(3)]
            await asyncio.gather(*calls)

asyncio.run(main())
"""


async def test_one_ctrl_c_releases_the_threads_of_an_async_block_too(answerer: Answerer) -> None:
    """`asyncio.run` waits for the threads of its default pool before the program may end."""
    answerer.go_on.clear()
    caller = program(THREADS_OF_AN_ASYNC_BLOCK)
    await wait_until(lambda: answerer.n_batches == 1, description="three threads wait", within_s=30)
    caller.send_signal(signal.SIGINT)
    _, said = await asyncio.to_thread(caller.communicate, timeout=30)
    assert "3 requests of run" in said


def program(code: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stderr=subprocess.PIPE, text=True)


async def places(worker: Answerer) -> list[bytes]:
    names = await worker.redis.keys(worker.keys.request("*"))
    return [place for place in await worker.redis.mget(names) if place is not None] if names else []


async def n_placed(worker: Answerer, n: int) -> bool:
    return len(await places(worker)) == n


def test_ctrl_c_is_handled_as_before_once_the_last_plain_block_is_left() -> None:
    before = signal.getsignal(signal.SIGINT)
    with batchify(dry_run=True), batchify(dry_run=True):
        assert signal.getsignal(signal.SIGINT) is not before
    assert signal.getsignal(signal.SIGINT) is before


def test_a_programs_own_handling_of_ctrl_c_is_left_alone() -> None:
    def own(number: int, frame: object) -> None:
        raise SystemExit(3)

    before = signal.signal(signal.SIGINT, own)
    try:
        with batchify(dry_run=True):
            assert signal.getsignal(signal.SIGINT) is own
    finally:
        signal.signal(signal.SIGINT, before)
