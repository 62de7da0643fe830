"""Connects to a deployment to read or steer it; never starts a deployment."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from redis.asyncio import Redis
from redis.exceptions import RedisError

from .. import settings
from ..errors import QueueUnreachable
from ..settings import ClientSettings
from ..views.inspection import Inspection
from ..wire.deployment import redis_errors
from ..wire.deployment.connection import UNREACHABLE, connect, place_of
from ..wire.scripts import Scripts
from . import embedded_status, wire_versions
from .wire_versions import Keyspace


@dataclass(frozen=True, slots=True, kw_only=True)
class Reached:
    """A deployment whose Redis has answered."""

    settings: ClientSettings
    place: str
    url: str = field(repr=False)
    """The URL of its Redis, password included."""
    redis: Redis
    keyspaces: tuple[Keyspace, ...]
    """The keyspace of this release's wire version, and those of older versions that its workers drain."""

    @property
    def inspection(self) -> Inspection:
        return self.keyspaces[0].inspection

    @property
    def scripts(self) -> Scripts:
        return self.keyspaces[0].scripts


@contextlib.asynccontextmanager
async def reach(redis_url: str | None) -> AsyncIterator[Reached]:
    """Connect to the deployment of the URL, of the settings, or of the embedded stack if it runs already.

    Raise `WrongSettings`, and `QueueUnreachable`, also when Redis goes away in the middle. An OSError of what the
    caller does meanwhile, such as writing to a pipe that nobody reads any more, stays what it is.
    """
    used = settings.load(redis_url=redis_url)
    url = used.redis_url or await embedded_status.running_url(used.home)
    redis = connect(url)
    try:
        await redis.execute_command("PING")
        yield Reached(
            settings=used,
            place=place_of(url),
            url=url,
            redis=redis,
            keyspaces=wire_versions.keyspaces(redis, used.namespace),
        )
    except RedisError as error:
        # redis-py wraps connection errors of the operating system in its own errors.
        raise unreachable(url, error) from None
    finally:
        with contextlib.suppress(*UNREACHABLE):
            await redis.aclose()


def unreachable(url: str, error: Exception) -> QueueUnreachable:
    """Return the error for a Redis that does not answer, without its password."""
    shortage = redis_errors.shortage_of(error)
    if shortage is not None:
        return QueueUnreachable(shortage)
    refusal = redis_errors.refusal_of(error)
    if refusal is not None:
        return QueueUnreachable(f"Redis at {place_of(url)} {refusal}.")
    if redis_errors.name_is_unknown(error):
        return QueueUnreachable(
            f"Redis at {place_of(url)} cannot be reached: its host name has no address. Correct it in "
            "BATCHLING_REDIS_URL, or see whether this machine is online."
        )
    return QueueUnreachable(
        f"Redis at {place_of(url)} cannot be reached ({type(error).__name__}): "
        "start it, or set BATCHLING_REDIS_URL."
    )
