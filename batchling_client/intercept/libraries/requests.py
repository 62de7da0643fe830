"""requests: ``Session.send``. A caught call runs through the library's own ``send`` with an adapter that asks the
handler, so that hooks and ``elapsed`` are what they always are."""

import io
from collections.abc import Callable, Iterator, Mapping
from types import ModuleType
from typing import Any, Final, Protocol, cast
from urllib.parse import urlsplit

from .. import own_transports, scope
from ..interceptor import (
    PASS_THROUGH,
    PASSING,
    Handler,
    HttpCall,
    HttpReply,
    PassThrough,
    place_of,
)
from ..library import CAUGHT, PROBE_URL, Library
from ..own_transports import Way
from ..patching import Patch, Patcher, Target, own_class


class _Request(Protocol):
    method: str
    url: str
    headers: Mapping[str, str]
    body: object


class _Adapter(Protocol):
    def send(self, request: _Request, **options: Any) -> Any: ...


class _Session(Protocol):
    def get_adapter(self, url: str) -> _Adapter: ...


class _HandlerAdapter:
    """Stands for every adapter of a session during one call: what the handler does not take goes the session's way."""

    def __init__(self, library: Any, session: _Session, handler: Handler) -> None:
        self._library = library
        self._session = session
        self._handler = handler

    def send(self, request: _Request, **options: Any) -> Any:
        call = self._wanted(request)
        reply = PASS_THROUGH if call is None else self._handler.answer_blocking(call)
        if isinstance(reply, PassThrough):
            with reply, scope.outside():
                return self._session.get_adapter(url=request.url).send(request, **options)
        return _response(self._library, reply, request)

    def close(self) -> None:
        """Close nothing: the session closes its own adapters."""

    def _wanted(self, request: _Request) -> HttpCall | None:
        # Not always the request that was caught: a redirect or a hook may send others.
        host, path = place_of(request.url)
        if not self._handler.wants(request.method, host, path):
            return None
        return _call(request, host, path)


def _call(request: _Request, host: str, path: str) -> HttpCall:
    body = request.body
    if body is None:
        body = b""
    elif isinstance(body, str):
        body = body.encode()
    return HttpCall(
        method=request.method,
        url=request.url,
        host=host,
        path=path,
        headers={name.lower(): _text(value) for name, value in request.headers.items()},
        body=bytes(body) if isinstance(body, bytes | bytearray) else b"",
        body_unread=not isinstance(body, bytes | bytearray),
    )


def _text(value: str | bytes) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else value


def _sending(library: Any, patch: Patch) -> Callable[..., Any]:
    def send(session: _Session, request: _Request, **options: Any) -> Any:
        url = getattr(request, "url", None)
        if not isinstance(url, str):
            # The library raises its own error for a call that it refuses.
            return patch.plain(session)(request, **options)
        handler = patch.handler(request.method, *place_of(url))
        if handler is None:
            return patch.plain(session)(request, **options)
        if handler is PASSING:
            with scope.outside():
                return patch.plain(session)(request, **options)
        way, by = _way(library, session, handler, url, options, patch.original)
        if way is Way.DOUBLE:
            own_transports.leave_alone(handler)
            with scope.outside():
                return patch.plain(session)(request, **options)
        if way is Way.OWN:
            with own_transports.through(handler, urlsplit(url).hostname or "", by):
                return patch.plain(session)(request, **options)
        plain_class = own_class(library, "Session", "sessions")
        shadow = plain_class.__new__(plain_class)
        vars(shadow).update(vars(session), adapters={"": _HandlerAdapter(library, session, handler)})
        return patch.plain(shadow)(request, **options)

    return send


def _way(
    library: Any, session: _Session, handler: Handler, url: str, options: Mapping[str, Any], send: object
) -> tuple[Way, object]:
    """Say how a request of this session would reach the network, and by what where that is not the library."""
    if own_transports.may_send(handler):
        return _own_way(library, session, handler, url, options, send)
    if own_transports.may_leave(handler, urlsplit(url).hostname):
        way, by = _own_way(library, session, None, url, options, send)
        return (way, by) if way is Way.DOUBLE else (Way.PLAIN, None)
    return Way.PLAIN, None


def _own_way(
    library: Any,
    session: _Session,
    handler: Handler | None,
    url: str,
    options: Mapping[str, Any],
    send: object,
) -> tuple[Way, object]:
    if own_transports.is_socket_replaced():
        return Way.DOUBLE, None
    way, by = own_transports.way_through([(send, "requests"), (session.get_adapter, "requests")])
    if way is not Way.PLAIN:
        return way, by
    try:
        adapter = session.get_adapter(url=url)
    except library.exceptions.RequestException:
        return Way.PLAIN, None
    own = library.adapters.HTTPAdapter
    if own_transports.is_recorder(adapter):
        return Way.DOUBLE, adapter
    if "send" in vars(adapter) or getattr(type(adapter), "send", None) is not own.send:
        return Way.OWN, adapter
    below, code = _way_below(library, own.send)
    if below is not Way.PLAIN:
        return below, code
    proxies = {**getattr(session, "proxies", {}), **(options.get("proxies") or {})}
    proxy = library.utils.select_proxy(url, proxies)
    if proxy and handler is not None:
        own_transports.note_proxy(handler, urlsplit(url).hostname or "", proxy)
    return Way.PLAIN, adapter


def _way_below(library: Any, send: object) -> tuple[Way, object]:
    """Say how a request would go on from `send`, the method of the library's own adapter."""
    pools = library.packages.urllib3.connectionpool
    classes = [pools.HTTPConnectionPool.ConnectionCls, pools.HTTPSConnectionPool.ConnectionCls]
    if any(map(own_transports.is_foreign_class, classes)):
        return Way.DOUBLE, None
    return own_transports.way_through([(send, "requests"), (pools.HTTPConnectionPool.urlopen, "urllib3")])


def _onward(library: Any, patch: Patch) -> Callable[..., Any]:
    """Return the library's own adapter, for calls that a session's own adapter sends and a block may take."""

    def send(adapter: object, request: _Request, *args: Any, **options: Any) -> Any:
        plain, block = patch.plain(adapter), patch.block()
        if block is None or not isinstance(request.url, str):
            return plain(request, *args, **options)
        # Without a transport path none of our patches has seen the call: an adapter is used directly, or a test double
        # that stopped inside the block has restored an earlier `send`.
        transport_path = own_transports.current()
        handler = block if transport_path is None else transport_path.handler
        host, path = place_of(request.url)
        if not handler.wants(request.method, host, path):
            return plain(request, *args, **options)
        if transport_path is not None or own_transports.may_send(handler):
            way, _ = _way_below(library, patch.original)
            if transport_path is not None:
                transport_path.caught = way is not Way.OWN
            if way is not Way.PLAIN:
                return plain(request, *args, **options)
        elif (
            own_transports.may_leave(handler, urlsplit(request.url).hostname)
            and _way_below(library, patch.original)[0] is Way.DOUBLE
        ):
            return plain(request, *args, **options)
        reply = handler.answer_blocking(_call(request, host, path))
        if isinstance(reply, PassThrough):
            with reply, scope.outside():
                return plain(request, *args, **options)
        return _response(library, reply, request)

    return send


def _response(library: Any, reply: HttpReply, request: _Request) -> Any:
    headers = [(name.decode("latin-1"), value.decode("utf-8")) for name, value in reply.raw_headers()]
    raw = library.packages.urllib3.HTTPResponse(
        body=io.BytesIO(reply.body),
        headers=headers,
        status=reply.status,
        preload_content=False,
        decode_content=False,
    )
    return library.adapters.HTTPAdapter().build_response(request, raw)


def _targets(module: ModuleType) -> Iterator[Target]:
    library = cast("Any", module)
    yield own_class(module, "Session", "sessions"), "send", lambda patch: _sending(library, patch)
    if hasattr(library, "adapters"):
        yield own_class(module, "HTTPAdapter", "adapters"), "send", lambda patch: _onward(library, patch)


async def _probe(module: Any) -> bool:
    class Nowhere:
        def send(self, request: object, **options: object) -> object:
            raise module.RequestException

        def close(self) -> None: ...

    with module.Session() as session:
        session.trust_env = False
        session.mount("https://", Nowhere())
        return bool(session.post(PROBE_URL).status_code == CAUGHT)


INTERCEPTOR: Final = Patcher(
    _targets,
    Library(
        name="requests",
        modules=("requests",),
        marks=("Session",),
        probe=_probe,
        asked_first=("Session.send", "Session.request", "Session.get_adapter"),
    ),
)
