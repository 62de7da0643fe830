"""A look at a deployment: shared by those who ask at one time, given up if Redis is silent, without its password."""

from __future__ import annotations

import asyncio
import threading

import pytest

from batchling_worker.pages.deployment import Deployment, Look, RedisAway
from tests.redis_server import free_port
from tests.waiting import wait_until


async def test_those_who_ask_at_one_time_share_a_look_and_the_next_one_looks_again(redis_url: str) -> None:
    deployment = Deployment(redis_url, "together")
    asked: list[Look] = []
    answer = threading.Event()

    async def ask(look: Look) -> int:
        asked.append(look)
        await asyncio.to_thread(answer.wait, 20)
        return len(asked)

    first, second = (asyncio.ensure_future(deployment.look_together("a", ask)) for _ in range(2))
    other = asyncio.ensure_future(deployment.look_together("b", ask))
    await wait_until(lambda: len(asked) == 2, description="two looks have begun")
    answer.set()

    assert [await first, await second, await other] == [2, 2, 2]
    assert await deployment.look_together("a", ask) == 3


async def test_a_redis_that_is_away_is_named_without_its_password() -> None:
    deployment = Deployment(f"redis://user:secret@127.0.0.1:{free_port()}/0", "away")

    with pytest.raises(RedisAway, match="cannot be reached") as caught:
        await deployment.look(lambda look: look.lists.lanes())

    assert "secret" not in str(caught.value)


async def test_a_look_that_takes_too_long_is_given_up(redis_url: str) -> None:
    deployment = Deployment(redis_url, "slow")

    with pytest.raises(RedisAway, match="does not answer"):
        await deployment.look(lambda _: asyncio.sleep(60), longest_s=0.05)
