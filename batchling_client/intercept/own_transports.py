"""Recognizes clients that send through a transport other than their library's own.

A test double answers by itself: calls to it are left alone. A transport of the program's own, such as a signing,
retrying or caching transport, is called as without batchling, and the calls it sends over its library are caught there.
"""

from __future__ import annotations

import contextlib
import enum
import sys
import urllib.request
from collections.abc import Iterable, Iterator
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
_DEEPEST: Final = 50
_OURS: Final = __name__.partition(".")[0]
_PROXY: Final = (
    "Calls to {} go through a proxy of their client's own, and the worker sends their batches without it. If they must "
    "go through that proxy, set HTTPS_PROXY for the worker, or make them inside `with batchling.outside():`, at full "
    "price."
)
_UNSEEN: Final = (
    "A call to {} was answered by its client's own transport ({}), which sent it in a way that batchling does not see, "
    "or not at all: it is not batched. What that transport sends costs full price."
)
_UNSEEN_CODE: Final = (
    "A call to {} was answered by {}, which replaces code of {} and sent the call in a way that batchling does not "
    "see, or not at all: it is not batched. What that code sends costs full price."
)


def may_send(handler: Handler) -> bool:
    """Say whether a client's own transport may be asked: not in a rehearsal, not in a dry run, not for a probe."""
    return gate.of_process() is None and handler.passed is not None and not handler.passed.sends_nothing


def may_leave(handler: Handler, host: str | None) -> bool:
    """Say whether a recorder may answer a call in a rehearsal: if it connects for real, the gate refuses it."""
    shut = gate.of_process()
    is_dry = handler.passed is not None and handler.passed.sends_nothing
    return shut is not None and not is_dry and shut.guards(host or "")


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
class TransportPath:
    """One call on its way through a transport of its client's own."""

    handler: Handler
    caught: bool = False
    """Whether a library that is covered was asked to send it."""


_transport_path: ContextVar[TransportPath | None] = ContextVar("batchling_transport_path", default=None)


def current() -> TransportPath | None:
    """Return the transport path that the running code is in."""
    return _transport_path.get()


@contextlib.contextmanager
def through(handler: Handler, host: str, by: object) -> Iterator[None]:
    """Make the library's own transport ask the handler about calls that the program's transport or code sends on."""
    transport_path = TransportPath(handler)
    before = _transport_path.set(transport_path)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):
            _transport_path.reset(before)
        _judge(transport_path, host, by)


def _judge(transport_path: TransportPath, host: str, by: object) -> None:
    """Warn of a call that no interceptor saw, unless the same code has sent a call that was caught, as a cache does."""
    passed = transport_path.handler.passed
    if passed is None:
        return
    name = by.name if isinstance(by, Code) else _name_of(by)
    if transport_path.caught:
        passed.ways_seen.add(name)
    elif name not in passed.ways_seen:
        note_unseen(transport_path.handler, host, by)


def note_unseen(handler: Handler, host: str, by: object) -> None:
    """Warn once in a run of a call that is left to its client's own transport, or to code of the program."""
    if handler.passed is None:
        return
    if isinstance(by, Code):
        handler.passed.warn(_UNSEEN_CODE.format(host, by.name, by.library))
    else:
        handler.passed.warn(_UNSEEN.format(host, _name_of(by)))


def names_of(steps: Iterable[object]) -> str:
    """Return the names of functions and objects that a call goes through."""
    return ", ".join(map(_name_of, steps))


def _name_of(by: object) -> str:
    if isinstance(by, str):
        return by
    return str(getattr(by, "__name__", None) or type(by).__name__)


@dataclass(frozen=True, slots=True)
class Code:
    """Code of the program or of a third package that is in the place of a library's own."""

    name: str
    library: str


def way_of(function: object, library: str) -> Way:
    """Say how a call that meets this function travels; a wrapper that names what it wraps is taken for an observer."""
    for _ in range(_DEEPEST):
        package = _package_of(function)
        if package in _RECORDERS or is_recorder(getattr(function, "mock", None)):
            return Way.DOUBLE
        inner = getattr(function, "__wrapped__", None)
        if inner is None:
            return Way.PLAIN if package == library else Way.OWN
        function = inner
    return Way.OWN


def is_ours(function: object) -> bool:
    """Say whether a function is one of batchling's own."""
    return _package_of(function) == _OURS


def is_wrapped(function: object, library: str) -> bool:
    """Say whether somebody put a function of their own around that of the library."""
    while is_ours(function):
        function = getattr(function, "__wrapped__", None)
    return _package_of(function) != library


def way_through(functions: Iterable[tuple[object, str]], *, asks: object = None) -> tuple[Way, Code | None]:
    """Say how a call travels that meets these functions of these libraries, and who answers or sends it instead.

    None is a place that this version of the library does not have. A wrapper of `asks` is asked even where it names
    what it wraps: the call is caught below, so that a wrapper that signs is batched with its result.
    """
    stranger: Code | None = None
    for function, library in functions:
        way = Way.PLAIN if function is None else way_of(function, library)
        if way is Way.DOUBLE:
            return way, None
        asked = way is Way.OWN or (
            function is not None and function is asks and is_wrapped(function, library)
        )
        if asked and stranger is None:
            stranger = code(function, library)
    return (Way.PLAIN, None) if stranger is None else (Way.OWN, stranger)


def code(function: object, library: str) -> Code:
    """Describe a function that is in the place of a library's own."""
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", None)
    return Code(f"{module}.{name}" if name else type(function).__qualname__, library)


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


def double_of_network() -> str | None:
    """Return the package of a recorder that answers below every library, in the place of the network itself."""
    replaced = getattr(sys.modules.get("socket"), "socket", None)
    return str(replaced.__module__).partition(".")[0] if is_foreign_class(replaced) else None


def is_socket_replaced() -> bool:
    """Say whether a recorder answers in the place of the network itself."""
    return double_of_network() is not None
