"""httpx and httpx2: ``Client.send`` and ``AsyncClient.send``, whichever of the two is imported now or later.

A caught call is answered with the library's own response class. Where the client has an auth flow or event
hooks, the library's own ``send`` runs with a transport that asks the handler, so that these see what they
always see; else the answer is built here, at a fraction of the cost.
"""

import functools
import importlib
import os
import sys
import time
from collections.abc import Awaitable, Callable, ItemsView, Mapping, Sequence
from datetime import timedelta
from types import ModuleType
from typing import Any, Final, Protocol

import wrapt

from .. import scope
from ..interceptor import PASS_THROUGH, Handler, HttpCall, HttpReply, PassThrough, warn_once

_LIBRARIES: Final = ("httpx", "httpx2")
_STREAMED_BODY: Final = (
    "A call that could be batched sends its body as a stream, which can be read only once: it goes straight "
    "to the provider at full price. Pass the body as bytes, text or json= to have it batched."
)


class _Url(Protocol):
    @property
    def host(self) -> str: ...
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
        self._response: Callable[..., _Response] = names.Response
        self._byte_stream: Callable[[bytes], object] = names.ByteStream
        self._byte_stream_class: type = names.ByteStream
        self._request_not_read: type[Exception] = names.RequestNotRead
        self._client_default: object = names.USE_CLIENT_DEFAULT

    def call(self, request: _Request) -> HttpCall | None:
        """Return the request in neutral form; None, and one warning, where its body can be read only once."""
        try:
            body = request.content
        except self._request_not_read:
            if not isinstance(request.stream, self._byte_stream_class):
                warn_once(_STREAMED_BODY, os.getpid())
                return None
            body = request.read()
        url = request.url
        return HttpCall(
            method=request.method,
            url=str(url),
            host=url.host,
            path=url.path,
            headers=dict(request.headers.items()),
            body=body,
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
            return self._client._transport_for_url(request.url).handle_request(request)
        return self._library.response(reply, request)

    async def handle_async_request(self, request: _Request) -> _Response:
        call = self._wanted(request)
        reply = PASS_THROUGH if call is None else await self._handler.answer(call)
        if isinstance(reply, PassThrough):
            return await self._client._transport_for_url(request.url).handle_async_request(request)
        return self._library.response(reply, request)

    def _wanted(self, request: _Request) -> HttpCall | None:
        # Not always the request that was caught: an auth flow may fetch a token first.
        if not self._handler.wants(request.method, request.url.host, request.url.path):
            return None
        return self._library.call(request)


class _Patch:
    """Our ``send`` on one client class, and what stood there before."""

    def __init__(self, library: _Library, client_class: Any, *, blocking: bool) -> None:
        self._library = library
        self._client_class = client_class
        self._original: Any = vars(client_class)["send"]
        # A newer patch of ours lies over this one: it does the catching.
        self.superseded = False
        self._wrapper = functools.wraps(self._original)(self._blocking() if blocking else self._awaiting())
        client_class.send = self._wrapper

    @property
    def on_top(self) -> bool:
        return vars(self._client_class).get("send") is self._wrapper

    def take_off(self) -> bool:
        """Restore what was there before, unless somebody else's patch lies on ours."""
        if not self.on_top:
            return False
        self._client_class.send = self._original
        return True

    def _blocking(self) -> Callable[..., Any]:
        def send(client: _Client, request: _Request, **options: Any) -> Any:
            handler = self._handler(client, request)
            if handler is None:
                return self._plain(client)(request, **options)
            if self._library.takes_steps(client, request, options):
                return self._plain(self._shadow(client, handler))(request, **options)
            started = time.perf_counter()
            call = self._library.call(request)
            reply = PASS_THROUGH if call is None else handler.answer_blocking(call)
            if isinstance(reply, PassThrough):
                return self._plain(client)(request, **options)
            return self._answered(reply, client, request, options, started)

        return send

    def _awaiting(self) -> Callable[..., Awaitable[Any]]:
        async def send(client: _Client, request: _Request, **options: Any) -> Any:
            handler = self._handler(client, request)
            if handler is None:
                return await self._plain(client)(request, **options)
            if self._library.takes_steps(client, request, options):
                return await self._plain(self._shadow(client, handler))(request, **options)
            started = time.perf_counter()
            call = self._library.call(request)
            answering = None if call is None else handler.answer(call)
            # Thousands of calls wait at once, and none needs the headers of its call any more.
            del call
            reply = PASS_THROUGH if answering is None else await answering
            if isinstance(reply, PassThrough):
                return await self._plain(client)(request, **options)
            return self._answered(reply, client, request, options, started)

        return send

    def _handler(self, client: _Client, request: _Request) -> Handler | None:
        handler = scope.current()
        # A closed client is left to the library, which has its own words for it.
        if handler is None or self.superseded or not _state.installed or client.is_closed:
            return None
        url = request.url
        return handler if handler.wants(request.method, url.host, url.path) else None

    def _plain(self, client: object) -> Callable[..., Any]:
        # Bound as an attribute look-up would bind it: it may be a wrapper object of somebody else.
        bind = getattr(self._original, "__get__", None)
        bound: Callable[..., Any] = self._original if bind is None else bind(client, type(client))
        return bound

    def _shadow(self, client: _Client, handler: Handler) -> object:
        # Of the library's own class, since a subclass may close its transport in __del__.
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
            # Serves both colours: the body is in memory, reading it waits for nothing.
            response.read()
        response.elapsed = timedelta(seconds=time.perf_counter() - started)
        return response


class _State:
    def __init__(self) -> None:
        self.installed = False
        self.awaited: set[str] = set()
        # By class, not by module: httpx2.alias_httpx() makes the two modules one.
        self.patches: dict[object, _Patch] = {}


_state = _State()


def install() -> None:
    """Patch what is imported, and see to it that what is imported later is patched then."""
    _state.installed = True
    for name in _LIBRARIES:
        module = sys.modules.get(name)
        if isinstance(module, ModuleType):
            _adopt(module)
        elif module is None and name not in _state.awaited:
            _state.awaited.add(name)
            wrapt.register_post_import_hook(_adopt, name)


def uninstall() -> None:
    """Restore every client class; below somebody else's patch ours stays, and does nothing."""
    _state.installed = False
    for client_class, patch in list(_state.patches.items()):
        if patch.take_off():
            _state.patches.pop(client_class, None)


def _adopt(module: ModuleType) -> None:
    _state.awaited.discard(module.__name__)
    if _state.installed:
        # Returns once the import is complete, also where another thread is in the middle of it.
        _patch(importlib.import_module(module.__name__))


def _patch(library: ModuleType) -> None:
    if not hasattr(library, "USE_CLIENT_DEFAULT"):
        # Somebody's stand-in of that name.
        return
    for class_name, blocking in (("Client", True), ("AsyncClient", False)):
        client_class = getattr(library, class_name)
        patch = _state.patches.get(client_class)
        if patch is None or not patch.on_top:
            if patch is not None:
                patch.superseded = True
            _state.patches[client_class] = _Patch(_Library(library), client_class, blocking=blocking)
    if not _state.installed:
        # Uninstalled meanwhile by another thread, which may not have seen these patches.
        uninstall()
