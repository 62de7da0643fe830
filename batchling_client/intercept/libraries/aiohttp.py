"""aiohttp: ``ClientSession._request``. A caught call runs through the library's own code over a connection that
holds the reply already, so that middlewares, traces, cookies and ``raise_for_status`` are what they always are."""

import asyncio
import io
import re
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from types import ModuleType
from typing import Any, Final

from .. import own_transports
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

LONGEST_HEADER: Final = 8000
"""The library's own parser takes no longer one."""
_CONNECTING: Final = ("connect", "_create_connection", "_create_direct_connection", "_resolve_host")
_SENDS: Final = "_request"
_ASKS: Final = ("request", "post")
"""What programs call that `_SENDS` sends for; every call that a batch takes is a POST."""
_UNFIT: Final = re.compile(rb"[\r\n\0]")


class _Wire(asyncio.Transport):
    """The transport under a canned reply: what is sent goes nowhere, the reply is there before it is asked for."""

    def __init__(self, protocol: asyncio.Protocol, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._protocol = protocol
        self._loop = loop
        self._closing = False

    def write(self, data: object) -> None:
        """Discard the data: nothing is sent."""

    def writelines(self, list_of_data: object) -> None:
        """Discard the data: nothing is sent."""

    def pause_reading(self) -> None:
        """Do nothing: the whole reply is in memory."""

    def resume_reading(self) -> None:
        """Do nothing: the whole reply is in memory."""

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            self._loop.call_soon(self._protocol.connection_lost, None)

    def abort(self) -> None:
        self.close()


class _Connections:
    """The connector of a session for one call: it connects to the reply of a request that has one."""

    def __init__(self, connector: Any) -> None:
        self._connector = connector
        self.canned: dict[int, Any] = {}
        """By the id of a request, the connector that holds its reply."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connector, name)

    async def connect(self, request: object, *args: Any, **options: Any) -> Any:
        connector = self.canned.pop(id(request), self._connector)
        return await connector.connect(request, *args, **options)


class _Library:
    """The library's own classes, and the conversions between them and ours."""

    def __init__(self, module: ModuleType) -> None:
        # This library is never imported here, so its types are unknown.
        self._names: Any = module
        self._session = own_class(module, "ClientSession", "client")
        library = self._names

        def canned(connector: Any, reply: HttpReply) -> None:
            library.BaseConnector.__init__(connector, force_close=True)
            connector.batchling_reply = reply

        async def create(connector: Any, request: object, traces: object, timeout: object) -> Any:
            loop = asyncio.get_running_loop()
            protocol = library.client_proto.ResponseHandler(loop)
            protocol.connection_made(_Wire(protocol, loop))
            protocol.data_received(_raw(connector.batchling_reply))
            return protocol

        self._connector: Callable[[HttpReply], Any] = type(
            "CannedConnector", (library.BaseConnector,), {"__init__": canned, "_create_connection": create}
        )

    def has_own_way(self, connector: Any) -> bool:
        """Say whether a connector connects in a way of its own, or finds hosts by a resolver of its own."""
        plain = self._names.TCPConnector
        if not isinstance(connector, plain):
            return True
        if any(getattr(type(connector), name, None) is not getattr(plain, name) for name in _CONNECTING):
            return True
        resolver = getattr(connector, "_resolver", None)
        return resolver is not None and own_transports.package_of(resolver) != "aiohttp"

    def call(self, session: Any, method: str, url: Any, options: Mapping[str, Any]) -> HttpCall:
        """Return the call in neutral form; leave a body unread that can be read only once."""
        content = _content(session, options)
        body, kind = content or (b"", "")
        headers = {
            name.lower(): value for name, value in session._prepare_headers(options.get("headers")).items()
        }
        if kind:
            headers.setdefault("content-type", kind)
        auth = options.get("auth") or session.auth
        if auth is not None:
            headers.setdefault("authorization", auth.encode())
        return HttpCall(
            method=method,
            url=str(url),
            host=_host(url),
            path=url.path,
            headers=headers,
            body=body,
            body_unread=content is None,
        )

    def call_of(self, request: Any) -> HttpCall:
        """Return a request in neutral form, with what middlewares have changed of it."""
        body = getattr(request.body, "_value", request.body)
        if isinstance(body, io.BytesIO):
            body = body.getvalue()
        read = isinstance(body, bytes | bytearray)
        return HttpCall(
            method=request.method,
            url=str(request.url),
            host=_host(request.url),
            path=request.url.path,
            headers={name.lower(): value for name, value in request.headers.items()},
            body=bytes(body) if read else b"",
            body_unread=not read,
        )

    async def answered(
        self,
        innermost: Callable[[object], Callable[..., Awaitable[Any]]],
        session: Any,
        reply: HttpReply,
        method: str,
        url: object,
        options: Mapping[str, Any],
    ) -> Any:
        """Return the library's own response, which its own code builds from the reply."""
        unhurried = {"timeout": self._names.ClientTimeout(total=None), "proxy": None}
        return await self._sent(
            innermost, session, self._connector(reply), method, url, {**options, **unhurried}
        )

    async def through_middlewares(
        self,
        plain: Callable[[object], Callable[..., Awaitable[Any]]],
        session: Any,
        handler: Handler,
        method: str,
        url: object,
        options: Mapping[str, Any],
    ) -> Any:
        """Run the library's own code with a middleware of ours inside those of the program.

        A middleware that answers by itself, as a cache does, is not paid for, and the request is batched with what
        middlewares have changed of it.
        """
        connections = _Connections(session._connector)
        timeout = self._timeout(session, options.get("timeout", session))

        async def ask(request: Any, send: Callable[[Any], Awaitable[Any]]) -> Any:
            transport_path = own_transports.current()
            if transport_path is not None:
                transport_path.caught = True
            call = self.call_of(request)
            wanted = handler.wants(call.method, call.host, call.path)
            reply = await handler.answer(call) if wanted else PASS_THROUGH
            if isinstance(reply, PassThrough):
                with reply:
                    async with asyncio.timeout(timeout.total):
                        return await send(request)
            connections.canned[id(request)] = self._connector(reply)
            return await send(request)

        # A timeout of the program does not count the wait for a batch.
        unhurried = self._names.ClientTimeout(
            total=None,
            connect=timeout.connect,
            sock_connect=timeout.sock_connect,
            sock_read=timeout.sock_read or timeout.total,
        )
        middlewares = (*_middlewares(session, options), ask)
        options = {**options, "timeout": unhurried, "middlewares": middlewares}
        return await self._sent(plain, session, connections, method, url, options)

    def _timeout(self, session: Any, given: Any) -> Any:
        if given is None or isinstance(given, int | float):
            return self._names.ClientTimeout(total=given)
        return given if isinstance(given, self._names.ClientTimeout) else session._timeout

    async def _sent(
        self,
        send: Callable[[object], Callable[..., Awaitable[Any]]],
        session: Any,
        connector: object,
        method: str,
        url: object,
        options: Mapping[str, Any],
    ) -> Any:
        """Run the library's own code for a session that has this connector."""
        shadow = self._session.__new__(self._session)
        vars(shadow).update(vars(session), _connector=connector, _connector_owner=False)
        try:
            return await send(shadow)(method, url, **options)
        finally:
            # A session without a connector counts as closed: aiohttp does not warn when it is collected.
            vars(shadow)["_connector"] = None


def _host(url: Any) -> str:
    return host_of(url.host or "", None if url.is_default_port() else url.port)


def _url(session: Any, str_or_url: Any, options: Mapping[str, Any]) -> Any:
    """Return the URL as the library requests it."""
    url = session._build_url(str_or_url)
    params = options.get("params")
    return url.extend_query(params) if params else url


def _middlewares(session: Any, options: Mapping[str, Any]) -> Sequence[Any]:
    of_call = options.get("middlewares")
    found: Sequence[Any] = getattr(session, "_middlewares", ()) if of_call is None else of_call
    return found


def _content(session: Any, options: Mapping[str, Any]) -> tuple[bytes, str] | None:
    if options.get("json") is not None:
        # Since aiohttp 3.14 a session may have a serializer that returns bytes, which takes precedence.
        encode = getattr(session, "_json_serialize_bytes", None) or session.json_serialize
        encoded = encode(options["json"])
        return (encoded if isinstance(encoded, bytes) else encoded.encode()), "application/json"
    data = options.get("data")
    if data is None:
        return b"", ""
    if isinstance(data, str):
        return data.encode(), "text/plain; charset=utf-8"
    if isinstance(data, bytes | bytearray | memoryview):
        return bytes(data), "application/octet-stream"
    if isinstance(data, io.BytesIO):
        return data.getvalue(), "application/octet-stream"
    return None


def _raw(reply: HttpReply) -> bytes:
    lines = [b"HTTP/1.1 %d " % reply.status]
    for name, value in reply.raw_headers():
        # A line break within a value would end it, and what follows would be read as a header of its own.
        if len(value) <= LONGEST_HEADER and _UNFIT.search(value) is None:
            lines.append(name + b": " + value)
    return b"\r\n".join([*lines, b"", reply.body])


def _sending(library: _Library, patch: Patch) -> Callable[..., Awaitable[Any]]:
    async def _request(session: Any, method: str, str_or_url: Any, **options: Any) -> Any:
        plain = patch.plain
        if session.closed:
            # The library raises its own error for a closed session.
            return await plain(session)(method, str_or_url, **options)
        try:
            url = _url(session, str_or_url, options)
        except (TypeError, ValueError, AssertionError):
            return await plain(session)(method, str_or_url, **options)
        handler = patch.handler(method.upper(), _host(url), url.path)
        if handler is None or handler is PASSING:
            return await plain(session)(method, str_or_url, **options)
        way, by = _way(library, session, handler, patch, options)
        if way is not Way.PLAIN:
            if way is Way.OWN:
                own_transports.note_unseen(handler, url.host or "", by)
            else:
                own_transports.leave_alone(handler)
            return await plain(session)(method, str_or_url, **options)
        proxy = options.get("proxy") or getattr(session, "_default_proxy", None)
        if proxy is not None:
            own_transports.note_proxy(handler, url.host or "", proxy)
        if middlewares := _middlewares(session, options):
            send = patch.plain if own_transports.may_send(handler) else patch.innermost
            with own_transports.through(handler, url.host or "", own_transports.names_of(middlewares)):
                return await library.through_middlewares(send, session, handler, method, str_or_url, options)
        reply = await handler.answer(library.call(session, method.upper(), url, options))
        if isinstance(reply, PassThrough):
            with reply:
                return await plain(session)(method, str_or_url, **options)
        return await library.answered(patch.innermost, session, reply, method, str_or_url, options)

    return _request


def _way(
    library: _Library, session: Any, handler: Handler, patch: Patch, options: Mapping[str, Any]
) -> tuple[Way, object]:
    """Say how a request of this session would reach the network, and by what where that is not the library."""
    if not own_transports.may_send(handler):
        return Way.PLAIN, None
    # pook answers from a middleware, which it adds to each call.
    if own_transports.is_socket_replaced() or any(
        map(own_transports.is_recorder, _middlewares(session, options))
    ):
        return Way.DOUBLE, None
    way, by = own_transports.way_through([(patch.original, "aiohttp")])
    if way is not Way.PLAIN:
        return way, by
    return (Way.OWN if library.has_own_way(session.connector) else Way.PLAIN), session.connector


def _renewing(patch: Patch) -> Callable[..., Any]:
    def _ask(session: Any, *args: Any, **options: Any) -> Any:
        INTERCEPTOR.renew("aiohttp", _SENDS)
        return patch.plain(session)(*args, **options)

    return _ask


def _targets(module: ModuleType) -> Iterator[Target]:
    library, session = _Library(module), own_class(module, "ClientSession", "client")
    if own_transports.is_wrapped(vars(session).get(_SENDS), "aiohttp"):
        # A test double is in place, which restores the library's method over our patch: patch its callers, too.
        for name in _ASKS:
            if not own_transports.is_wrapped(vars(session).get(name), "aiohttp"):
                yield session, name, _renewing
    yield session, _SENDS, lambda patch: _sending(library, patch)


async def _probe(module: Any) -> bool:
    async def slipped_past(connector: object, request: object, traces: object, timeout: object) -> object:
        raise module.ClientError

    nowhere = type("Nowhere", (module.BaseConnector,), {"_create_connection": slipped_past})
    async with module.ClientSession(connector=nowhere()) as session, session.post(PROBE_URL) as response:
        return bool(response.status == CAUGHT)


INTERCEPTOR: Final = Patcher(
    _targets,
    Library(
        name="aiohttp",
        modules=("aiohttp",),
        marks=("ClientSession", "BaseConnector"),
        probe=_probe,
        asked_first=("ClientSession._request",),
        async_sdks=("google-genai",),
    ),
)
