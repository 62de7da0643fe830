"""Pages of providers' lists, kept in Redis for part of an interval: one sweep serves the steps of all workers."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import time
from collections.abc import Awaitable, Callable
from typing import Final

from redis.asyncio import Redis
from redis.exceptions import RedisError

from batchling_client.wire.deployment.connection import UNREACHABLE
from batchling_client.wire.keys import LIST_PAGE, Keys

from ..errors import TemporaryError

READ_S: Final = 10.0
"""How long reading a page may take before another step reads it as well, in seconds."""
LOOK_S: Final = 0.05
BEING_READ: Final = b"?"
NOT_READ: Final = b"!"


class ListPages:
    """The pages of one account's lists; without Redis, every step reads them itself."""

    def __init__(self, redis: Redis, keys: Keys, place: str, *, fresh_s: float) -> None:
        self._redis = redis
        self._keys = keys
        self._place = place
        self._fresh_ms = max(1, min(int(fresh_s * 1000), LIST_PAGE.ms))

    async def page(self, name: str, read: Callable[[], Awaitable[bytes]]) -> bytes:
        """Return the page that another step has just read, else the page that `read` returns.

        Raises what `read` raises, and `TemporaryError` where another step has just failed to read it.
        """
        digest = hashlib.blake2b(f"{self._place}\n{name}".encode(), digest_size=16).hexdigest()
        key = self._keys.list_page(digest)
        found = await self._of_another(key)
        if found == NOT_READ:
            raise TemporaryError("the list of batches could not be read just now")
        if found:
            return found
        try:
            page = await read()
        except Exception:
            await self._keep(key, NOT_READ)
            raise
        await self._keep(key, page)
        return page

    async def _of_another(self, key: str) -> bytes:
        """Return the page that another step read; b'' if this step must read it while others wait up to `READ_S`."""
        until = time.monotonic() + READ_S
        try:
            while time.monotonic() < until:
                px = int(READ_S * 1000)
                if await self._redis.execute_command("SET", key, BEING_READ, "NX", "PX", px):
                    return b""
                found: bytes | None = await self._redis.execute_command("GET", key)
                if found and found != BEING_READ:
                    return found
                await asyncio.sleep(LOOK_S)
        except (*UNREACHABLE, RedisError):
            pass
        return b""

    async def _keep(self, key: str, page: bytes) -> None:
        with contextlib.suppress(*UNREACHABLE, RedisError):
            await self._redis.execute_command("SET", key, page, "PX", self._fresh_ms)
