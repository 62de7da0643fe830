"""The deployment that the settings name, started if it is the embedded one, and checked before it gets requests."""

from __future__ import annotations

import os

from redis.asyncio import Redis
from redis.exceptions import RedisError

from ..errors import QueueUnfit, WrongSettings
from ..intercept.interceptor import warn_once
from ..session import Deployment
from ..settings import ClientSettings
from ..wire import sealing
from ..wire.deployment import redis_health, salt, seal_key_files
from ..wire.deployment.connection import UNREACHABLE, ask, place_of
from ..wire.keys import Keys
from ..wire.records.row_and_result import CorruptRecord
from ..wire.roots import Roots
from . import embedded_stack
from .connect import unreachable


async def deployment_of(used: ClientSettings) -> Deployment:
    """Return the settings' deployment, starting the embedded stack if needed; raise what entering a block raises."""
    url = used.redis_url or await embedded_stack.redis_url(used.home)
    return Deployment(
        redis_url=url,
        namespace=used.namespace,
        key_hints=used.key_hints,
        seal_public_key=used.seal_public_key or _stored_public_key(used),
    )


async def read_salt(roots: Roots, redis: Redis, keys: Keys, url: str) -> None:
    """Let `roots` derive what this deployment derives; raise `QueueUnreachable`, or `QueueUnfit` for a damaged salt."""
    try:
        roots.salt = await salt.load(redis, keys)
    except CorruptRecord as error:
        raise QueueUnfit(
            f"{error} Delete the key: the next run makes another, and asks its requests anew."
        ) from None
    except salt.NotMadeYet:
        raise QueueUnfit(
            f"The deployment at {place_of(url)} is new, and this Redis user may not set it up: start a worker first."
        ) from None
    except (*UNREACHABLE, RedisError) as error:
        raise unreachable(url, error) from None


async def check_reachable(redis: Redis, url: str) -> None:
    """Raise `QueueUnreachable` if Redis does not answer, `QueueUnfit` if it cannot be trusted with requests."""
    try:
        facts = await ask(redis, config=False)
    except (*UNREACHABLE, RedisError) as error:
        raise unreachable(url, error) from None
    findings = redis_health.of_redis(facts)
    unfit = redis_health.refusal(findings, place_of(url))
    if unfit is not None:
        raise QueueUnfit(unfit)
    for finding in findings:
        if not finding.sound:
            warn_once(f"Redis at {place_of(url)}: {finding.says}. {finding.mend}", os.getpid())


def _stored_public_key(used: ClientSettings) -> str:
    try:
        return seal_key_files.stored_pair(used.home)[0]
    except (OSError, sealing.UnreadableSealKey) as error:
        raise WrongSettings(
            f"The seal key in {used.home / 'keys'} cannot be read ({str(error).rstrip('.')}): mend it, or set "
            "BATCHLING_SEAL_PUBLIC_KEY."
        ) from None
