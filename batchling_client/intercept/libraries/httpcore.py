"""httpcore and httpcore2, below httpx: ``ConnectionPool.handle_request`` and its async twin. Only a call is caught that
a transport of its client's own, or code around one of the library's, sends on: it arrives here as that code made it."""

from collections.abc import Awaitable, Callable, Iterator
from types import ModuleType
from typing import Any, Final
from urllib.parse import unquote

from .. import own_transports, scope
from ..interceptor import Handler, HttpCall, HttpReply, PassThrough, host_of
from ..library import Library
from ..own_transports import Way
from ..patching import Patch, Patcher, Target, own_class

_IN_MEMORY: Final = "ByteStream"
"""The class of bodies that may be read again: httpx and httpcore call theirs so."""


def _wanting(library: str, patch: Patch, pool: object, request: Any) -> tuple[Handler, HttpCall] | None:
    """Return who is asked about the request, and the request in neutral form."""
    transport_path = own_transports.current()
    if transport_path is None or patch.block() is None:
        return None
    host, path = _place(request.url)
    if not transport_path.handler.wants(request.method.decode("ascii", "replace"), host, path):
        return None
    way = patch.way(library)
    # A pool of somebody else's may send over a proxy or a socket of its own.
    own = own_transports.package_of(pool) == library
    transport_path.caught = way is Way.DOUBLE or (own and way is Way.PLAIN)
    if not own or way is not Way.PLAIN:
        return None
    proxy = getattr(pool, "_proxy_url", None)
    if proxy is not None:
        name = host_of(proxy.host.decode("ascii", "replace"), proxy.port)
        own_transports.note_proxy(transport_path.handler, host, f"//{name}")
    return transport_path.handler, _call(request, host, path)


def _place(url: Any) -> tuple[str, str]:
    name, scheme = (part.decode("ascii", "replace").lower() for part in (url.host, url.scheme))
    return host_of(name.strip("[]"), url.port, scheme), unquote(
        url.target.partition(b"?")[0].decode("ascii", "replace")
    )


def _call(request: Any, host: str, path: str) -> HttpCall:
    whole = type(request.stream).__name__ == _IN_MEMORY
    return HttpCall(
        method=request.method.decode("ascii", "replace"),
        url=bytes(request.url).decode("ascii", "replace"),
        host=host,
        path=path,
        headers={name.decode("latin-1").lower(): value.decode("latin-1") for name, value in request.headers},
        body=b"".join(request.stream) if whole else b"",
        body_unread=not whole,
    )


def _response(library: Any, reply: HttpReply) -> Any:
    return library.Response(
        reply.status,
        headers=reply.raw_headers(),
        content=reply.body,
        extensions={"http_version": b"HTTP/1.1"},
    )


def _blocking(library: Any, patch: Patch) -> Callable[..., Any]:
    def handle_request(pool: object, request: Any) -> Any:
        wanted = _wanting(library.__name__, patch, pool, request)
        if wanted is None:
            return patch.plain(pool)(request)
        handler, call = wanted
        reply = handler.answer_blocking(call)
        if isinstance(reply, PassThrough):
            with reply, scope.outside():
                return patch.plain(pool)(request)
        return _response(library, reply)

    return handle_request


def _awaiting(library: Any, patch: Patch) -> Callable[..., Awaitable[Any]]:
    async def handle_async_request(pool: object, request: Any) -> Any:
        wanted = _wanting(library.__name__, patch, pool, request)
        if wanted is None:
            return await patch.plain(pool)(request)
        handler, call = wanted
        reply = await handler.answer(call)
        if isinstance(reply, PassThrough):
            with reply, scope.outside():
                return await patch.plain(pool)(request)
        return _response(library, reply)

    return handle_async_request


def _targets(module: ModuleType) -> Iterator[Target]:
    blocking = own_class(module, "ConnectionPool", "_sync.connection_pool")
    awaiting = own_class(module, "AsyncConnectionPool", "_async.connection_pool")
    yield blocking, "handle_request", lambda patch: _blocking(module, patch)
    yield awaiting, "handle_async_request", lambda patch: _awaiting(module, patch)


INTERCEPTOR: Final = Patcher(
    _targets,
    Library(name="httpcore", modules=("httpcore", "httpcore2"), marks=("ConnectionPool",)),
)
