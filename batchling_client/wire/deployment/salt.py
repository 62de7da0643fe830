"""The salt of a deployment, which its Redis keeps: who reads it first makes it."""

from __future__ import annotations

from typing import Any

from redis.asyncio import Redis
from redis.exceptions import NoPermissionError

from ..keys import Keys
from ..records.row_and_result import CorruptRecord
from ..roots import SALT_BYTES, new_salt


class NotMadeYet(Exception):
    """Nobody has made the salt yet who may."""


async def load(redis: Redis, keys: Keys) -> bytes:
    """Return the deployment's salt, made on first need; raise `CorruptRecord` for a value that is none.

    Raise `NotMadeYet` if there is none, and this user of Redis may not make one.
    """
    salt = await find(redis, keys)
    if salt is not None:
        return salt
    try:
        await redis.set(keys.salt, new_salt(), nx=True)
    except NoPermissionError:
        raise NotMadeYet from None
    # Read again: another process may have been faster.
    return await find(redis, keys) or await load(redis, keys)


async def find(redis: Redis, keys: Keys) -> bytes | None:
    """Return the deployment's salt; None before anybody has used the deployment. Raise `CorruptRecord`."""
    salt: Any = await redis.execute_command("GET", keys.salt)
    if salt is None:
        return None
    if len(salt) != SALT_BYTES:
        raise CorruptRecord(f"The salt of this deployment ({keys.salt}) is not {SALT_BYTES} bytes.")
    return bytes(salt)
