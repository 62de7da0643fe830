"""What a client sends through, where that is not its library's own way to the network.

A test double answers by itself: calls to it are left alone. A transport of the program's own, such as one that signs,
retries or caches, is asked as without batchling, and what it sends on over its library is caught there.
"""

from __future__ import annotations

import contextlib
import enum
import sys
import urllib.request
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from . import gate
from .interceptor import Handler

_RECORDERS: Final = frozenset(
    {
        "aioresponses",
        "betamax",
        "httpretty",
        "mocket",
        "pook",
        "pytest_httpx",
        "requests_mock",
        "responses",
        "respx",
    }
    | {"unittest", "vcr"}
)
"""Packages whose functions answer in the place of a library's, also where they look like wrappers of it."""
_PROXY: Final = (
    "Calls to {} go through a proxy of their client's own, and the worker sends their batches without it. If they must "
    "go through that proxy, set HTTPS_PROXY for the worker, or make them inside `with batchling.outside():`, at full "
    "price."
)
_UNSEEN: Final = (
    "A call to {} was answered by its client's own transport ({}), which sent it in a way that batchling does not see, "
    "or not at all: it is not batched. What that transport sends costs full price."
)


def may_send(handler: Handler) -> bool:
    """Say whether a client's own transport may be asked: not in a rehearsal, not in a dry run, not for a probe."""
    return gate.of_process() is None and handler.passed is not None and not handler.passed.sends_nothing


def leave_alone(handler: Handler) -> None:
    """Take note of a call that a test double answers."""
    if handler.passed is not None:
        handler.passed.leave_alone()


class Way(enum.Enum):
    """How a call would reach the network."""

    PLAIN = "plain"
    """By the library's own means."""
    DOUBLE = "double"
    """Not at all: something answers in their place."""
    OWN = "own"
    """By code of the program or of a third package."""


@dataclass(slots=True)
class Passage:
    """One call on its way through a transport of its client's own."""

    handler: Handler
    caught: bool = False
    """Whether the library's own transport was asked to send it."""


_passage: ContextVar[Passage | None] = ContextVar("batchling_passage", default=None)


def current() -> Passage | None:
    """Return the passage that the running code is in."""
    return _passage.get()


@contextlib.contextmanager
def through(handler: Handler, host: str, transport: object) -> Iterator[None]:
    """Have the library's own transport ask the handler about what the client's own one sends on."""
    passage = Passage(handler)
    before = _passage.set(passage)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):
            _passage.reset(before)
    if not passage.caught:
        note_unseen(handler, host, transport)


def note_unseen(handler: Handler, host: str, transport: object) -> None:
    """Warn once in a run of a call that is left to its client's own transport."""
    if handler.passed is not None:
        handler.passed.warn(_UNSEEN.format(host, type(transport).__name__))


def is_replaced(function: object, library: str) -> bool:
    """Say whether somebody else's function is in the place of the library's own; an observer's wrapper is not."""
    seen = 0
    while seen < 50:
        seen += 1
        package = _package_of(function)
        if package in _RECORDERS:
            return True
        inner = getattr(function, "__wrapped__", None)
        if inner is None:
            return package != library
        function = inner
    return True


def package_of(instance: object) -> str:
    """Return the package of an object's class."""
    return type(instance).__module__.partition(".")[0]


def is_recorder(instance: object) -> bool:
    """Say whether an object is of a package that answers in the place of providers."""
    return package_of(instance) in _RECORDERS


def is_foreign_class(owner: object) -> bool:
    """Say whether a class that a library looks up is one of a recorder's."""
    return str(getattr(owner, "__module__", "")).partition(".")[0] in _RECORDERS


def note_proxy(handler: Handler, host: str, proxy: object) -> None:
    """Warn once in a run that the worker does not use a proxy which only the client has."""
    if handler.passed is None:
        return
    named = urlsplit(str(proxy)).netloc.rpartition("@")[2]
    known = {urlsplit(one).netloc.rpartition("@")[2] for one in urllib.request.getproxies().values()}
    if named not in known:
        handler.passed.warn(_PROXY.format(host))


def _package_of(function: Any) -> str:
    function = getattr(function, "__func__", function)
    # A function that was made to look like another one still has the globals of its own module.
    names = getattr(function, "__globals__", None)
    if names is None:
        wrapper = getattr(function, "_self_wrapper", None)
        names = getattr(wrapper, "__globals__", None)
    module = names.get("__name__", "") if names is not None else type(function).__module__
    return str(module).partition(".")[0]


def is_socket_replaced() -> bool:
    """Say whether a recorder answers below every library, in the place of the network itself."""
    module = sys.modules.get("socket")
    return is_foreign_class(getattr(module, "socket", None))
