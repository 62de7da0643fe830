"""Shares of the worker's connections: no account and no server can have them all, however long its calls take."""

from __future__ import annotations

import asyncio
import contextlib
import weakref
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from typing import Final

import httpx

OF_ACCOUNT: Final = 16
"""So many calls of one account are under way at once: twice as many as are made to look at its batches."""
OF_SERVER: Final = 48
"""So many calls to one base URL, of all accounts together."""


class Shares:
    """The calls under way, by account and by server; lives on one event loop."""

    def __init__(self, turn_s: float) -> None:
        self._turn_s = turn_s
        self._rooms: weakref.WeakValueDictionary[str, asyncio.Semaphore] = weakref.WeakValueDictionary()

    def of(self, digest: str, base_url: str) -> Callable[[], AbstractAsyncContextManager[None]]:
        """Return what opens a block in which one call of the account is made.

        It raises `httpx.PoolTimeout` if the call's turn does not come soon: a create is sent soon after it was armed,
        or not at all.
        """
        # Those who wait for their account take no place of the server.
        rooms = [self._room(f"account {digest}", OF_ACCOUNT), self._room(f"server {base_url}", OF_SERVER)]

        @contextlib.asynccontextmanager
        async def turn() -> AsyncIterator[None]:
            async with contextlib.AsyncExitStack() as held:
                try:
                    async with asyncio.timeout(self._turn_s):
                        for room in rooms:
                            await held.enter_async_context(room)
                except TimeoutError:
                    raise httpx.PoolTimeout("its other calls are under way for too long") from None
                yield

        return turn

    def _room(self, name: str, size: int) -> asyncio.Semaphore:
        room = self._rooms.get(name)
        if room is None:
            room = self._rooms[name] = asyncio.Semaphore(size)
        return room
