"""The rules of the Redis users of a deployment, a user for each role, made from the table of keys.

A user of Redis 7 has root rules and selectors; a command runs if one of them allows it with all of its keys. Here the
root rules allow commands without keys. One selector for each type of keys allows the commands of that type, and marks
each family as one to read (`%R~`), to write (`%W~`) or both (`~`). Scripts have a selector of their own: naming a key
in EVAL counts as reading and writing it, while each command inside a script is judged like any other.
"""

from __future__ import annotations

import enum
import hashlib
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from ..wire.keys import (
    BROKER_CHANNELS,
    BROKER_KEYSPACE,
    DRAINED_VERSIONS,
    KEYSPACE,
    WIRE_VERSION,
    Access,
    KeyKind,
    Keys,
    broker_prefix,
)


class Role(enum.StrEnum):
    """Who uses the deployment's Redis."""

    CLIENT = "client"
    WORKER = "worker"
    DASHBOARD = "dashboard"
    VIEWER = "viewer"
    OPERATOR = "operator"


ABOUT: Final = {
    Role.CLIENT: "programs that make calls, `submit`, `results`, and every command that looks",
    Role.WORKER: "workers",
    Role.DASHBOARD: "Flower, with batchling's pages and their buttons",
    Role.VIEWER: "Flower with `--read-only`",
    Role.OPERATOR: "people: every command that looks, and `cancel`, `retry`, `pause`, `resume`, `doctor`",
}

_CATEGORIES: Final = {
    "string": "@string",
    "hash": "@hash",
    "zset": "@sortedset",
    "list": "@list",
    "set": "@set",
    "stream": "@stream",
}
_OF_ANY_TYPE: Final = "+exists +type +pttl +del +unlink +expire +pexpire"
_CONNECTION: Final = "+@connection -@dangerous -client|tracking -client|caching +info +time +acl|whoami"
"""TRACKING tells the names of keys that others change, without a look at the rules."""
_BROKER: Final = (
    "+multi +exec +discard +psubscribe +punsubscribe +subscribe +unsubscribe +publish "
    "+script|exists +script|load"
)
_ALL_WORK: Final = (
    "+@all -@admin -@dangerous -@scripting +eval +evalsha +script|exists +script|load -scan -randomkey -dbsize "
    "-client|tracking -client|caching +info +config|get +acl|whoami"
)
_MARKS: Final = {Access.READ: "%R~", Access.WRITE: "%W~", Access.DROP: "%R~", Access.ALL: "~"}
_NAME: Final = re.compile(r"[^\s\x00]{1,100}")


class UnusableName(ValueError):
    """No Redis user can have this name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisUser:
    """A user of the deployment's Redis; without a password, nobody can log in as that user yet."""

    role: Role
    name: str
    namespace: str
    database: int = 0
    password: str | None = None

    def line(self) -> str:
        """Return the user as a line of an ACL file, with a digest of the password; raise `UnusableName`."""
        if _NAME.fullmatch(self.name) is None:
            raise UnusableName("A name of a Redis user has 1 to 100 characters and no blank.")
        digest = "" if self.password is None else f"#{hashlib.sha256(self.password.encode()).hexdigest()}"
        words = ("user", self.name, "on", digest, "resetkeys resetchannels -@all", *self._rules())
        return " ".join(filter(None, words))

    def _rules(self) -> Iterator[str]:
        channels = [f"&{broker_prefix(self.namespace)}/{self.database}.{one}" for one in BROKER_CHANNELS]
        spaces = [Keys(self.namespace, version) for version in sorted({WIRE_VERSION, *DRAINED_VERSIONS})]
        notices = [f"&{keys.notice_prefix}*" for keys in spaces]
        match self.role:
            case Role.WORKER:
                own = [f"~{keys.prefix}*" for keys in spaces]
                yield from (_ALL_WORK, *own, f"~{broker_prefix(self.namespace)}*", *notices, *channels)
            case Role.CLIENT:
                yield from (_CONNECTION, "+subscribe +unsubscribe", *notices)
                yield from _own_keys(spaces, lambda kind: kind.client, scripts=True)
            case Role.OPERATOR:
                yield from (_CONNECTION, "+config|get +publish", *notices)
                yield from _own_keys(spaces, lambda kind: kind.operator, scripts=True)
            case Role.DASHBOARD:
                yield from (_CONNECTION, _BROKER, *channels)
                yield from _own_keys(spaces, lambda kind: kind.dashboard, scripts=True)
                yield from self._of_the_broker()
            case Role.VIEWER:
                yield from (_CONNECTION, _BROKER, *channels)
                yield from _own_keys(spaces, lambda kind: _only_read(kind.dashboard), scripts=False)
                yield from self._of_the_broker()

    def _of_the_broker(self) -> Iterator[str]:
        prefix = broker_prefix(self.namespace)
        grants = [
            _Grant(redis_type, one.dashboard, prefix + one.pattern)
            for one in BROKER_KEYSPACE
            for redis_type in one.redis_types
        ]
        yield from _selectors(grants)
        # Celery binds its queues by scripts.
        yield f"(+eval +evalsha ~{prefix}_kombu.binding*)"


@dataclass(frozen=True, slots=True)
class _Grant:
    redis_type: str
    access: Access
    pattern: str


def _only_read(access: Access) -> Access:
    return access if access in (Access.NONE, Access.WRITE) else Access.READ


def _own_keys(
    spaces: Iterable[Keys], access_of: Callable[[KeyKind], Access], *, scripts: bool
) -> Iterator[str]:
    spaces = [*spaces]
    grants = [
        _Grant(kind.redis_type, access_of(kind), _pattern(kind, keys)) for keys in spaces for kind in KEYSPACE
    ]
    yield from _selectors(grants)
    if scripts:
        yield f"(+eval +evalsha {' '.join(f'~{keys.prefix}*' for keys in spaces)})"
    # The next version, which `doctor` looks for.
    yield f"(+zcard %R~{Keys(spaces[0].namespace, WIRE_VERSION + 1).schedule})"


def _selectors(grants: Iterable[_Grant]) -> Iterator[str]:
    grants = [grant for grant in grants if grant.access is not Access.NONE]
    for redis_type, category in _CATEGORIES.items():
        marked = [_MARKS[one.access] + one.pattern for one in grants if one.redis_type == redis_type]
        if marked:
            yield f"(+{category} -@dangerous {_OF_ANY_TYPE} {' '.join(marked)})"
    dropped = [f"~{one.pattern}" for one in grants if one.access is Access.DROP]
    if dropped:
        yield f"(+del +unlink {' '.join(dropped)})"


def _pattern(kind: KeyKind, keys: Keys) -> str:
    """Return the pattern of a family: one key, or all that begin with its word."""
    single = getattr(keys, kind.word, None)
    return single if isinstance(single, str) else f"{keys.prefix}{kind.word}:*"
