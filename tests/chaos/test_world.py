"""The world of the chaos run stays whole if blows fall at once."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

from .world import World


async def test_two_kills_of_redis_at_once_leave_one_redis() -> None:
    # The path of a socket is limited to about a hundred characters.
    with tempfile.TemporaryDirectory(prefix="bl-") as name:
        await kill_twice(Path(name))


async def kill_twice(home: Path) -> None:
    world = World(home=home, seed=1, n_workers=0, n_clients=0, n_questions=1, secrets=[], cuts=False)
    async with world:
        await world.redis.set("kept", "1")
        await asyncio.gather(world.kill_redis(0.3), world.kill_redis(0.1))
        assert await world.redis.get("kept") == b"1"
        (_, back), (gone, _) = world.redis_away
        assert back <= gone, "the second falls once the first is over"
