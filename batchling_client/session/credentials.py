"""Stores callers' credentials, sealed for the workers, before the first request that needs them."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from redis.asyncio import Redis

from ..wire import sealing
from ..wire.keys import IN_FLIGHT, Keys
from .lanes import Lane

REFRESHED_AFTER_S: Final = 6 * 3600.0


@dataclass(slots=True)
class _Kept:
    secrets: Mapping[str, str] = field(repr=False)
    sealed: bytes
    stored_at: float = -math.inf


class Credentials:
    """The credentials that one session has sealed, and when it last stored each."""

    def __init__(self, redis: Redis, keys: Keys, public_key: str) -> None:
        self._redis = redis
        self._keys = keys
        self._public_key = public_key
        self._kept: dict[str, _Kept] = {}

    async def store(self, lane: Lane) -> str:
        """Keep the lane's credential in Redis for as long as its requests may be in flight; return its name there.

        For a named account it is the newest credential its callers used.
        """
        spec, secrets = lane.spec, lane.secrets
        account = spec.fingerprint if sealing.names_account(spec.fingerprint) else ""
        if account:
            # Use one key for any header, so that workers never find an older credential under another key.
            place = self._keys.credential(account, spec.provider)
        else:
            place = self._keys.credential_in(secrets, spec.fingerprint, spec.provider)
        kept = self._kept.get(place)
        if kept is None or (account and kept.secrets != secrets):
            kept = self._kept[place] = _Kept(secrets, sealing.seal(secrets, self._public_key, account))
        now = asyncio.get_running_loop().time()
        if now - kept.stored_at < REFRESHED_AFTER_S:
            return place.removeprefix(self._keys.credential(""))
        await self._redis.set(place, kept.sealed, px=IN_FLIGHT.ms)
        kept.stored_at = now
        return place.removeprefix(self._keys.credential(""))

    def doubt(self) -> None:
        """Forget which credentials are stored: a Redis that was away may have lost its last second."""
        for kept in self._kept.values():
            kept.stored_at = -math.inf
