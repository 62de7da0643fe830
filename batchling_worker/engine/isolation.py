"""Who runs beside whom in a process: most steps side by side, one that is under suspicion alone."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Final

PATIENCE_S: Final = 60.0
"""How long a step waits for the others to end; then it runs beside them, as it must not wait for ever."""


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
        """Runs the block beside others of its kind, after one that wants to be alone."""
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
        """Runs the block while no other runs: new ones wait, those that run are waited for."""
        async with self._turn:
            self._open.clear()
            try:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._idle.wait(), PATIENCE_S)
                yield
            finally:
                self._open.set()
