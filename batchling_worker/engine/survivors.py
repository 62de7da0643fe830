"""Reports steps that ended without ending their claim, so that no batch is blamed unless a worker died."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final

from redis.exceptions import RedisError

from batchling_client.wire.deployment.connection import UNREACHABLE

from ..claim import Claim

MOST: Final = 1000
"""How many steps are remembered while Redis is unreachable; further steps are not reported."""
PAUSE_S: Final = 0.5
PATIENCE_S: Final = 600.0


class Survivors:
    """Reports for each step that its worker lives, also after an outage of Redis; lives on one event loop."""

    def __init__(self) -> None:
        self._steps: dict[Claim, float] = {}
        self._telling: asyncio.Task[None] | None = None

    def add(self, claim: Claim) -> None:
        """Report the step as soon as Redis answers, within ten minutes."""
        if len(self._steps) >= MOST:
            return
        self._steps[claim] = asyncio.get_running_loop().time() + PATIENCE_S
        if self._telling is None or self._telling.done():
            self._telling = asyncio.create_task(self._tell())

    async def _tell(self) -> None:
        now = asyncio.get_running_loop().time
        while self._steps:
            claim, until = next(iter(self._steps.items()))
            with contextlib.suppress(*UNREACHABLE, RedisError):
                await claim.survived()
                del self._steps[claim]
                continue
            if now() > until:
                del self._steps[claim]
            await asyncio.sleep(PAUSE_S)
