"""lm15, as DSPy carries it or by itself: ``StdlibTransport.stream`` and what its async twin awaits.

It speaks HTTP over sockets of its own, so that no other library sees its calls.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from http.client import responses
from types import ModuleType
from typing import Any, Final, Protocol, cast

from ..interceptor import PASSING, Handler, HttpCall, HttpReply, PassThrough, place_of
from ..library import CAUGHT, PROBE_URL, Library
from ..patching import Patch, Patcher, Target


class _Request(Protocol):
    method: str
    url: str
    headers: Sequence[tuple[str, str]]
    body: bytes


def _wanting(patch: Patch, transport: Any, request: _Request) -> tuple[Handler, HttpCall] | None:
    # The library raises its own error for a closed transport.
    if transport._closed or patch.block() is None:
        return None
    host, path = place_of(request.url)
    handler = patch.handler(request.method, host, path)
    if handler is None or handler is PASSING:
        return None
    headers = {name.lower(): value for name, value in request.headers}
    return handler, HttpCall(
        method=request.method, url=request.url, host=host, path=path, headers=headers, body=request.body
    )


def _response(response_class: Any, reply: HttpReply, chunks: object, release: object) -> Any:
    headers = [(name.decode("latin-1"), value.decode("utf-8")) for name, value in reply.raw_headers()]
    return response_class(
        status=reply.status,
        reason=responses.get(reply.status, ""),
        headers=headers,
        http_version="HTTP/1.1",
        chunks=chunks,
        release=release,
    )


async def _chunks(body: bytes) -> AsyncIterator[bytes]:
    yield body


def _released(body_consumed: bool) -> None:
    """Do nothing: there is no connection to release."""


async def _released_too(body_consumed: bool) -> None:
    """Do nothing: there is no connection to release."""


def _blocking(library: Any, patch: Patch) -> Callable[..., Any]:
    def stream(transport: Any, request: _Request) -> Any:
        wanted = _wanting(patch, transport, request)
        if wanted is not None:
            handler, call = wanted
            reply = handler.answer_blocking(call)
            if not isinstance(reply, PassThrough):
                return _response(library.TransportResponse, reply, iter((reply.body,)), _released)
            with reply:
                return patch.plain(transport)(request)
        return patch.plain(transport)(request)

    return stream


def _awaiting(library: Any, patch: Patch) -> Callable[..., Awaitable[Any]]:
    async def _do_stream(transport: Any, request: _Request) -> Any:
        wanted = _wanting(patch, transport, request)
        if wanted is not None:
            handler, call = wanted
            reply = await handler.answer(call)
            if not isinstance(reply, PassThrough):
                return _response(library.AsyncTransportResponse, reply, _chunks(reply.body), _released_too)
            with reply:
                return await patch.plain(transport)(request)
        return await patch.plain(transport)(request)

    return _do_stream


def _targets(module: ModuleType) -> Iterator[Target]:
    library = cast("Any", module)
    yield library.StdlibTransport, "stream", lambda patch: _blocking(library, patch)
    yield library.StdlibAsyncTransport, "_do_stream", lambda patch: _awaiting(library, patch)


async def _probe(module: Any) -> bool:
    probe = module.TransportRequest("POST", PROBE_URL)
    awaiting, blocking = module.StdlibAsyncTransport(), module.StdlibTransport()
    # Without a pool, a call that is not intercepted fails before it resolves a host.
    awaiting._pool = blocking._pool = None
    async with awaiting.stream(probe) as awaited:
        pass
    with blocking.stream(probe) as waited_for:
        return bool(awaited.status == waited_for.status == CAUGHT)


INTERCEPTOR: Final = Patcher(
    _targets,
    Library(
        name="lm15",
        modules=("dspy._vendor.lm15.transports", "lm15.transports"),
        marks=("StdlibTransport",),
        probe=_probe,
        vendored={"dspy": "dspy/_vendor/lm15"},
    ),
)
