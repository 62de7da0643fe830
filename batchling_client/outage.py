"""Waits for a Redis that is away, and says once that it went and once that it is back."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from typing import Final

from redis.asyncio import Redis

from .wire.connection import UNREACHABLE

_logger = logging.getLogger(__name__)

FIRST_PAUSE_S: Final = 0.05
LONGEST_PAUSE_S: Final = 2.0


class Outage:
    """The weather between one session and its Redis."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._away = False

    async def over(self) -> None:
        """Return once Redis answers again, however long that takes."""
        if not self._away:
            self._away = True
            _logger.warning("Redis is away: waiting for it; nothing that was queued is lost.")
        pause_s = FIRST_PAUSE_S
        # Where one connection went dead in silence the idle ones may have too: none of them is to be waited for.
        with contextlib.suppress(*UNREACHABLE):
            await self._redis.connection_pool.disconnect(inuse_connections=False)
        while True:
            await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))  # noqa: S311 - jitter is no cryptography
            try:
                await self._redis.ping()
            except UNREACHABLE:
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
                continue
            break
        if self._away:
            self._away = False
            _logger.warning("Redis is back: going on.")
