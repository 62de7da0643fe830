"""Compares the keys in Redis with those that `keys.py` declares."""

from __future__ import annotations

from redis.asyncio import Redis

from batchling_client.wire.keys import CIRCUIT, KEYSPACE, Keys

BY_WORD = {kind.word: kind for kind in KEYSPACE}
GONE = -2
"""What PTTL answers for a key that is not there."""


async def words_in_use(redis: Redis, keys: Keys) -> dict[str, list[bytes]]:
    """The namespace's keys by their first word."""
    found: dict[str, list[bytes]] = {}
    async for key in redis.scan_iter(match=keys.prefix + "*", count=1000):
        found.setdefault(key.decode().removeprefix(keys.prefix).partition(":")[0], []).append(key)
    return found


async def strays(redis: Redis, keys: Keys) -> list[str]:
    """What is wrong with the keys left: undeclared, of another type, or without the lifetime declared."""
    complaints = []
    for word, found in (await words_in_use(redis, keys)).items():
        for key in found:
            kind = BY_WORD.get(word)
            if kind is None:
                complaints.append(f"{key!r} is not declared")
                continue
            redis_type = (await redis.execute_command("TYPE", key)).decode()
            ttl_ms = await redis.execute_command("PTTL", key)
            if redis_type == "none" or ttl_ms in (0, GONE):
                # It has expired since it was listed.
                continue
            if redis_type != kind.redis_type:
                complaints.append(f"{key!r} is a {redis_type}, not a {kind.redis_type}")
            if kind.lifetime.ms and ttl_ms <= 0:
                complaints.append(f"{key!r} never expires")
            if not kind.lifetime.ms and ttl_ms != -1:
                complaints.append(f"{key!r} expires")
    return complaints


async def overlong(redis: Redis, keys: Keys) -> list[str]:
    """The keys that live longer than declared."""
    found = []
    for word, names in (await words_in_use(redis, keys)).items():
        lifetime = BY_WORD[word].lifetime
        # A circuit lives as long as its pause, which the provider may wish longer, and then for its lifetime.
        if lifetime.ms and lifetime is not CIRCUIT:
            ttls = [await redis.execute_command("PTTL", name) for name in names]
            found += [f"{name!r}" for name, ttl in zip(names, ttls, strict=True) if ttl > lifetime.ms]
    return found
