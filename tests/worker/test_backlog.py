"""The tick claims nothing while what it claimed before still waits for a slot, and never for ever."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis

from batchling_client.wire.deployment.connection import connect
from batchling_client.wire.keys import WIRE_VERSION, broker_prefix
from batchling_worker.app import make_app
from batchling_worker.runtime import tasks
from batchling_worker.runtime.backlog import Backlog
from batchling_worker.runtime.wire_versions import queue_of
from batchling_worker.settings import WorkerSettings
from tests.redis_server import redis_server

NAMESPACE = "backlogged"
QUEUE = broker_prefix(NAMESPACE) + queue_of(WIRE_VERSION)


@pytest.fixture
def url() -> Iterator[str]:
    with redis_server() as url:
        yield url


def ask(url: str, patience_s: float, *, changes: tuple[str, ...]) -> list[bool]:
    """Whether the queue is full, before and after each change, which is a command with the queue's key left out."""

    async def asked() -> list[bool]:
        redis = connect(url)
        backlog = Backlog(redis, NAMESPACE, WIRE_VERSION, patience_s=patience_s)
        seen = [await backlog.is_full()]
        for change in changes:
            name, *more = change.split()
            await redis.execute_command(name, QUEUE, *more)
            seen.append(await backlog.is_full())
        await redis.aclose()
        return seen

    return asyncio.run(asked())


def test_messages_that_celery_has_sent_are_seen(url: str, tmp_path: Path) -> None:
    app = make_app(WorkerSettings(redis_url=url, home=tmp_path, namespace=NAMESPACE))
    assert ask(url, 60, changes=()) == [False]
    app.send_task(tasks.SUBMIT, args=["b0", 1])
    assert ask(url, 60, changes=()) == [False], "one message may be on its way to a free slot"
    app.send_task(tasks.SUBMIT, args=["b1", 1])
    assert ask(url, 60, changes=()) == [True]


def test_a_queue_that_nobody_reads_does_not_hold_up_claims_for_ever(url: str) -> None:
    changes = ("DEL", "RPUSH a b c d", "LPOP", "LPOP", "LPOP")
    assert ask(url, 60.0, changes=changes) == [False, False, True, True, True, False]
    assert ask(url, 0.0, changes=changes) == [False] * 6


def test_a_queue_that_moves_holds_claims_up_for_as_long_as_it_moves(url: str) -> None:
    async def asked() -> list[bool]:
        redis = connect(url)
        backlog = Backlog(redis, NAMESPACE, WIRE_VERSION, patience_s=0.2)
        await redis.execute_command("RPUSH", QUEUE, *"abcdef")
        seen = [await backlog.is_full()]
        await asyncio.sleep(0.3)
        seen.append(await backlog.is_full())
        await redis.execute_command("LPOP", QUEUE)
        seen.append(await backlog.is_full())
        await redis.aclose()
        return seen

    assert asyncio.run(asked()) == [True, False, True]


def test_a_key_of_another_type_holds_up_nothing(url: str) -> None:
    with Redis.from_url(url) as redis:
        redis.set(QUEUE, "junk")
    assert ask(url, 60, changes=()) == [False]
