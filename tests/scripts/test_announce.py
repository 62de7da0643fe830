"""Announce: a worker says that it lives, whatever the state of Redis' memory."""

from __future__ import annotations

import pytest
from redis.exceptions import OutOfMemoryError

from batchling_client.views.inspection import Inspection
from batchling_client.wire.records.row_and_result import WorkerPresence

from .byhand import KEEP_MS, ByHand

HERE = WorkerPresence(name="w@here", pid=1, version="1", pool="threads", seal_public_key="k")


async def announce(byhand: ByHand, keep_ms: int = KEEP_MS) -> None:
    await byhand.scripts.announce(
        name=HERE.name, presence=HERE.encode(), keep_ms=keep_ms, keep_list_ms=KEEP_MS
    )


async def test_a_worker_is_listed_as_it_says(byhand: ByHand) -> None:
    await announce(byhand)
    assert await Inspection(byhand.redis, byhand.keys).workers() == [HERE]


async def test_a_worker_that_fell_silent_leaves_the_list_with_the_next_word_of_another(
    byhand: ByHand,
) -> None:
    await byhand.redis.zadd(byhand.keys.workers, {"w@gone": await byhand.now_ms() - KEEP_MS - 1})
    await announce(byhand)
    assert await byhand.redis.zrange(byhand.keys.workers, 0, -1) == [b"w@here"]


async def test_a_worker_is_seen_to_live_when_redis_is_full(alone: ByHand) -> None:
    await alone.redis.execute_command("CONFIG", "SET", "maxmemory", "1")
    with pytest.raises(OutOfMemoryError):
        await alone.redis.execute_command("SET", "one-more", "x")

    await announce(alone)

    assert await Inspection(alone.redis, alone.keys).workers() == [HERE]
