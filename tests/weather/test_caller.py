"""Between a caller and its Redis: each call is answered and queued once, and never hangs, in plain blocks too."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeAlias

import pytest

from batchling_client import batchify
from batchling_client.block.run import handler_of
from batchling_client.errors import QueueUnreachable
from batchling_client.intercept.interceptor import HttpReply
from batchling_client.session import waiters
from batchling_client.wire.deployment.cancellation import end
from batchling_client.wire.deployment.connection import connect
from tests.client.answerer import Answerer
from tests.client.asking import a_call, ask_all
from tests.client.conftest import RedisServer
from tests.proxy import How, Proxy, Rule, Way
from tests.waiting import wait_until

NAME = "run-of-bad-weather"
"""Bytes that only the call of an enqueue contains: the name of its run."""
PROMPTS = [f"prompt {i}" for i in range(60)]
LINGER_S = 0.05
BOUND_S = 40.0
"""Seconds within which a test must end, on a busy machine, too."""

AskThrough: TypeAlias = Callable[[], Coroutine[Any, Any, list[HttpReply]]]


@pytest.fixture
async def answerer(redis_server: RedisServer, caller: Proxy) -> AsyncIterator[Answerer]:
    """Play workers and provider, over a direct connection to Redis."""
    worker = Answerer(redis_server.url, "default")
    task = asyncio.create_task(worker.work())
    yield worker
    await end([task])
    await worker.redis.aclose()


async def ask_async() -> list[HttpReply]:
    async with batchify(batch_window_seconds=LINGER_S, name=NAME, live_display=False) as run:
        return await ask_all(run, *PROMPTS, key="gsk-CANARY")


def ask_in_threads() -> list[HttpReply]:
    with (
        batchify(batch_window_seconds=LINGER_S, name=NAME, live_display=False) as run,
        ThreadPoolExecutor(len(PROMPTS)) as pool,
    ):
        calls = [a_call(prompt, key="gsk-CANARY") for prompt in PROMPTS]
        return [
            reply
            for reply in pool.map(handler_of(run).answer_blocking, calls)
            if isinstance(reply, HttpReply)
        ]


async def ask_blocking() -> list[HttpReply]:
    return await asyncio.to_thread(ask_in_threads)


@pytest.fixture(params=[ask_async, ask_blocking], ids=["async", "blocking"])
def ask_through(request: pytest.FixtureRequest) -> AskThrough:
    through: AskThrough = request.param
    return through


async def answered_once(asking: Coroutine[Any, Any, list[HttpReply]], answerer: Answerer) -> None:
    replies = await asyncio.wait_for(asking, BOUND_S)
    assert [reply.status for reply in replies] == [200] * len(PROMPTS)
    assert len(answerer.times_answered) == len(PROMPTS)
    assert set(answerer.times_answered.values()) == {1}


async def n_queued(answerer: Answerer) -> int:
    """Return the number of rows in all batches ever opened."""
    n_rows = 0
    for batch_id in await answerer.redis.zrange(answerer.keys.batches, 0, -1):
        n_rows += int(await answerer.redis.hget(answerer.keys.batch(batch_id.decode()), "n_requests"))
    return n_rows


async def test_latency_of_200_ms_each_way_costs_only_time(
    answerer: Answerer, caller: Proxy, ask_through: AskThrough
) -> None:
    caller.slow(latency_s=0.2)
    await answered_once(ask_through(), answerer)
    assert caller.most_open <= 10


@pytest.mark.parametrize("how", [How.RST, How.FIN, How.SILENCE])
@pytest.mark.parametrize(
    ("way", "at"),
    [(Way.UP, 0), (Way.UP, 2000), (Way.DOWN, 0), (Way.DOWN, 10)],
    ids=["on its way", "half sent", "done, no reply", "done, half a reply"],
)
async def test_a_torn_enqueue_is_sent_again_and_queued_once(
    answerer: Answerer, caller: Proxy, how: How, way: Way, at: int
) -> None:
    torn = caller.add(Rule(how=how, way=way, at=at, after=NAME.encode()))

    await answered_once(ask_async(), answerer)

    assert torn.n_struck == 1
    assert await n_queued(answerer) == len(PROMPTS)


async def test_a_torn_enqueue_of_blocking_calls_is_queued_once(answerer: Answerer, caller: Proxy) -> None:
    torn = caller.add(Rule(how=How.RST, way=Way.DOWN, after=NAME.encode(), times=3))

    await answered_once(ask_blocking(), answerer)

    assert torn.n_struck >= 1
    assert await n_queued(answerer) == len(PROMPTS)


@pytest.mark.parametrize("how", [How.RST, How.SILENCE])
@pytest.mark.parametrize("at", [0, 1, 3000])
async def test_answers_torn_while_they_are_read_are_read_again(
    answerer: Answerer, caller: Proxy, ask_through: AskThrough, how: How, at: int
) -> None:
    torn = caller.add(Rule(how=how, way=Way.DOWN, at=at, after=b"MGET"))
    await answered_once(ask_through(), answerer)
    assert torn.n_struck == 1


async def test_a_silently_dead_subscription_is_renewed_within_seconds(
    answerer: Answerer, caller: Proxy, ask_through: AskThrough, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiters, "QUIET_S", 0.3)
    monkeypatch.setattr(waiters, "PONG_S", 0.3)
    answerer.go_on.clear()
    silent = caller.add(Rule(how=How.SILENCE, way=Way.DOWN, after=b"SUBSCRIBE"))

    asking = asyncio.create_task(ask_through())

    await wait_until(lambda: silent.n_heard >= 2, description="it subscribes anew", within_s=20)
    answerer.go_on.set()
    await answered_once(_awaited(asking), answerer)


async def test_answers_arrive_without_a_working_subscription(
    answerer: Answerer, caller: Proxy, ask_through: AskThrough
) -> None:
    silent = caller.add(Rule(how=How.SILENCE, way=Way.DOWN, after=b"SUBSCRIBE", times=None))
    await answered_once(ask_through(), answerer)
    assert silent.n_struck >= 1


async def test_silently_dead_connections_are_noticed_in_bounded_time(
    answerer: Answerer, caller: Proxy, ask_through: AskThrough
) -> None:
    answerer.go_on.clear()
    asking = asyncio.create_task(ask_through())
    await wait_until(lambda: answerer.n_batches >= 1, description="a batch is submitted", within_s=20)
    caller.silence()
    caller.heal()
    answerer.go_on.set()
    await answered_once(_awaited(asking), answerer)


async def frozen(redis_server: RedisServer, seconds: float) -> None:
    """Freeze Redis for a while: its sockets accept data, and nothing answers."""
    assert redis_server.process is not None
    redis_server.process.send_signal(signal.SIGSTOP)
    try:
        await asyncio.sleep(seconds)
    finally:
        redis_server.process.send_signal(signal.SIGCONT)


@pytest.mark.parametrize("seconds", [0.5, 3.0])
async def test_waiting_and_new_calls_wait_for_a_frozen_redis(
    answerer: Answerer, redis_server: RedisServer, seconds: float
) -> None:
    answerer.go_on.clear()
    async with batchify(batch_window_seconds=LINGER_S, live_display=False) as run:
        before = asyncio.create_task(ask_all(run, *PROMPTS[:30]))
        await wait_until(lambda: answerer.n_batches >= 1, description="a batch is submitted", within_s=20)
        frost = asyncio.create_task(frozen(redis_server, seconds))
        await asyncio.sleep(0)
        during = asyncio.create_task(ask_all(run, *PROMPTS[30:]))
        await frost
        answerer.go_on.set()
        replies = await asyncio.wait_for(asyncio.gather(before, during), BOUND_S)
    assert {reply.status for part in replies for reply in part} == {200}
    assert set(answerer.times_answered.values()) == {1}
    assert await n_queued(answerer) == len(PROMPTS)


async def test_blocking_calls_wait_for_a_frozen_redis(answerer: Answerer, redis_server: RedisServer) -> None:
    answerer.go_on.clear()
    asking = asyncio.create_task(ask_blocking())
    await wait_until(lambda: answerer.n_batches >= 1, description="a batch is submitted", within_s=20)
    await frozen(redis_server, 3.0)
    answerer.go_on.set()
    await answered_once(_awaited(asking), answerer)


async def test_a_storm_of_resets_opens_few_connections(
    answerer: Answerer, caller: Proxy, ask_through: AskThrough
) -> None:
    answerer.go_on.clear()
    asking = asyncio.create_task(ask_through())
    await wait_until(lambda: answerer.n_batches >= 1, description="a batch is submitted", within_s=20)
    n_before = caller.n_connections
    for _ in range(40):
        caller.strike(How.RST)
        await asyncio.sleep(0.05)
    n_storm = caller.n_connections - n_before
    answerer.go_on.set()
    await answered_once(_awaited(asking), answerer)
    assert caller.most_open <= 12
    assert n_storm <= 40 * 4


async def test_reconnects_to_a_closed_port_are_limited(
    answerer: Answerer, caller: Proxy, caplog: pytest.LogCaptureFixture
) -> None:
    answerer.go_on.clear()
    asking = asyncio.create_task(ask_async())
    await wait_until(lambda: answerer.n_batches >= 1, description="a batch is submitted", within_s=20)
    caller.refuse()
    caller.strike(How.RST)
    await wait_until(lambda: "Redis is away" in caplog.text, description="the outage is logged", within_s=20)
    caller.heal()
    answerer.go_on.set()
    await answered_once(_awaited(asking), answerer)
    assert "gsk-CANARY" not in caplog.text


async def test_a_block_over_a_silent_redis_fails_at_its_start_in_bounded_time(
    caller: Proxy, ask_through: AskThrough
) -> None:
    caller.silence()
    with pytest.raises(QueueUnreachable):
        await asyncio.wait_for(ask_through(), BOUND_S)


async def test_a_connection_that_breaks_after_the_start_of_a_block_does_not_end_the_program(
    answerer: Answerer, caller: Proxy, ask_through: AskThrough
) -> None:
    torn = caller.add(Rule(how=How.RST, way=Way.UP, after=b"workers"))
    await answered_once(ask_through(), answerer)
    assert torn.n_struck == 1


async def test_commands_beyond_the_number_of_connections_wait(caller: Proxy) -> None:
    caller.slow(latency_s=0.02)
    redis = connect(caller.url, max_connections=8)
    try:
        values = await asyncio.gather(*(redis.get(f"key {i}") for i in range(100)))
    finally:
        await redis.aclose()
    assert values == [None] * 100
    assert caller.most_open <= 8


async def _awaited(task: asyncio.Task[list[HttpReply]]) -> list[HttpReply]:
    return await task


def test_the_longest_silence_of_a_default_session_is_bounded() -> None:
    pool = connect("redis://127.0.0.1:1").connection_pool
    assert pool.connection_kwargs["socket_timeout"] <= 10
    assert pool.connection_kwargs["socket_connect_timeout"] <= 5
    assert pool.connection_kwargs["health_check_interval"] <= 10
    assert waiters.DRAIN_PERIOD_S <= 5
