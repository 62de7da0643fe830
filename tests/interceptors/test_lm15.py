"""lm15, which DSPy vendors: its transports' calls are answered with its own response classes."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, Self

import pytest

from batchling_client import interceptors, self_test
from batchling_client.errors import NotIntercepted
from batchling_client.interceptor import HttpReply

from .fakes import FakeHandler, error_reply, process_block, refusing, task_block, who

NAME = "dspy._vendor.lm15.transports"
URL = "https://api.openai.com/v1/chat%2Fcompletions?x=1"


class ConnectError(Exception):
    pass


@dataclass(slots=True)
class TransportRequest:
    method: str
    url: str = field(repr=False)
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""


class _Response:
    def __init__(
        self,
        *,
        status: int,
        reason: str,
        headers: list[tuple[str, str]],
        http_version: str,
        chunks: Any,
        release: Callable[[bool], Any],
    ) -> None:
        self.status, self.reason, self.headers, self.http_version = status, reason, headers, http_version
        self.chunks, self.release = chunks, release


class TransportResponse(_Response):
    """As DSPy 3.4.1 has it: read once, let go once."""

    def read(self) -> bytes:
        return b"".join(self.chunks)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *what: object) -> None:
        self.release(True)


class AsyncTransportResponse(_Response):
    async def read(self) -> bytes:
        return b"".join([chunk async for chunk in self.chunks])


class _Opening:
    def __init__(self, opening: Callable[[], Awaitable[AsyncTransportResponse]]) -> None:
        self._opening = opening

    async def __aenter__(self) -> AsyncTransportResponse:
        self._response = await self._opening()
        return self._response

    async def __aexit__(self, *what: object) -> None:
        await self._response.release(True)


async def _chunks() -> AsyncIterator[bytes]:
    yield b"socket"


async def _released(consumed: bool) -> None:
    assert consumed


class StdlibTransport:
    _closed = False

    def stream(self, request: TransportRequest) -> TransportResponse:
        self._open()
        return TransportResponse(
            status=200, reason="OK", headers=[], http_version="1.1", chunks=[b"socket"], release=bool
        )

    def _open(self) -> None:
        if self._closed:
            raise RuntimeError("transport is closed")


class StdlibAsyncTransport:
    _closed = False

    def stream(self, request: TransportRequest) -> _Opening:
        return _Opening(lambda: self._do_stream(request))

    async def _do_stream(self, request: TransportRequest) -> AsyncTransportResponse:
        self._open()
        return AsyncTransportResponse(
            status=200, reason="OK", headers=[], http_version="1.1", chunks=_chunks(), release=_released
        )

    def _open(self) -> None:
        if self._closed:
            raise RuntimeError("transport is closed")


@pytest.fixture(autouse=True)
def lm15(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The library's surface under its name; every test leaves both transports as it found them."""
    module = ModuleType(NAME)
    for one in (ConnectError, TransportRequest, TransportResponse, AsyncTransportResponse):
        setattr(module, one.__name__, one)
    vars(module).update(StdlibTransport=StdlibTransport, StdlibAsyncTransport=StdlibAsyncTransport)
    monkeypatch.setitem(sys.modules, NAME, module)
    before = StdlibTransport.stream, StdlibAsyncTransport._do_stream
    yield
    assert (StdlibTransport.stream, StdlibAsyncTransport._do_stream) == before


def a_request(body: Any = b"{}", method: str = "POST") -> TransportRequest:
    return TransportRequest(method, URL, [("Authorization", "Bearer k"), ("X-Two", "2")], body)


def ask(request: TransportRequest) -> tuple[int, bytes]:
    with StdlibTransport().stream(request) as response:
        assert type(response) is TransportResponse
        return response.status, response.read()


async def ask_async(request: TransportRequest) -> tuple[int, bytes]:
    async with StdlibAsyncTransport().stream(request) as response:
        assert type(response) is AsyncTransportResponse
        return response.status, await response.read()


async def test_both_colours_are_answered_with_the_library_s_own_response() -> None:
    handler = FakeHandler()
    with task_block(handler):
        blocking = await asyncio.to_thread(ask, a_request())
        awaited = await ask_async(a_request())
    for status, body in (blocking, awaited):
        assert (status, who(body)) == (200, "batch")
    for call in handler.calls:
        assert (call.host, call.path) == ("api.openai.com", "/v1/chat/completions")
        assert (call.headers["authorization"], call.headers["x-two"]) == ("Bearer k", "2")
        assert call.body == b"{}"


async def test_an_error_comes_back_as_it_is() -> None:
    with task_block(FakeHandler(reply=error_reply(429))):
        blocking = await asyncio.to_thread(ask, a_request())
        status, body = await ask_async(a_request())
    assert blocking == (status, body)
    assert (status, json.loads(body)["error"]["code"]) == (429, "bad")


async def test_what_is_not_caught_goes_over_the_socket(caplog: pytest.LogCaptureFixture) -> None:
    for handler in (refusing(), FakeHandler(wanting=False)):
        with task_block(handler):
            assert await asyncio.to_thread(ask, a_request()) == (200, b"socket")
            assert await ask_async(a_request()) == (200, b"socket")
    with task_block(FakeHandler()):
        assert await ask_async(a_request(method="GET")) == (200, b"socket")
        assert caplog.records == []
        assert await ask_async(a_request(body=iter([b"{}"]))) == (200, b"socket")
    assert "body as a stream" in caplog.text
    assert ask(a_request()) == (200, b"socket")


def test_a_closed_transport_has_its_own_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(StdlibTransport, "_closed", True)
    with process_block(FakeHandler()), pytest.raises(RuntimeError, match="closed"):
        ask(a_request())


async def test_the_self_test_reaches_both_transports_and_tells_where_one_slips_past() -> None:
    interceptors.install()
    patched = StdlibAsyncTransport._do_stream
    try:
        await self_test.check()
        StdlibAsyncTransport._do_stream = patched.__wrapped__  # type: ignore[attr-defined, method-assign]
        with pytest.raises(NotIntercepted, match="lm15"):
            await self_test.check()
    finally:
        StdlibAsyncTransport._do_stream = patched  # type: ignore[method-assign]
        interceptors.uninstall()


async def test_headers_of_how_a_body_travelled_are_left_out() -> None:
    reply = HttpReply(status=200, headers={"Content-Encoding": "gzip", "x-a": "1"}, body=b"{}")
    with task_block(FakeHandler(reply=reply)):
        async with StdlibAsyncTransport().stream(a_request()) as response:
            assert dict(response.headers) == {"x-a": "1", "content-length": "2"}
