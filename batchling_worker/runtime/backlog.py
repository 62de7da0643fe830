"""The Celery queue as the tick sees it: a batch that is claimed before a slot is free only loses its lease there."""

from __future__ import annotations

import time
from typing import Final

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from batchling_client.wire.keys import broker_prefix

from .wire_versions import queue_of

LONG: Final = 2
"""This many messages wait only while every slot of every worker is busy."""


class Backlog:
    """The queue of one wire version."""

    def __init__(self, redis: Redis, namespace: str, version: int, *, patience_s: float) -> None:
        self._redis = redis
        self._key = broker_prefix(namespace) + queue_of(version)
        self._patience_s = patience_s
        self._n_before = 0
        self._moved_at = 0.0

    async def is_full(self) -> bool:
        """Return whether a batch that is claimed now would have to wait for a slot.

        False as well where no message was taken for `patience_s`: perhaps nobody reads the queue, and only claims that
        lapse tell.
        """
        try:
            n = int(await self._redis.execute_command("LLEN", self._key))
        except ResponseError:
            # A key of another type must not hold up the tick.
            n = 0
        if n < LONG or n < self._n_before or self._n_before < LONG:
            self._moved_at = time.monotonic()
        self._n_before = n
        return n >= LONG and time.monotonic() - self._moved_at < self._patience_s
