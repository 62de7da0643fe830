"""The API keys that lanes use, as people see them: never a key, but how it ends."""

from __future__ import annotations

import datetime as dt
from typing import Final

import msgspec
from redis.asyncio import Redis

from ..wire.keys import Keys
from ..wire.roots import names_account
from ..wire.version_1 import stored_names
from .inspection import Inspection, pipelined

MOST_LANES: Final = 5_000


class KeyView(msgspec.Struct, frozen=True, kw_only=True):
    """One key, or the name of an account, and where it is used."""

    credential: str
    key_hint: str | None
    is_account: bool
    providers: list[str]
    models: list[str]
    n_lanes: int
    last_used_at: dt.datetime
    is_stored: bool


async def keys_of(inspection: Inspection, redis: Redis, keys: Keys, prefix: str = "") -> list[KeyView]:
    """Return the keys whose fingerprints begin so, the last used first."""
    lanes = [one for one in await inspection.lanes(MOST_LANES) if one.spec.fingerprint.startswith(prefix)]
    found = []
    for whose in dict.fromkeys(one.spec.fingerprint for one in lanes):
        theirs = [one for one in lanes if one.spec.fingerprint == whose]
        providers = sorted({one.spec.provider for one in theirs})
        names = {
            keys.credential(name)
            for one in theirs
            for name in stored_names(keys.version, whose, one.spec.provider, one.spec.host)
        }
        stored = await pipelined(redis, [("EXISTS", name) for name in names])
        found.append(
            KeyView(
                credential=whose,
                key_hint=theirs[0].key_hint or None,
                is_account=names_account(whose),
                providers=providers,
                models=sorted({one.spec.model for one in theirs}),
                n_lanes=len(theirs),
                last_used_at=max(one.last_used_at for one in theirs),
                is_stored=any(stored),
            )
        )
    return found
