"""Opens Redis from a URL (`redis://`, `rediss://`, `unix://` or `sentinel://`) and reads its facts."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel, SentinelConnectionPool
from redis.backoff import EqualJitterBackoff
from redis.exceptions import (
    BusyLoadingError,
    ConnectionError,
    NoPermissionError,
    ReadOnlyError,
    RedisError,
    TimeoutError,
)

from .redis_health import RedisFacts

CONNECT_SECONDS: Final = 5.0
REPLY_SECONDS: Final = 10.0
"""How long Redis may say nothing to a command before its connection counts as dead."""
HEALTH_SECONDS: Final = 10
"""How long a connection may be idle before it is asked for a sign of life."""
SENTINEL_PORT: Final = 26379
SENTINEL_FORM: Final = (
    "BATCHLING_REDIS_URL is not of the form sentinel://host:26379,host2:26379/service-name/0, with :PASSWORD@ in front "
    "of the hosts if there is one."
)

SCHEMES: Final = frozenset({"redis", "rediss", "unix", "sentinel"})
NO_URL: Final = "BATCHLING_REDIS_URL is not a URL that Redis can be reached at."
UNESCAPED: Final = (
    "BATCHLING_REDIS_URL has a character in its user or password that a URL reads otherwise: write / as %2F, ? as %3F, "
    "# as %23 and @ as %40."
)
USER_ALONE: Final = (
    "BATCHLING_REDIS_URL has a user and no password: a password alone is written with a colon in front of it, as in "
    "redis://:PASSWORD@host."
)
AMONG_OPTIONS: Final = (
    "BATCHLING_REDIS_URL has its user or password among the options: write them in front of the host, as in "
    "redis://USER:PASSWORD@host."
)
_END_OF_AUTHORITY: Final = re.compile(r"[/?#]")
_OPTIONS: Final = re.compile(r"[?#]")
_CREDENTIAL_OPTION: Final = re.compile(r"[?&](?:username|password|credential_provider)=", re.IGNORECASE)

UNREACHABLE: Final = (ConnectionError, TimeoutError, BusyLoadingError, ReadOnlyError, OSError)
"""What a Redis that is away, starting, or failing over looks like: worth waiting for."""


def passes(error: RedisError) -> bool:
    """Return whether a refusal will pass: after a fail-over a master may still lack the replicas it needs."""
    return str(error).startswith("NOREPLICAS")


class UnusableUrl(ValueError):
    """The Redis URL is of no kind that batchling can open."""


def place_of(url: str) -> str:
    """Return where a Redis URL points, without its password."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "an unusable URL"
    return parts.path if parts.scheme == "unix" else parts.netloc.rpartition("@")[2]


def usable_url(url: str) -> str:
    """Return the URL; raise `UnusableUrl`, whose sentence holds nothing of it: any part may be the password."""
    try:
        connected = connect(url)
        pool: Any = connected.connection_pool
        # An option that redis-py does not know is an error of every connection, and of nothing before.
        pool.make_connection()
    except UnusableUrl:
        raise
    except (ValueError, TypeError, AttributeError, KeyError):
        raise UnusableUrl(NO_URL) from None
    except OSError:
        # redis-py reads its own version from a file, and this process may have no file descriptor left.
        pass
    return url


def _check(url: str) -> None:
    """Raise `UnusableUrl` for mistakes that make a part of a password a host, a user or an option."""
    scheme, _, rest = url.partition("://")
    if scheme not in SCHEMES or not rest:
        raise UnusableUrl("BATCHLING_REDIS_URL must start with redis://, rediss://, unix:// or sentinel://.")
    authority = _END_OF_AUTHORITY.split(rest, maxsplit=1)[0]
    if scheme != "unix" and "@" in rest[len(authority) :]:
        raise UnusableUrl(UNESCAPED)
    credentials, at, hosts = authority.rpartition("@")
    if at and credentials and ":" not in credentials:
        raise UnusableUrl(USER_ALONE)
    database = _OPTIONS.split(rest[len(authority) :], maxsplit=1)[0].strip("/")
    if scheme.startswith("redis") and (not hosts or (database and not database.isdecimal())):
        raise UnusableUrl(NO_URL)
    if _CREDENTIAL_OPTION.search(rest[len(authority) :]):
        raise UnusableUrl(AMONG_OPTIONS)


def connect(url: str, *, max_connections: int = 50, n_resends: int = 0) -> Redis:
    """Return a client for the deployment's Redis, which connects at its first command. Raise `UnusableUrl`.

    `sentinel://[:password@]host:port[,host:port...]/service[/db]` follows the service's master. Options in the
    URL's query win, such as `?socket_timeout=3`. Who finds all `max_connections` in use waits for one. A command
    whose reply is lost is sent again `n_resends` times: only for who may send each command twice.
    """
    _check(url)
    scheme = url.partition("://")[0]
    retry = Retry(EqualJitterBackoff(cap=2.0, base=0.2), n_resends)
    if scheme in ("redis", "rediss", "unix"):
        make_pool: Callable[..., BlockingConnectionPool] = BlockingConnectionPool.from_url
        pool = make_pool(
            url,
            socket_timeout=REPLY_SECONDS,
            socket_connect_timeout=CONNECT_SECONDS,
            health_check_interval=HEALTH_SECONDS,
            retry=retry,
            max_connections=max_connections,
            timeout=REPLY_SECONDS,
        )
        return Redis.from_pool(pool)
    return _behind_sentinel(url, max_connections, retry)


@dataclass(frozen=True, slots=True, kw_only=True)
class SentinelUrl:
    """The parts of a Sentinel URL."""

    addresses: tuple[tuple[str, int], ...]
    service: str
    database: int
    password: str | None = field(repr=False)


def parse_sentinel(url: str) -> SentinelUrl:
    """Read `sentinel://[:password@]host:port[,host:port...]/service[/db]`; raise `UnusableUrl`."""
    authority, _, path = url.removeprefix("sentinel://").partition("/")
    credentials, _, hosts = authority.rpartition("@")
    service, _, database = path.partition("/")
    if not hosts or not service:
        raise UnusableUrl(SENTINEL_FORM)
    try:
        addresses = [host.partition(":") for host in hosts.split(",")]
        return SentinelUrl(
            addresses=tuple((name, int(port or SENTINEL_PORT)) for name, _, port in addresses),
            service=service,
            database=int(database or 0),
            password=unquote(credentials.partition(":")[2]) or None,
        )
    except ValueError:
        raise UnusableUrl(SENTINEL_FORM) from None


class _MasterPool(SentinelConnectionPool):
    """Connections to the current master; closing the pool closes its connections to the Sentinels, too."""

    async def disconnect(self, inuse_connections: bool = True) -> None:
        await super().disconnect(inuse_connections)
        if inuse_connections:
            await self.sentinel_manager.aclose()


def _behind_sentinel(url: str, max_connections: int, retry: Retry) -> Redis:
    watch = parse_sentinel(url)
    make_sentinel: Callable[..., Any] = Sentinel
    sentinel = make_sentinel(
        watch.addresses, socket_timeout=CONNECT_SECONDS, socket_connect_timeout=CONNECT_SECONDS
    )
    master: Redis = sentinel.master_for(
        watch.service,
        connection_pool_class=_MasterPool,
        db=watch.database,
        password=watch.password,
        socket_timeout=REPLY_SECONDS,
        socket_connect_timeout=CONNECT_SECONDS,
        health_check_interval=HEALTH_SECONDS,
        max_connections=max_connections,
        retry=retry,
    )
    return master


async def ask(redis: Redis, *, config: bool = True) -> RedisFacts:
    """Return INFO, clock and `appendfsync` of Redis in one round trip; raise redis-py's errors if it is unavailable.

    `config=False` leaves `appendfsync` out: CONFIG GET tells passwords, too, so that callers may not use it.
    """
    asked_at = time.time()
    async with redis.pipeline(transaction=False) as pipe:
        pipe.execute_command("PING")
        pipe.execute_command("INFO")
        pipe.execute_command("TIME")
        if config:
            pipe.execute_command("CONFIG GET", "appendfsync")
        pong, info, clock, *rest = await pipe.execute(raise_on_error=False)
    here = (asked_at + time.time()) / 2
    if isinstance(pong, Exception) and not isinstance(pong, NoPermissionError):
        raise pong
    there = here if isinstance(clock, Exception) else int(clock[0]) + int(clock[1]) / 1e6
    told: Any = next(iter(rest), {})
    policy = None if isinstance(told, Exception) else _value_of(told, "appendfsync")
    return RedisFacts(
        info={} if isinstance(info, Exception) else info, appendfsync=policy, skew_s=here - there
    )


async def user_of(redis: Redis) -> tuple[str | None, Mapping[str, Any] | None]:
    """Return as whom this client is logged in, and the rules of the user `default`; None where that is not permitted.

    The rules of other users are not asked for: those who have a role may not see them.
    """
    try:
        said = await redis.execute_command("ACL WHOAMI")
        user = said.decode() if isinstance(said, bytes) else str(said)
        rules: Mapping[str, Any] | None = None
        if user == "default":
            rules = await redis.execute_command("ACL GETUSER", "default")
    except UNREACHABLE:
        raise
    except RedisError:
        return None, None
    return user, rules


def _value_of(config: Mapping[str | bytes, str | bytes], name: str) -> str | None:
    """Return a value of CONFIG GET, None if the server left it out."""
    value = config.get(name, config.get(name.encode()))
    return value.decode() if isinstance(value, bytes) else value
