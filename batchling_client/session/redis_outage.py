"""Waits through an outage of Redis, and logs once that Redis is away and once that it is back."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import threading
from typing import Final

from redis.asyncio import Redis
from redis.exceptions import ReadOnlyError, RedisError

from ..errors import QueueUnreachable
from ..wire.deployment import redis_errors
from ..wire.deployment.connection import UNREACHABLE
from ..wire.shown import shown

_logger = logging.getLogger(__name__)

FIRST_PAUSE_S: Final = 0.05
LONGEST_PAUSE_S: Final = 2.0
PATIENCE_S: Final = 8.0
"""How long a shortage of this process, or a refusal of the Redis, may last: it may pass by itself."""
FORGOTTEN_S: Final = 10.0
"""After so long without the error, its next one is another story."""
FAIL_OVER_S: Final = 120.0
"""How long a Redis may be a replica: at a fail-over it is one for a while."""


_ends: Final = threading.Event()


def expect_end() -> None:
    """Log no outage from now on: this process ends the Redis that it has started."""
    _ends.set()


class Outage:
    """The weather between one session and its Redis."""

    def __init__(self, redis: Redis, place: str = "") -> None:
        self._redis = redis
        self._name = f"Redis at {place}" if place else "Redis"
        self._away = False
        self._said = ""
        self._hopeless_since = self._hopeless_at = 0.0

    async def over(self, error: Exception) -> None:
        """Return once Redis answers again after an error, however long that takes.

        Raises `QueueUnreachable` where waiting does not help: this process is out of files, the password is wrong.
        """
        loop = asyncio.get_running_loop()
        pause_s = FIRST_PAUSE_S
        self._judge(error, loop.time())
        # If one connection died silently, the idle ones may have too: do not wait for any of them.
        with contextlib.suppress(*UNREACHABLE):
            await self._redis.connection_pool.disconnect(inuse_connections=False)
        if isinstance(error, ReadOnlyError):
            # It answers at once: without a pause it would be polled at full speed.
            pause_s = LONGEST_PAUSE_S
        while True:
            await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))  # noqa: S311 - jitter needs no cryptography
            try:
                await self._redis.ping()
            except (*UNREACHABLE, RedisError) as again:
                self._judge(again, loop.time())
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
                continue
            break
        if self._away:
            self._away = False
            _logger.warning("Reconnected to Redis.")

    def _judge(self, error: Exception, now_s: float) -> None:
        """Warn of an outage of its kind once; raise where it has no end by itself."""
        reason = self._hopeless(error)
        if reason is None:
            if not self._away and not _ends.is_set():
                self._away = True
                why = " (its host name has no address)" if redis_errors.name_is_unknown(error) else ""
                _logger.warning("Redis is away%s: waiting for it; nothing that was queued is lost.", why)
            return
        patience_s = FAIL_OVER_S if isinstance(error, ReadOnlyError) else PATIENCE_S
        if now_s - self._hopeless_at > FORGOTTEN_S:
            self._hopeless_since = now_s
        self._hopeless_at = now_s
        if reason != self._said:
            self._said = reason
            _logger.warning("%s Trying again for %.0f seconds.", shown(reason), patience_s)
        if now_s - self._hopeless_since >= patience_s:
            raise QueueUnreachable(reason)

    def _hopeless(self, error: Exception) -> str | None:
        shortage = redis_errors.shortage_of(error)
        if shortage is not None:
            return shortage
        mistake = redis_errors.mistake_of(error)
        return None if mistake is None else f"{self._name} {mistake}."
