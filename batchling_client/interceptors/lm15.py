"""lm15, over which DSPy sends since 3.4: ``StdlibTransport.stream`` and ``StdlibAsyncTransport._do_stream``.

An HTTP library on bare sockets, vendored by DSPy. A caught call is answered with its own response class.
"""

import functools
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from types import ModuleType
from typing import Any, Final, Protocol, cast
from urllib.parse import SplitResult, unquote, urlsplit

from ..interceptor import PASS_THROUGH, STREAMED_BODY, Handler, HttpCall, HttpReply, PassThrough, warn_once
from ..patching import Patch, Patcher, Target


class _Request(Protocol):
    method: str
    url: str
    headers: list[tuple[str, str]]
    body: object


def _asked(patch: Patch, transport: object, request: _Request) -> tuple[Handler, HttpCall] | None:
    """Who wants the call, and the call; None where it goes on as it is."""
    # A closed transport is left to the library, which has its own words for it.
    if patch.block() is None or getattr(transport, "_closed", False):
        return None
    url = urlsplit(request.url)
    handler = patch.handler(request.method, url.hostname or "", unquote(url.path))
    if handler is None:
        return None
    if not isinstance(request.body, bytes):
        warn_once(STREAMED_BODY, os.getpid())
        return None
    return handler, _call(request, url, request.body)


def _call(request: _Request, url: SplitResult, body: bytes) -> HttpCall:
    return HttpCall(
        method=request.method,
        url=request.url,
        host=url.hostname or "",
        path=unquote(url.path),
        headers={name.lower(): value for name, value in request.headers},
        body=body,
    )


def _response(make: Callable[..., Any], reply: HttpReply, chunks: object, release: object) -> Any:
    headers = [(name.decode("latin-1"), value.decode("utf-8")) for name, value in reply.raw_headers()]
    return make(
        status=reply.status,
        reason="",
        headers=headers,
        http_version="HTTP/1.1",
        chunks=chunks,
        release=release,
    )


def _blocking(library: Any, patch: Patch) -> Callable[..., Any]:
    def stream(transport: object, request: _Request) -> Any:
        asked = _asked(patch, transport, request)
        reply = PASS_THROUGH if asked is None else asked[0].answer_blocking(asked[1])
        if isinstance(reply, PassThrough):
            return patch.plain(transport)(request)

        def release(body_consumed: bool) -> None:
            """Nothing is held: the whole body is in memory."""

        return _response(library.TransportResponse, reply, iter([reply.body]), release)

    return stream


def _awaiting(library: Any, patch: Patch) -> Callable[..., Awaitable[Any]]:
    async def _do_stream(transport: object, request: _Request) -> Any:
        asked = _asked(patch, transport, request)
        reply = PASS_THROUGH if asked is None else await asked[0].answer(asked[1])
        if isinstance(reply, PassThrough):
            return await patch.plain(transport)(request)
        body = reply.body

        async def chunks() -> AsyncIterator[bytes]:
            yield body

        async def release(body_consumed: bool) -> None:
            """Nothing is held: the whole body is in memory."""

        return _response(library.AsyncTransportResponse, reply, chunks(), release)

    return _do_stream


def _targets(module: ModuleType) -> Iterator[Target]:
    library = cast("Any", module)
    ways: tuple[tuple[Any, str, Callable[[Any, Patch], Callable[..., Any]]], ...] = (
        (getattr(library, "StdlibTransport", None), "stream", _blocking),
        (getattr(library, "StdlibAsyncTransport", None), "_do_stream", _awaiting),
    )
    for owner, method, sending in ways:
        if owner is not None and method in vars(owner):
            yield owner, method, functools.partial(sending, library)


_patcher: Final = Patcher(("dspy._vendor.lm15.transports",), _targets)
install = _patcher.install
uninstall = _patcher.uninstall
