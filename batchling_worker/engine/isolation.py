"""A shared and exclusive lock: most steps run side by side, a step under suspicion runs alone."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Final

PATIENCE_S: Final = 60.0
"""How long a step waits for the others to end; then it runs beside them, because it must not wait for ever."""


class SharedExclusive:
    """The running steps of one event loop."""

    def __init__(self) -> None:
        self._n_running = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._open = asyncio.Event()
        self._open.set()
        self._turn = asyncio.Lock()

    @contextlib.asynccontextmanager
    async def shared(self) -> AsyncIterator[None]:
        """Run the block beside other shared blocks, after an exclusive block that waits."""
        while not self._open.is_set():
            await self._open.wait()
        self._n_running += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._n_running -= 1
            if self._n_running == 0:
                self._idle.set()

    @contextlib.asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        """Run the block while no other runs: it waits for running blocks, and new blocks wait for it."""
        async with self._turn:
            self._open.clear()
            try:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._idle.wait(), PATIENCE_S)
                yield
            finally:
                self._open.set()
