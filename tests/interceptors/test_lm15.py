"""lm15: a caught call is answered with the library's own response, and what is not caught reaches the server."""

from collections.abc import Iterator
from typing import Any

import pytest
from lm15 import transports
from lm15.transports import (
    AsyncTransportResponse,
    StdlibAsyncTransport,
    StdlibTransport,
    TransportError,
    TransportRequest,
    TransportResponse,
)

from batchling_client.errors import NotIntercepted
from batchling_client.intercept import probe, switch
from batchling_client.intercept.libraries import lm15

from .fakes import PATH, FakeHandler, Upstream, error_reply, process_block, refusing, task_block, who

BODY = b'{"model": "llama", "messages": [{"role": "user", "content": "hi"}]}'


def request(url: str, body: bytes = BODY) -> TransportRequest:
    headers = [("Content-Type", "application/json"), ("Authorization", "Bearer sk-1")]
    return TransportRequest("POST", url, headers, body, read_timeout=30)


def test_a_caught_blocking_call_is_answered_with_the_library_s_own_response(upstream: Upstream) -> None:
    with (
        process_block(FakeHandler()),
        StdlibTransport() as transport,
        transport.stream(request(upstream.url + PATH)) as response,
    ):
        body = response.read()
    assert type(response) is TransportResponse
    assert (response.status, response.reason, who(body)) == (200, "OK", "batch")
    assert response.header("X-Request-Id") == "req_1"
    assert response.header("content-length") == str(len(body))
    assert upstream.seen == []


async def test_a_caught_async_call_is_answered_with_the_library_s_own_response(upstream: Upstream) -> None:
    with task_block(FakeHandler()):
        async with StdlibAsyncTransport() as transport:
            async with transport.stream(request(upstream.url + PATH)) as response:
                body = b"".join([line async for line in response.aiter_lines()])
            awaited = await transport.stream(request(upstream.url + PATH))
            assert who(await awaited.read()) == "batch"
    assert type(response) is AsyncTransportResponse
    assert (response.status, response.header("x-request-id"), who(body)) == (200, "req_1", "batch")
    assert upstream.seen == []


async def test_the_handler_sees_the_call_as_it_would_have_been_sent(upstream: Upstream) -> None:
    handler = FakeHandler()
    with task_block(handler):
        async with StdlibAsyncTransport() as transport:
            await transport.stream(request(upstream.url + "/a%20b" + PATH + "?q=1"))
    [call] = handler.calls
    assert (call.method, call.path) == ("POST", "/a b" + PATH)
    assert call.host == upstream.url.removeprefix("http://")
    assert call.url.endswith("?q=1")
    assert call.headers == {"content-type": "application/json", "authorization": "Bearer sk-1"}
    assert call.body == BODY


async def test_unwanted_and_passed_calls_reach_the_server_untouched(
    upstream: Upstream,
) -> None:
    async def asked(path: str) -> str:
        async with StdlibAsyncTransport() as transport, transport.stream(request(upstream.url + path)) as one:
            awaited = await one.read()
        with StdlibTransport() as blocking, blocking.stream(request(upstream.url + path)) as other:
            assert other.read() == awaited
        return who(awaited)

    assert await asked(PATH) == "upstream"
    handler = refusing()
    with task_block(handler):
        assert await asked(PATH) == await asked("/other") == "upstream"
    assert [seen[1] for seen in upstream.seen] == [PATH] * 4 + ["/other"] * 2
    assert upstream.seen[0] == upstream.seen[2]
    assert [call.path for call in handler.calls] == [PATH, PATH]


def test_an_error_is_an_answer_with_its_status(upstream: Upstream) -> None:
    handler = FakeHandler(reply=error_reply(429, **{"retry-after": "1"}))
    with (
        process_block(handler),
        StdlibTransport() as transport,
        transport.stream(request(upstream.url + PATH)) as response,
    ):
        assert (response.status, response.reason) == (429, "Too Many Requests")
        assert response.header("retry-after") == "1"


async def test_a_closed_transport_raises_as_it_always_did(upstream: Upstream) -> None:
    handler = FakeHandler()
    blocking, awaiting = StdlibTransport(), StdlibAsyncTransport()
    blocking.close()
    await awaiting.aclose()
    with task_block(handler):
        with pytest.raises(TransportError, match="closed"):
            blocking.stream(request(upstream.url + PATH))
        with pytest.raises(TransportError, match="closed"):
            await awaiting.stream(request(upstream.url + PATH))
    assert handler.calls == []


def test_the_last_user_restores_the_classes() -> None:
    before = vars(StdlibTransport)["stream"], vars(StdlibAsyncTransport)["_do_stream"]
    switch.install()
    switch.install()
    switch.uninstall()
    within = vars(StdlibTransport)["stream"], vars(StdlibAsyncTransport)["_do_stream"]
    assert within[0] is not before[0]
    assert within[1] is not before[1]
    switch.uninstall()
    assert (vars(StdlibTransport)["stream"], vars(StdlibAsyncTransport)["_do_stream"]) == before


@pytest.fixture(params=["stream", "_do_stream"])
def stolen(request: pytest.FixtureRequest) -> Iterator[None]:
    """Somebody has put their own way of sending over ours."""
    owner: Any = StdlibTransport if request.param == "stream" else StdlibAsyncTransport

    def theirs(transport: object, sent: TransportRequest) -> object:
        raise ConnectionError

    async def theirs_too(transport: object, sent: TransportRequest) -> object:
        raise ConnectionError

    switch.install()
    ours = vars(owner)[request.param]
    setattr(owner, request.param, theirs if owner is StdlibTransport else theirs_too)
    yield
    setattr(owner, request.param, ours)
    switch.uninstall()


@pytest.mark.usefixtures("stolen")
async def test_the_probe_fails_for_a_library_whose_calls_slip_past() -> None:
    with pytest.raises(NotIntercepted, match="lm15"):
        await probe.check()


async def test_the_probe_opens_no_connection_if_its_call_slips_past(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    opened: list[object] = []
    monkeypatch.setattr("asyncio.open_connection", lambda *words, **_: opened.append(words))
    monkeypatch.setattr("socket.create_connection", lambda *words, **_: opened.append(words))
    monkeypatch.setattr(switch, "interceptors", lambda: (lm15.INTERCEPTOR,))
    with pytest.raises(NotIntercepted, match=transports.__name__):
        await probe.check()
    assert opened == []
