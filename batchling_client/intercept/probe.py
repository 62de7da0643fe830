"""Sends one probe through each HTTP library that is imported, to see that its calls really reach a block.

Libraries whose calls are only warned of are not probed: nothing goes out at full price that would not anyway.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Iterable, Mapping
from types import ModuleType
from typing import Any, Final, TypeAlias

from ..errors import NotIntercepted
from . import own_transports, scope
from .interceptor import HttpCall, HttpReply
from .own_transports import Way

_HOST: Final = "probe.batchling.invalid"
_URL: Final = f"https://{_HOST}/"
_CAUGHT: Final = 299


class _Probe:
    """Answers the probe alone; no network is ever touched."""

    passed: None = None

    def wants(self, method: str, host: str, path: str) -> bool:
        return host == _HOST

    def passes(self, method: str, host: str, path: str) -> bool:
        return False

    async def answer(self, call: HttpCall) -> HttpReply:
        return self.answer_blocking(call)

    def answer_blocking(self, call: HttpCall) -> HttpReply:
        return HttpReply(status=_CAUGHT, headers={}, body=b"")


async def check() -> None:
    """Raise `NotIntercepted` if calls of an imported library would not be caught."""
    for name, probe in _PROBES.items():
        module = sys.modules.get(name)
        if not isinstance(module, ModuleType) or not hasattr(module, _MARKS[name]):
            continue
        if _is_asked_first(module, _ASKED_FIRST.get(name, ())):
            continue
        if not await _is_caught(probe, module):
            raise NotIntercepted(
                f"Calls of {name} do not reach batchling, since something else took its place there: they would "
                "be sent at full price. See `batchling doctor`."
            )


def _is_asked_first(module: ModuleType, places: Iterable[str]) -> bool:
    """Say whether a double or other code of the program answers or sends the calls of a library before we see them.

    Such code is asked first, as it would be without batchling. A function laid over our patch does not count.
    """
    for place in places:
        owner, _, method = place.partition(".")
        holder = getattr(module, owner, None)
        if not isinstance(holder, type):
            return True
        function = getattr(holder, method, None)
        if method in _PATCHED and not own_transports.is_ours(function):
            continue
        if own_transports.way_of(function, module.__name__) is not Way.PLAIN:
            return True
    return False


async def _is_caught(probe: _ProbeOf, module: ModuleType) -> bool:
    token = scope.enter_task(_Probe())
    try:
        return await probe(module)
    except Exception:  # noqa: BLE001 - what took our place may raise anything, such as a recorder without a tape
        return False
    finally:
        scope.leave_task(token)


async def _httpx(module: Any) -> bool:
    def slipped_past(transport: object, request: object) -> object:
        return module.Response(500)

    async def slipped_past_too(transport: object, request: object) -> object:
        return module.Response(500)

    nowhere = type("Nowhere", (module.BaseTransport,), {"handle_request": slipped_past})
    nowhere_too = type("Nowhere", (module.AsyncBaseTransport,), {"handle_async_request": slipped_past_too})
    probe = module.Request("POST", _URL)
    # A transport of its own: a client that opened none costs no TLS context and no connection.
    async with module.AsyncClient(transport=nowhere_too(), trust_env=False) as client:
        awaited = await client.send(probe)
    with module.Client(transport=nowhere(), trust_env=False) as client:
        blocking = client.send(probe)
    return bool(awaited.status_code == blocking.status_code == _CAUGHT)


async def _aiohttp(module: Any) -> bool:
    async def slipped_past(connector: object, request: object, traces: object, timeout: object) -> object:
        raise module.ClientError

    nowhere = type("Nowhere", (module.BaseConnector,), {"_create_connection": slipped_past})
    async with module.ClientSession(connector=nowhere()) as session, session.post(_URL) as response:
        return bool(response.status == _CAUGHT)


async def _requests(module: Any) -> bool:
    class Nowhere:
        def send(self, request: object, **options: object) -> object:
            raise module.RequestException

        def close(self) -> None: ...

    with module.Session() as session:
        session.trust_env = False
        session.mount("https://", Nowhere())
        return bool(session.post(_URL).status_code == _CAUGHT)


async def _lm15(module: Any) -> bool:
    probe = module.TransportRequest("POST", _URL)
    awaiting, blocking = module.StdlibAsyncTransport(), module.StdlibTransport()
    # Without a pool, a call that is not intercepted fails before it resolves a host.
    awaiting._pool = blocking._pool = None
    async with awaiting.stream(probe) as awaited:
        pass
    with blocking.stream(probe) as waited_for:
        return bool(awaited.status == waited_for.status == _CAUGHT)


_ProbeOf: TypeAlias = Callable[[Any], Awaitable[bool]]
_PROBES: Final[Mapping[str, _ProbeOf]] = {
    "httpx": _httpx,
    "httpx2": _httpx,
    "aiohttp": _aiohttp,
    "requests": _requests,
    "dspy._vendor.lm15.transports": _lm15,
    "lm15.transports": _lm15,
}
_OF_HTTPX: Final = tuple(
    f"{name}.{method}" for name in ("Client", "AsyncClient") for method in ("send", "_transport_for_url")
)
_ASKED_FIRST: Final[Mapping[str, tuple[str, ...]]] = {
    "httpx": _OF_HTTPX,
    "httpx2": _OF_HTTPX,
    "aiohttp": ("ClientSession._request",),
    "requests": ("Session.send", "Session.request", "Session.get_adapter"),
}
_PATCHED: Final = frozenset({"send", "_request"})
_MARKS: Final[Mapping[str, str]] = {
    "httpx": "MockTransport",
    "httpx2": "MockTransport",
    "aiohttp": "ClientSession",
    "requests": "Session",
    "dspy._vendor.lm15.transports": "StdlibTransport",
    "lm15.transports": "StdlibTransport",
}
"""A name that distinguishes the library from a stand-in of the same name."""
