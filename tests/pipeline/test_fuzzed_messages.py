"""A worker outlives every message: raw bytes and broken envelopes in Celery's lists and on its channels."""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import os
import random
import zlib
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from batchling_client.wire.keys import broker_prefix
from batchling_worker.app import make_app
from batchling_worker.runtime.wire_versions import queue_of
from batchling_worker.settings import WorkerSettings
from tests.deployment import Deployment
from tests.pages.browser import Browser, running_flower
from tests.waiting import wait_until

N_FUZZED = int(os.environ.get("FUZZED_MESSAGES", "100000"))
SEED = int(os.environ.get("FUZZED_SEED", "7"))
LIST = broker_prefix("default") + queue_of(1)
COMMANDS_CHANNEL = broker_prefix("default") + "/0.celery.pidbox"
EVENTS_CHANNEL = broker_prefix("default") + "/0.celeryev/worker.heartbeat"


def envelope(body: bytes, *, headers: object = None, encoding: str = "utf-8", **properties: object) -> bytes:
    """Return a message as kombu stores it."""
    return json.dumps(
        {
            "body": base64.b64encode(body).decode(),
            "content-encoding": encoding,
            "content-type": "application/json",
            "headers": {"task": "batchling.submit", "id": "foreign"} if headers is None else headers,
            "properties": {
                "body_encoding": "base64",
                "delivery_tag": "tag",
                "delivery_info": {"exchange": "", "routing_key": "batchling"},
                **properties,
            },
        }
    ).encode()


def step(body: bytes = b'[["b", 1], {}, {}]', **headers: object) -> bytes:
    """Return a message that names a task of batchling."""
    return envelope(body, headers={"task": "batchling.submit", "id": "x", **headers})


def command(method: str, arguments: object = None, **fields: object) -> bytes:
    """Return a remote command to every worker, or to those that `fields` choose."""
    return envelope(
        json.dumps({"method": method, "arguments": arguments or {}, **fields}).encode(), headers={}
    )


BROKEN = (
    b"\xff\xfe no JSON",
    b"1",
    b"null",
    b"[1,2]",
    b"{}",
    b'{"body": "e30=", "headers": {}}',
    b"[" * 200_000,
    envelope(b"[" * 200_000),
    envelope(b"x", body_encoding="rot13"),
    envelope(b"x", delivery_info=None),
    envelope(b"x", delivery_tag=None),
    envelope(b"x", headers=[1]),
    envelope(b"x", headers={"task": []}),
    envelope(b"x", headers={"task": "batchling.submit"}),
    envelope(gzip.compress(b" " * 50_000_000), headers={"task": "x", "compression": "application/x-gzip"}),
    envelope(zlib.compress(b" " * 50_000_000), encoding="zip"),
    envelope(b"x", headers={"task": "x" * 1_000_000, "id": "x"}),
    step(eta="nonsense", expires="nonsense"),
    step(eta="9999-12-31T23:59:59+00:00"),
    step(timelimit=[1, 1]),
    step(b'[["b", 1e400], {}, {}]'),
    step(b'[["b", {"__type__": "decimal", "__value__": "1e999999999"}], {}, {}]'),
    step(b'[["b", 1], {}, {"callbacks": [{"task": "celery.backend_cleanup", "args": [], "kwargs": {}}]}]'),
)
COMMANDS = (
    command("shutdown"),
    command("cancel_consumer", {"queue": queue_of(1)}),
    command("pool_shrink", {"n": 100}),
    command("pool_grow", {"n": "x"}),
    command("ping", {"x": 1}),
    command("hello", {"from_node": "x", "revoked": ["x"]}),
    command("ping", pattern="(.|.)*!", matcher="pcre"),
    envelope(b"[1]", headers={}),
    envelope(b"{}", headers={"clock": "x"}),
)


def fuzzed(dice: random.Random) -> bytes:
    """Return raw bytes, or a message with some of its bytes changed."""
    if dice.random() < 0.3:
        return dice.randbytes(dice.randrange(200)) or b"\0"
    message = bytearray(dice.choice([one for one in (*BROKEN, *COMMANDS) if len(one) < 2_000]))
    for _ in range(dice.randrange(1, 6)):
        message[dice.randrange(len(message))] = dice.randrange(256)
    return bytes(message)


async def outlives(deployment: Deployment, messages: list[bytes], *, within_s: float = 60) -> None:
    """Push and publish the messages; the workers read them all, live, and answer the next request."""
    workers = [deployment.worker(), deployment.worker(options="")]
    await deployment.answered(await deployment.ask(1))
    await listened_to(deployment, COMMANDS_CHANNEL, n_listeners=2)
    await listened_to(deployment, EVENTS_CHANNEL, n_listeners=1)

    def alive() -> bool:
        assert [worker.poll() for worker in workers] == [None, None], deployment.worker_logs()[-2000:]
        return True

    for start in range(0, len(messages), 500):
        chunk = messages[start : start + 500]
        async with deployment.redis.pipeline(transaction=False) as pipe:
            pipe.lpush(LIST, *chunk)
            for one in chunk:
                pipe.publish(COMMANDS_CHANNEL, one)
                pipe.publish(EVENTS_CHANNEL, one)
            await pipe.execute()

        async def read() -> bool:
            return alive() and not await deployment.redis.llen(LIST)

        await wait_until(read, description="the workers have read the list", within_s=within_s)

    async def answers() -> bool:
        # A worker that has just read a faulty command subscribes again, and misses what is published meanwhile.
        return alive() and await asyncio.to_thread(ping, deployment, "w0@test", "w1@test", timeout_s=2)

    await wait_until(answers, description="the workers answer a command", within_s=within_s)
    results = await deployment.answered(await deployment.ask(5, model="another"))
    assert {result.status for result in results} == {200}
    assert alive()


async def listened_to(deployment: Deployment, channel: str, *, n_listeners: int) -> None:
    """Wait until as many workers listen to a channel."""

    async def listened() -> bool:
        return await deployment.redis.publish(channel, "0") >= n_listeners

    await wait_until(listened, description=f"{n_listeners} workers listen to {channel}")


def ping(deployment: Deployment, *names: str, garbage: tuple[bytes, ...] = (), timeout_s: float) -> bool:
    """Return whether the workers answer a command, with garbage among the answers."""
    app: Any = make_app(WorkerSettings(redis_url=deployment.url, home=deployment.home))
    if garbage:
        # The mailbox that asks is a copy of this one, with the same cached queue but an id of its own.
        asking = app.control.mailbox(app.connection_for_read())
        vars(app.control)["mailbox"] = lambda _: asking
        with Redis.from_url(deployment.url) as redis:
            redis.lpush(broker_prefix("default") + asking.reply_queue.name, *garbage)
    answered = app.control.inspect(destination=names, timeout=timeout_s).ping()
    return bool(answered == {name: {"ok": "pong"} for name in names})


async def test_broken_envelopes_do_nothing(deployment: Deployment) -> None:
    await outlives(deployment, [*BROKEN, *COMMANDS])

    assert "message_dropped" in deployment.worker_logs()
    assert "Connection to broker lost" not in deployment.worker_logs()


async def test_a_worker_does_not_obey_a_command_to_shut_down(deployment: Deployment) -> None:
    worker = deployment.worker()
    await listened_to(deployment, COMMANDS_CHANNEL, n_listeners=1)
    await deployment.redis.publish(COMMANDS_CHANNEL, command("shutdown"))

    async def refused() -> bool:
        assert worker.poll() is None, deployment.worker_logs()[-2000:]
        return "KeyError('shutdown')" in deployment.worker_logs()

    await wait_until(refused, description="the worker has refused the command")


async def test_a_worker_shuts_down_when_all_commands_are_allowed(deployment: Deployment) -> None:
    worker = deployment.worker(remote_control="all")
    await listened_to(deployment, COMMANDS_CHANNEL, n_listeners=1)
    await deployment.redis.publish(COMMANDS_CHANNEL, command("shutdown"))

    await wait_until(lambda: worker.poll() is not None, description="the worker has obeyed")


async def test_an_answer_is_found_among_garbage(deployment: Deployment) -> None:
    deployment.worker()
    await listened_to(deployment, COMMANDS_CHANNEL, n_listeners=1)

    assert await asyncio.to_thread(ping, deployment, "w0@test", garbage=BROKEN, timeout_s=30)


async def test_flower_outlives_what_is_published(deployment: Deployment, tmp_path: Path) -> None:
    with running_flower(deployment.url, "default", tmp_path) as port:
        await listened_to(deployment, EVENTS_CHANNEL, n_listeners=1)
        for one in (*BROKEN, *COMMANDS):
            await deployment.redis.publish(EVENTS_CHANNEL, one)
        deployment.worker()

        async def seen() -> bool:
            return "w0@test" in (await asyncio.to_thread(Browser(port).get, "/workers")).text

        await wait_until(seen, description="Flower shows the worker that started after the garbage")


@pytest.mark.timeout(1800)
async def test_a_worker_outlives_a_hundred_thousand_fuzzed_messages(deployment: Deployment) -> None:
    dice = random.Random(SEED)

    await outlives(deployment, [fuzzed(dice) for _ in range(N_FUZZED)], within_s=300)
