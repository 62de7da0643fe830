"""Checks that the deployment's Redis can be trusted with work, when a worker starts and after each outage."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from redis.exceptions import NoPermissionError

from batchling_client.wire.deployment import redis_errors, redis_health
from batchling_client.wire.deployment.connection import UNREACHABLE
from batchling_client.wire.records.row_and_result import CorruptRecord

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
        self.known = False
        """Whether Redis has been checked and a worker may run on it."""

    def at_start(self, make_store: Callable[[], Store]) -> str | None:
        """Return why no worker may start on this Redis; None if it may, or if Redis does not answer yet."""
        return asyncio.run(self._at_start(make_store))

    async def look_again(self, store: Store) -> str | None:
        """Check Redis after an outage, when it may be another server.

        Return why no worker may run on it, if it was never checked before; otherwise only warn of that.
        """
        refusal = await self._look(store)
        if refusal is None or not self.known:
            return refusal
        self._telemetry.warn("redis_unsound", says=refusal)
        return None

    async def _look(self, store: Store) -> str | None:
        """Warn of unsound but usable settings; return why no worker may start on this Redis, or None.

        Raises redis-py's own errors when it is away.
        """
        try:
            await store.check_rights()
        except NoPermissionError as error:
            return f"Redis at {self._place} {redis_errors.refusal_of(error)}."
        told = await store.told()
        findings = redis_health.of_redis(told)
        if self._fsync_intent:
            findings.append(redis_health.of_fsync_intent(told))
        for finding in findings:
            if not finding.sound and not finding.fatal:
                self._telemetry.warn(
                    "redis_unsound", check=finding.check, says=finding.says, mend=finding.mend
                )
        refusal = redis_health.refusal(findings, self._place)
        if refusal is None:
            refusal = await self._without_salt(store)
        self.known = self.known or refusal is None
        return refusal

    async def _without_salt(self, store: Store) -> str | None:
        """Make the deployment's salt, which callers may only read; return why no worker may do without it."""
        try:
            await store.salt()
        except CorruptRecord as error:
            return str(error)
        except NoPermissionError as error:
            return f"Redis at {self._place} {redis_errors.refusal_of(error)}."
        return None

    async def _at_start(self, make_store: Callable[[], Store]) -> str | None:
        store = make_store()
        try:
            async with asyncio.timeout(START_S):
                return await self._look(store)
        except (*UNREACHABLE, TimeoutError):
            return None
        finally:
            await store.redis.aclose()
