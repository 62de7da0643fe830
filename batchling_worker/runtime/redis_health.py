"""Checks that the deployment's Redis can be trusted with work, when a worker starts and after each outage."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from batchling_client.wire.deployment import redis_health
from batchling_client.wire.deployment.connection import UNREACHABLE

from ..store import Store
from ..telemetry import Telemetry

START_S: Final = 5.0
"""How long a start waits for Redis to report about itself; an unreachable Redis is checked once it answers."""


class Fitness:
    """The worker's check of its Redis; `place` is its name for people, without the password."""

    def __init__(self, *, place: str, fsync_intent: bool, telemetry: Telemetry) -> None:
        self._place = place
        self._fsync_intent = fsync_intent
        self._telemetry = telemetry

    def at_start(self, make_store: Callable[[], Store]) -> tuple[str | None, bool]:
        """Return why no worker may start on this Redis (None if it may), and whether Redis has answered at all."""
        return asyncio.run(self._at_start(make_store))

    async def look(self, store: Store) -> str | None:
        """Warn of unsound but usable settings; return why no worker may start on this Redis, or None.

        Raises redis-py's own errors when it is away.
        """
        told = await store.told()
        findings = redis_health.of_redis(told)
        if self._fsync_intent:
            findings.append(redis_health.of_fsync_intent(told))
        for finding in findings:
            if not finding.sound and not finding.fatal:
                self._telemetry.warn(
                    "redis_unsound", check=finding.check, says=finding.says, mend=finding.mend
                )
        return redis_health.refusal(findings, self._place)

    async def _at_start(self, make_store: Callable[[], Store]) -> tuple[str | None, bool]:
        store = make_store()
        try:
            async with asyncio.timeout(START_S):
                return await self.look(store), True
        except (*UNREACHABLE, TimeoutError):
            return None, False
        finally:
            await store.redis.aclose()
