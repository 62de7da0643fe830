"""How fast answers come: the counts of the last hour, from those that deliveries keep by the minute."""

from __future__ import annotations

import contextlib
from collections import Counter
from typing import Annotated, Final

import msgspec
from redis.asyncio import Redis

from ..wire.keys import Keys
from .inspection import pipelined

RECENT_MIN: Final = 5
HOUR_MIN: Final = 60


class Pace(msgspec.Struct, frozen=True, kw_only=True):
    """What came in of late, in the whole deployment."""

    answers_per_minute: Annotated[float, msgspec.Meta(description="answers a minute, over the last five")]
    n_answered: Annotated[int, msgspec.Meta(description="requests answered in the last hour")]
    n_failed: Annotated[int, msgspec.Meta(description="those among them that were answered with an error")]
    n_input: Annotated[int, msgspec.Meta(description="tokens of the prompts of these answers")]
    n_output: Annotated[int, msgspec.Meta(description="tokens of these answers")]


async def pace_of(redis: Redis, keys: Keys, now_s: float) -> Pace:
    """Return the pace at this time of Redis. Raise redis-py's own errors when Redis is away."""
    last = int(now_s // 60)
    minutes = range(last - HOUR_MIN + 1, last + 1)
    hashes = await pipelined(redis, [("HGETALL", keys.minute(one)) for one in minutes])
    sums, recent = Counter[str](), 0
    for minute, fields in zip(minutes, hashes, strict=True):
        for field, raw in (fields or {}).items():
            name, n = field.rpartition(b"|")[2].decode(errors="replace"), 0
            with contextlib.suppress(ValueError):
                n = int(raw)
            sums[name] += n
            # The present minute is not over: the five before it tell the pace.
            if last - RECENT_MIN <= minute < last and name in ("n_succeeded", "n_failed"):
                recent += n
    return Pace(
        answers_per_minute=recent / RECENT_MIN,
        n_answered=sums["n_succeeded"] + sums["n_failed"],
        n_failed=sums["n_failed"],
        n_input=sums["n_input"],
        n_output=sums["n_output"],
    )
