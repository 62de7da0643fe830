"""Stores callers' credentials, sealed for the workers, before the first request that needs them."""

from __future__ import annotations

import asyncio
from typing import Final

from redis.asyncio import Redis

from .calls import Lane
from .wire import sealing
from .wire.keys import Keys

KEEP_MS: Final = 35 * 24 * 3600 * 1000
"""As long as a request may be in flight."""
REFRESHED_AFTER_S: Final = 6 * 3600.0


class Credentials:
    """The credentials that one session has sealed, and when it last stored each."""

    def __init__(self, redis: Redis, keys: Keys, public_key: str) -> None:
        self._redis = redis
        self._keys = keys
        self._public_key = public_key
        self._sealed: dict[str, bytes] = {}
        self._stored_at: dict[str, float] = {}

    async def store(self, lane: Lane) -> None:
        """Makes sure that Redis holds the lane's credential for as long as its requests may be in flight."""
        spec = lane.spec
        place = self._keys.credential_in(lane.secrets, spec.fingerprint, spec.provider)
        now = asyncio.get_running_loop().time()
        if now - self._stored_at.get(place, float("-inf")) < REFRESHED_AFTER_S:
            return
        sealed = self._sealed.get(place)
        if sealed is None:
            sealed = self._sealed[place] = sealing.seal(lane.secrets, self._public_key)
        await self._redis.set(place, sealed, px=KEEP_MS)
        self._stored_at[place] = now

    def doubt(self) -> None:
        """Forgets what is stored: a Redis that was away may have lost its last second."""
        self._stored_at.clear()
