"""Distinguishes an outage of Redis, which is worth waiting for, from mistakes that waiting does not fix."""

from __future__ import annotations

import contextlib
import errno
import re
import socket
import ssl
from collections.abc import Callable, Iterator
from typing import Final

from redis.exceptions import (
    AuthenticationError,
    AuthenticationWrongNumberOfArgsError,
    AuthorizationError,
    BusyLoadingError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)

with contextlib.suppress(ImportError):  # Windows has no such limits
    import resource

_MEMORY: Final = (errno.ENOMEM, errno.ENOBUFS)
_FORBIDDEN: Final = (errno.EACCES, errno.EPERM)
_DENIED_COMMAND: Final = re.compile(r"run the '([^']+)' command")
_DENIED_IN_SCRIPT: Final = re.compile(r"ACL failure in script|[Uu]ser executing the script")
_WORDS: Final = {
    "MISCONF": "cannot write its data to disk, and takes no writes until it can: see its log and the room on its disk",
    "NOREPLICAS": "has too few replicas that are up to date, and takes no writes until they are back",
    "MASTERDOWN": "has lost its master: wait for the fail-over, or point BATCHLING_REDIS_URL at the new master",
    "BUSY": "is busy with a script that runs for long: wait, or end it with SCRIPT KILL",
    "CLUSTERDOWN": "is a node of a Redis Cluster that is down; batchling needs a Redis without cluster mode",
}
"""What a Redis that is there answers with to writes, or to everything, for a while."""
_CHAIN: Final = 8
"""Errors deep that a cause is looked for: a chain may be a ring."""


def shortage_of(error: BaseException) -> str | None:
    """Return what this process is out of, and what to do, if that is why a call failed."""
    for one in _chain(error):
        number = one.errno if isinstance(one, OSError) else None
        if number == errno.EMFILE:
            return (
                f"This process has no file descriptor left{_limit()}, so batchling cannot connect to Redis: close "
                "files and connections, or raise the limit (`ulimit -n`)."
            )
        if number == errno.ENFILE:
            return "This machine has no file left to open, so batchling cannot connect to Redis: close some files."
        if number in _MEMORY:
            return "This machine has no memory left for a connection to Redis: free some, then run it again."
        if _is_test_guard(one):
            return (
                f"Tests block the network here ({type(one).__name__}: {_first_line(one)}), and the connection to Redis "
                "with it: set BATCHLING_ENABLED=false for such tests, or allow Redis' host or socket in them."
            )
        if isinstance(one, RuntimeError) and "start new thread" in str(one):
            return (
                "This process can start no thread, so batchling cannot connect to Redis: end some threads, or raise "
                "the limit (`ulimit -u`)."
            )
    return None


def _is_test_guard(error: BaseException) -> bool:
    """Say whether a plugin that keeps tests off the network refused a socket: pytest-socket, pytest-recording."""
    package = type(error).__module__.partition(".")[0]
    return package == "pytest_socket" or (
        isinstance(error, RuntimeError) and str(error).startswith("Network is disabled")
    )


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0].rstrip(". ")


@contextlib.contextmanager
def shortages_as(kind: Callable[[str], Exception]) -> Iterator[None]:
    """Raise an error of that kind where the body fails for want of files, threads or memory."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        shortage = shortage_of(error)
        if shortage is None:
            raise
        raise kind(shortage) from None


def mistake_of(error: BaseException) -> str | None:
    """Return why a Redis that is there does not serve this client, and what to do, if waiting does not help."""
    for one in _chain(error):
        said = _refusal(one) if isinstance(one, Exception) else None
        if said is not None:
            return said
    return None


def is_denied(error: BaseException) -> bool:
    """Return whether the Redis user may not do what was asked, also where a command inside a script was refused."""
    return isinstance(error, NoPermissionError) or (
        isinstance(error, ResponseError) and _DENIED_IN_SCRIPT.search(str(error)) is not None
    )


def _denied_what(error: BaseException) -> str:
    command = _DENIED_COMMAND.search(str(error))
    if command is not None:
        return f"run {command[1].upper().replace('|', ' ')}"
    return (
        "use a channel that batchling needs" if "channel" in str(error) else "use a key that batchling needs"
    )


def refusal_of(error: BaseException) -> str | None:
    """Return why Redis does not do what was asked, and what to do, also if that passes by itself; None if unknown."""
    said = mistake_of(error)
    if said is not None:
        return said
    for one in _chain(error):
        if isinstance(one, BusyLoadingError):
            return "is still loading its data: try again in a moment"
        if isinstance(one, OutOfMemoryError):
            return "is full: give it more memory (maxmemory), or send fewer requests at once"
        for word, sentence in _WORDS.items():
            if isinstance(one, RedisError) and str(one).startswith(word):
                return sentence
    return None


def name_is_unknown(error: BaseException) -> bool:
    """Return whether the Redis host has no address: it is misspelt, or this machine is offline."""
    return any(isinstance(one, socket.gaierror) for one in _chain(error))


def _refusal(error: Exception) -> str | None:
    if isinstance(error, (AuthenticationError, AuthenticationWrongNumberOfArgsError, AuthorizationError)):
        # "Authentication required.", or "HELLO must be called with the client already authenticated, ..."
        if "required" in str(error) or "already authenticated" in str(error):
            return "asks for a password: put it into BATCHLING_REDIS_URL (redis://:PASSWORD@host:port)"
        return "refuses the user or password in BATCHLING_REDIS_URL: correct it"
    if is_denied(error):
        return (
            f"does not let the user of BATCHLING_REDIS_URL {_denied_what(error)}: give that user the rules of its "
            "role, which `batchling acl` prints (see deploy/acl)"
        )
    if isinstance(error, ReadOnlyError):
        return "is a replica, which takes no writes: point BATCHLING_REDIS_URL at the master"
    if isinstance(error, ssl.SSLCertVerificationError):
        return (
            f"has a certificate that is not trusted ({error.verify_message}): give its CA with "
            "?ssl_ca_certs=FILE in BATCHLING_REDIS_URL"
        )
    if isinstance(error, ssl.SSLError):
        return "does not speak TLS as rediss:// asks: use redis://, or the port that has TLS"
    if isinstance(error, OSError) and error.errno in _FORBIDDEN:
        return "may not be opened by this user: change the rights of its socket, or the user"
    if isinstance(error, ResponseError) and "DB index" in str(error):
        return "has no database of the number in BATCHLING_REDIS_URL: correct it"
    return None


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and its causes and contexts: redis-py keeps the system's error as the context of its own."""
    step: BaseException | None = error
    for _ in range(_CHAIN):
        if step is None:
            return
        yield step
        # redis-py also wraps an error by giving it as the argument.
        yield from (one for one in step.args if isinstance(one, BaseException))
        step = step.__cause__ or step.__context__


def _limit() -> str:
    with contextlib.suppress(NameError, OSError, ValueError):
        return f" (its limit is {resource.getrlimit(resource.RLIMIT_NOFILE)[0]:,})"
    return ""
