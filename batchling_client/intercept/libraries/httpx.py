"""httpx and httpx2: ``Client.send`` and ``AsyncClient.send``, whichever of the two is imported now or later.

A caught call is answered with the library's own response class. Where the client has an auth flow or event
hooks, the library's own ``send`` runs with a transport that asks the handler, so that these see what they
always see; else the answer is built here, at a fraction of the cost. The handler is asked once about a call that
passes through, even if a transport sends it over aiohttp, as litellm's and openai's do.
"""

import time
from collections.abc import Awaitable, Callable, ItemsView, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from types import ModuleType
from typing import Any, Final, NamedTuple, Protocol

from .. import own_transports, scope
from ..interceptor import (
    PASS_THROUGH,
    PASSING,
    Handler,
    HttpCall,
    HttpReply,
    PassThrough,
    host_of,
)
from ..library import CAUGHT, PROBE_URL, Library
from ..own_transports import Way
from ..patching import Patch, Patcher, Target, own_class

_DEFAULT: Final = "_transports.default"
_DOUBLES: Final = (
    ("MockTransport", "_transports.mock"),
    ("ASGITransport", "_transports.asgi"),
    ("WSGITransport", "_transports.wsgi"),
)
_STEPS: Final = (
    "_send_handling_auth",
    "_send_handling_redirects",
    "_send_single_request",
    "_transport_for_url",
)
"""Between `send` and the transport; tests put doubles in the place of these too."""


class _Url(Protocol):
    @property
    def host(self) -> str: ...
    @property
    def port(self) -> int | None: ...
    @property
    def path(self) -> str: ...
    @property
    def userinfo(self) -> bytes: ...


class _Headers(Protocol):
    def items(self) -> ItemsView[str, str]: ...


class _Request(Protocol):
    method: str
    url: _Url
    headers: _Headers
    stream: object

    @property
    def content(self) -> bytes: ...
    def read(self) -> bytes: ...


class _Response(Protocol):
    elapsed: timedelta

    def read(self) -> bytes: ...


class _Transport(Protocol):
    def handle_request(self, request: _Request) -> _Response: ...
    async def handle_async_request(self, request: _Request) -> _Response: ...


class _Client(Protocol):
    @property
    def is_closed(self) -> bool: ...
    @property
    def auth(self) -> object: ...
    @property
    def event_hooks(self) -> Mapping[str, Sequence[object]]: ...
    def _transport_for_url(self, url: _Url) -> _Transport: ...


class _Library:
    """One of the two libraries: its own classes, and the conversions between them and ours."""

    def __init__(self, module: ModuleType) -> None:
        # The names are looked up once: both libraries have them, and share no base class to type them with.
        names: Any = module
        self._response: Callable[..., _Response] = own_class(module, "Response", "_models")
        self._byte_stream: Callable[[bytes], object] = names.ByteStream
        self._byte_stream_class: type = names.ByteStream
        self._request_not_read: type[Exception] = names.RequestNotRead
        self._client_default: object = names.USE_CLIENT_DEFAULT
        self.name: str = names.__name__
        self._plain: tuple[type, ...] = tuple(
            own_class(module, name, _DEFAULT) for name in ("HTTPTransport", "AsyncHTTPTransport")
        )
        self._doubles: tuple[type, ...] = tuple(own_class(module, *place) for place in _DOUBLES)

    def call(self, request: _Request) -> HttpCall:
        """Return the request in neutral form; a body that can be read only once is left unread."""
        unread = False
        try:
            body = request.content
        except self._request_not_read:
            unread = not isinstance(request.stream, self._byte_stream_class)
            body = b"" if unread else request.read()
        url = request.url
        return HttpCall(
            method=request.method,
            url=str(url),
            host=host_of(url.host, url.port),
            path=url.path,
            headers=dict(request.headers.items()),
            body=body,
            body_unread=unread,
        )

    def response(self, reply: HttpReply, request: _Request, encoding: object = "utf-8") -> _Response:
        """Build the library's own response, not yet read."""
        return self._response(
            reply.status,
            headers=reply.raw_headers(),
            request=request,
            extensions={"http_version": b"HTTP/1.1"},
            default_encoding=encoding,
            stream=self._byte_stream(reply.body),
        )

    def is_double(self, transport: object) -> bool:
        """Say whether a transport answers by itself."""
        return isinstance(transport, self._doubles)

    def way_to_transport(self, client: _Client, send: object) -> tuple[Way, object]:
        """Say how a request of this client would reach its transport, and what code of the program does it."""
        steps = [send, *(getattr(client, step, None) for step in _STEPS)]
        return own_transports.way_through([(one, self.name) for one in steps], asks=send)

    def way(self, transport: object) -> tuple[Way, object]:
        """Say how a request would go on from a client's transport, and what does it where that is not the library."""
        if (
            self.is_double(transport)
            or own_transports.is_recorder(transport)
            or own_transports.is_socket_replaced()
        ):
            return Way.DOUBLE, transport
        if "aiohttp" in type(transport).__module__:
            # Transports of SDKs that only send, over another library: httpx_aiohttp, an SDK's copy of it, litellm's.
            middlewares = getattr(getattr(transport, "client", None), "_middlewares", ())
            return (Way.OWN if middlewares else Way.PLAIN), transport
        own = next((one for one in self._plain if isinstance(transport, one)), None)
        if own is None:
            return Way.OWN, transport
        name = "handle_request" if own is self._plain[0] else "handle_async_request"
        if name in vars(transport) or getattr(type(transport), name) is not getattr(own, name):
            return Way.OWN, transport
        return self.way_below(transport, getattr(own, name), name)

    def way_below(self, transport: object, send: object, name: str) -> tuple[Way, object]:
        """Say how a request would go on from `send`, the library's own method of this name."""
        if own_transports.is_socket_replaced():
            return Way.DOUBLE, transport
        pool = getattr(transport, "_pool", None)
        core = self.name.replace("httpx", "httpcore")
        places = [(send, self.name), (getattr(type(pool), name, None), core)]
        return own_transports.way_through(places, asks=send)

    def takes_steps(self, client: _Client, request: _Request, options: Mapping[str, object]) -> bool:
        """Say whether the library itself would do more with this request than hand it to a transport."""
        auth = options.get("auth", self._client_default)
        if auth is self._client_default:
            auth = client.auth
        hooks = client.event_hooks
        return auth is not None or bool(hooks["request"] or hooks["response"] or request.url.userinfo)


class _HandlerTransport:
    """A transport for one call: what the handler wants it answers, the rest takes the client's own way."""

    def __init__(self, library: _Library, client: _Client, handler: Handler) -> None:
        self._library = library
        self._client = client
        self._handler = handler

    def handle_request(self, request: _Request) -> _Response:
        call = self._wanted(request)
        reply = PASS_THROUGH if call is None else self._handler.answer_blocking(call)
        if isinstance(reply, PassThrough):
            with reply, scope.outside():
                return self._client._transport_for_url(request.url).handle_request(request)
        return self._library.response(reply, request)

    async def handle_async_request(self, request: _Request) -> _Response:
        call = self._wanted(request)
        reply = PASS_THROUGH if call is None else await self._handler.answer(call)
        if isinstance(reply, PassThrough):
            with reply, scope.outside():
                return await self._client._transport_for_url(request.url).handle_async_request(request)
        return self._library.response(reply, request)

    def _wanted(self, request: _Request) -> HttpCall | None:
        # Not always the request that was caught: an auth flow may fetch a token first.
        url = request.url
        if not self._handler.wants(request.method, host_of(url.host, url.port), url.path):
            return None
        return self._library.call(request)


class _Onto(NamedTuple):
    """A client whose own `send` takes a call, and the context in which it does."""

    client: object
    context: AbstractContextManager[None] = nullcontext()


class _Send:
    """Our ``send`` for one client class."""

    def __init__(self, library: _Library, client_class: Any, patch: Patch) -> None:
        self._library = library
        self._client_class = client_class
        self._patch = patch

    def blocking(self) -> Callable[..., Any]:
        def send(client: _Client, request: _Request, **options: Any) -> Any:
            handler = self._answering(client, request, options)
            if isinstance(handler, _Onto):
                with handler.context:
                    return self._patch.plain(handler.client)(request, **options)
            started = time.perf_counter()
            reply = handler.answer_blocking(self._library.call(request))
            if isinstance(reply, PassThrough):
                with reply, scope.outside():
                    return self._patch.plain(client)(request, **options)
            return self._answered(reply, client, request, options, started)

        return send

    def awaiting(self) -> Callable[..., Awaitable[Any]]:
        async def send(client: _Client, request: _Request, **options: Any) -> Any:
            handler = self._answering(client, request, options)
            if isinstance(handler, _Onto):
                with handler.context:
                    return await self._patch.plain(handler.client)(request, **options)
            started = time.perf_counter()
            # Thousands of calls wait at once and no longer need their headers: nothing here keeps the call.
            reply = await handler.answer(self._library.call(request))
            if isinstance(reply, PassThrough):
                with reply, scope.outside():
                    return await self._patch.plain(client)(request, **options)
            return self._answered(reply, client, request, options, started)

        return send

    def _answering(
        self, client: _Client, request: _Request, options: Mapping[str, object]
    ) -> "Handler | _Onto":
        """Return who answers the call here, or with what the library's own `send` runs."""
        handler = self._handler(client, request)
        if handler is None:
            return _Onto(client)
        if handler is PASSING:
            return _Onto(client, scope.outside())
        way, by = self._way(client, handler, request)
        if way is Way.DOUBLE:
            own_transports.leave_alone(handler)
            return _Onto(client)
        if way is Way.OWN:
            return _Onto(client, own_transports.through(handler, request.url.host, by))
        if self._library.takes_steps(client, request, options):
            return _Onto(self._shadow(client, handler))
        return handler

    def _way(self, client: _Client, handler: Handler, request: _Request) -> tuple[Way, object]:
        library = self._library
        if not own_transports.may_send(handler):
            # Leave calls alone that cannot reach a provider.
            transport = client._transport_for_url(request.url)
            ways = [Way.DOUBLE] if library.is_double(transport) else []
            if own_transports.may_leave(handler, request.url.host):
                ways += [library.way_to_transport(client, self._patch.original)[0], library.way(transport)[0]]
            return (Way.DOUBLE if Way.DOUBLE in ways else Way.PLAIN), transport
        way, by = library.way_to_transport(client, self._patch.original)
        if way is not Way.PLAIN:
            return way, by
        transport = client._transport_for_url(request.url)
        way, by = library.way(transport)
        proxy = getattr(getattr(transport, "_pool", None), "_proxy_url", None)
        if way is Way.PLAIN and proxy is not None:
            name = proxy.host.decode("ascii", "replace")
            own_transports.note_proxy(handler, request.url.host, f"//{host_of(name, proxy.port)}")
        return way, by

    def _handler(self, client: _Client, request: _Request) -> Handler | None:
        # The library raises its own error for a closed client.
        if client.is_closed:
            return None
        url = request.url
        return self._patch.handler(request.method, host_of(url.host, url.port), url.path)

    def _shadow(self, client: _Client, handler: Handler) -> object:
        # Made of the library's own class, since a subclass may close its transport in __del__.
        shadow = self._client_class.__new__(self._client_class)
        transport = _HandlerTransport(self._library, client, handler)
        vars(shadow).update(vars(client), _transport=transport, _mounts={})
        return shadow

    def _answered(
        self, reply: HttpReply, client: _Client, request: _Request, options: Mapping[str, Any], started: float
    ) -> _Response:
        encoding = getattr(client, "_default_encoding", "utf-8")
        response = self._library.response(reply, request, encoding)
        if not options.get("stream"):
            # Serves sync and async: the body is in memory, so reading it waits for nothing.
            response.read()
        response.elapsed = timedelta(seconds=time.perf_counter() - started)
        return response


class _Onward:
    """The library's own transport, asked by one of a client's own to send what a block may want."""

    def __init__(self, library: _Library, patch: Patch) -> None:
        self._library = library
        self._patch = patch

    def blocking(self) -> Callable[..., Any]:
        def handle_request(transport: object, request: _Request) -> Any:
            plain = self._patch.plain(transport)
            handler = self._handler(transport, request, "handle_request")
            if handler is None:
                return plain(request)
            reply = handler.answer_blocking(self._library.call(request))
            if isinstance(reply, PassThrough):
                with reply, scope.outside():
                    return plain(request)
            return self._library.response(reply, request)

        return handle_request

    def awaiting(self) -> Callable[..., Awaitable[Any]]:
        async def handle_async_request(transport: object, request: _Request) -> Any:
            plain = self._patch.plain(transport)
            handler = self._handler(transport, request, "handle_async_request")
            if handler is None:
                return await plain(request)
            reply = await handler.answer(self._library.call(request))
            if isinstance(reply, PassThrough):
                with reply, scope.outside():
                    return await plain(request)
            return self._library.response(reply, request)

        return handle_async_request

    def _handler(self, transport: object, request: _Request, method: str) -> Handler | None:
        transport_path, block = own_transports.current(), self._patch.block()
        if block is None:
            return None
        # Without a transport path none of our patches has seen the call: a transport is used directly, or a test
        # double that stopped inside the block has restored an earlier `send`.
        handler = block if transport_path is None else transport_path.handler
        url = request.url
        if not handler.wants(request.method, host_of(url.host, url.port), url.path):
            return None
        way, _ = self._library.way_below(transport, self._patch.original, method)
        if transport_path is None and not own_transports.may_send(handler):
            alone = way is Way.DOUBLE and own_transports.may_leave(handler, url.host)
            return None if alone else handler
        if transport_path is not None:
            transport_path.caught = way is not Way.OWN
        return handler if way is Way.PLAIN else None


def _targets(module: ModuleType) -> Iterator[Target]:
    library = _Library(module)
    blocking = own_class(module, "Client", "_client")
    awaiting = own_class(module, "AsyncClient", "_client")
    transports = [own_class(module, name, _DEFAULT) for name in ("HTTPTransport", "AsyncHTTPTransport")]
    yield blocking, "send", lambda patch: _Send(library, blocking, patch).blocking()
    yield awaiting, "send", lambda patch: _Send(library, awaiting, patch).awaiting()
    yield transports[0], "handle_request", lambda patch: _Onward(library, patch).blocking()
    yield transports[1], "handle_async_request", lambda patch: _Onward(library, patch).awaiting()


async def _probe(module: Any) -> bool:
    def slipped_past(transport: object, request: object) -> object:
        return module.Response(500)

    async def slipped_past_too(transport: object, request: object) -> object:
        return module.Response(500)

    nowhere = type("Nowhere", (module.BaseTransport,), {"handle_request": slipped_past})
    nowhere_too = type("Nowhere", (module.AsyncBaseTransport,), {"handle_async_request": slipped_past_too})
    probe = module.Request("POST", PROBE_URL)
    # A transport of its own: a client that opened none costs no TLS context and no connection.
    async with module.AsyncClient(transport=nowhere_too(), trust_env=False) as client:
        awaited = await client.send(probe)
    with module.Client(transport=nowhere(), trust_env=False) as client:
        blocking = client.send(probe)
    return bool(awaited.status_code == blocking.status_code == CAUGHT)


_STEPS_UP_TO_OURS: Final = tuple(
    f"{name}.{method}" for name in ("Client", "AsyncClient") for method in ("send", "_transport_for_url")
)
INTERCEPTOR: Final = Patcher(
    _targets,
    *(
        Library(
            name=name,
            modules=(name,),
            marks=("USE_CLIENT_DEFAULT", "MockTransport"),
            probe=_probe,
            asked_first=_STEPS_UP_TO_OURS,
            is_requirement=True,
        )
        for name in ("httpx2", "httpx")
    ),
)
