"""Stores callers' credentials, sealed for the workers, before the first request that needs them."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from ..wire import key_hints, roots, sealing
from ..wire.keys import IN_FLIGHT, Keys, credential_name
from .lanes import Lane

REFRESHED_AFTER_S: Final = 6 * 3600.0


@dataclass(slots=True)
class _Kept:
    secrets: Mapping[str, str] = field(repr=False)
    sealed: bytes
    reader: bytes
    stored_at: float = -math.inf


class Credentials:
    """The credentials that one session has sealed, and when it last stored each."""

    def __init__(self, redis: Redis, keys: Keys, public_key: str, *, has_hints: bool = True) -> None:
        self._redis = redis
        self._keys = keys
        self._public_key = public_key
        self._has_hints = has_hints
        self._kept: dict[str, _Kept] = {}

    async def store(self, lane: Lane) -> str:
        """Keep the lane's credential in Redis for as long as its requests may be in flight; return its name there.

        For a named account it is the newest credential its callers used. Beside it, what reads its answers outlives
        the credential itself.
        """
        spec = lane.spec
        name = credential_name(spec.fingerprint, spec.provider, spec.host)
        kept = self._kept.get(name)
        if kept is None or (roots.names_account(spec.fingerprint) and kept.secrets != lane.secrets):
            kept = self._kept[name] = self._seal(lane)
        now = asyncio.get_running_loop().time()
        if now - kept.stored_at < REFRESHED_AFTER_S:
            return name
        await self._redis.set(self._keys.credential(name), kept.sealed, px=IN_FLIGHT.ms)
        await self._redis.set(self._keys.reader(spec.fingerprint), kept.reader, px=IN_FLIGHT.ms)
        hint = "" if roots.names_account(spec.fingerprint) else key_hints.hint(lane.secrets)
        if hint and self._has_hints:
            # People read it: where a Redis user may not write it, requests are queued all the same.
            with contextlib.suppress(ResponseError):
                await self._redis.set(self._keys.key_hint(spec.fingerprint), hint, px=IN_FLIGHT.ms)
        kept.stored_at = now
        return name

    def doubt(self) -> None:
        """Forget which credentials are stored: a Redis that was away may have lost its last second."""
        for kept in self._kept.values():
            kept.stored_at = -math.inf

    def _seal(self, lane: Lane) -> _Kept:
        use = sealing.Credential(
            namespace=self._keys.namespace,
            provider=lane.spec.provider,
            host=lane.spec.host,
            root=lane.root.raw,
            headers=dict(lane.secrets),
        )
        reader = sealing.Credential(
            namespace=self._keys.namespace, provider="", host="", root=lane.root.raw, headers={}
        )
        return _Kept(
            lane.secrets, sealing.seal(use, self._public_key), sealing.seal(reader, self._public_key)
        )
