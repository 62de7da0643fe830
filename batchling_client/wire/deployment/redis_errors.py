"""Distinguishes an outage of Redis, which is worth waiting for, from mistakes that waiting does not fix."""

from __future__ import annotations

import contextlib
import errno
import socket
import ssl
from collections.abc import Callable, Iterator
from typing import Final

from redis.exceptions import (
    AuthenticationError,
    AuthenticationWrongNumberOfArgsError,
    AuthorizationError,
    NoPermissionError,
    ReadOnlyError,
    ResponseError,
)

with contextlib.suppress(ImportError):  # Windows has no such limits
    import resource

_MEMORY: Final = (errno.ENOMEM, errno.ENOBUFS)
_FORBIDDEN: Final = (errno.EACCES, errno.EPERM)
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


def name_is_unknown(error: BaseException) -> bool:
    """Return whether the Redis host has no address: it is misspelt, or this machine is offline."""
    return any(isinstance(one, socket.gaierror) for one in _chain(error))


def _refusal(error: Exception) -> str | None:
    if isinstance(error, (AuthenticationError, AuthenticationWrongNumberOfArgsError, AuthorizationError)):
        # "Authentication required.", or "HELLO must be called with the client already authenticated, ..."
        if "required" in str(error) or "already authenticated" in str(error):
            return "asks for a password: put it into BATCHLING_REDIS_URL (redis://:PASSWORD@host:port)"
        return "refuses the user or password in BATCHLING_REDIS_URL: correct it"
    if isinstance(error, NoPermissionError):
        return "denies this user a command that batchling needs: give the user of BATCHLING_REDIS_URL more rights"
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
