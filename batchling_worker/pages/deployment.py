"""The deployment that the pages show: its Redis is asked on an event loop in a thread of its own.

Decoding thousands of records on Flower's loop would hold up its other pages.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from redis.asyncio import Redis
from redis.exceptions import RedisError

from batchling_client.views.batch_list import BatchLists
from batchling_client.wire.deployment import redis_errors
from batchling_client.wire.deployment.connection import UNREACHABLE, connect, place_of
from batchling_client.wire.keys import Keys
from batchling_client.wire.scripts import Scripts

T = TypeVar("T")

LONGEST_S: Final = 8.0
"""A look that takes longer is given up, and the page says that Redis does not answer."""
SWITCH_S: Final = 0.0005
"""After so long a thread gives way to another that waits: a tenth of Python's own figure."""


class RedisAway(Exception):
    """Redis did not answer; the text is a sentence for the page."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What one request needs to look at a deployment and to steer it."""

    lists: BatchLists
    scripts: Scripts


class Deployment:
    """Looks at one deployment from any thread."""

    def __init__(self, redis_url: str, namespace: str) -> None:
        self._url = redis_url
        self.namespace = namespace
        self._keys = Keys(namespace)
        self._starting = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._redis: Redis | None = None
        self._under_way: dict[str, asyncio.Future[Any]] = {}

    @property
    def place(self) -> str:
        """Where its Redis is, without a password."""
        return place_of(self._url)

    async def look(self, ask: Callable[[Look], Awaitable[T]], *, longest_s: float = LONGEST_S) -> T:
        """Return what `ask` finds; it runs on the loop of the thread. Raise `RedisAway`."""
        future = asyncio.run_coroutine_threadsafe(self._asked(ask, longest_s), self._running_loop())
        return await asyncio.wrap_future(future)

    async def look_together(self, name: str, ask: Callable[[Look], Awaitable[T]]) -> T:
        """Return what `ask` finds; those who ask by the same name at one time share a look. Raise `RedisAway`."""
        future = asyncio.run_coroutine_threadsafe(self._joined(name, ask), self._running_loop())
        return await asyncio.wrap_future(future)

    async def _joined(self, name: str, ask: Callable[[Look], Awaitable[T]]) -> T:
        looking: asyncio.Future[T] | None = self._under_way.get(name)
        if looking is None:
            looking = asyncio.ensure_future(self._asked(ask, LONGEST_S))
            self._under_way[name] = looking
            looking.add_done_callback(lambda _: self._under_way.pop(name))
        return await asyncio.shield(looking)

    async def _asked(self, ask: Callable[[Look], Awaitable[T]], longest_s: float) -> T:
        if self._redis is None:
            self._redis = connect(self._url)
        found = Look(lists=BatchLists(self._redis, self._keys), scripts=Scripts(self._redis, self._keys))
        try:
            async with asyncio.timeout(longest_s):
                return await ask(found)
        except TimeoutError:
            raise RedisAway(f"Redis at {self.place} does not answer within {longest_s:.0f} s.") from None
        except (*UNREACHABLE, RedisError) as error:
            said = redis_errors.refusal_of(error) or f"cannot be reached ({type(error).__name__})"
            raise RedisAway(f"Redis at {self.place} {said}.") from None

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        with self._starting:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                # Flower's loop would wait for the thread's lock five milliseconds at each call of the system.
                sys.setswitchinterval(SWITCH_S)
                threading.Thread(target=self._loop.run_forever, name="batchling-pages", daemon=True).start()
            return self._loop
