"""aiohttp: a caught call is answered with the library's own response, and what is not caught reaches the server."""

import asyncio
import functools
import gc
import io
import json
from collections.abc import AsyncIterator, Callable
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest

from batchling_client.errors import NotIntercepted
from batchling_client.intercept import probe, scope, switch
from batchling_client.intercept.interceptor import PASS_THROUGH, HttpCall, HttpReply, PassThrough
from batchling_client.session.calls import Calls, Request
from batchling_client.session.lanes import Terms
from batchling_client.wire.ids import new_run_id
from batchling_client.wire.routes import Route, Routes

from .fakes import HOSTS, PATH, FakeHandler, Upstream, error_reply, refusing, task_block, who

BODY = {"model": "llama", "messages": [{"role": "user", "content": "hé"}]}


async def test_a_caught_call_is_answered_with_the_library_s_own_response(upstream: Upstream) -> None:
    async with aiohttp.ClientSession() as session:
        with task_block(FakeHandler()):
            async with session.post(upstream.url + PATH, json=BODY) as response:
                assert type(response) is aiohttp.ClientResponse
                assert (response.status, response.reason, response.ok) == (200, "", True)
                assert who(await response.read()) == "batch"
                assert (await response.json())["choices"][0]["message"]["content"] == "batch"
                assert response.headers["X-Request-Id"] == "req_1"
                assert str(response.request_info.url) == upstream.url + PATH
            streamed = await session.post(upstream.url + PATH, json=BODY)
            assert who(b"".join([piece async for piece in streamed.content.iter_any()])) == "batch"
    assert upstream.seen == []


@pytest.mark.parametrize(
    ("options", "body"),
    [
        ({"json": BODY}, json.dumps(BODY).encode()),
        ({"data": b'{"a":1}'}, b'{"a":1}'),
        ({"data": '{"a":"\u00e9"}'}, '{"a":"é"}'.encode()),
        ({"data": io.BytesIO(b'{"a":2}')}, b'{"a":2}'),
        ({}, b""),
    ],
    ids=["json", "bytes", "text", "file in memory", "nothing"],
)
async def test_the_handler_sees_the_call_as_it_would_have_been_sent(
    upstream: Upstream, options: dict[str, Any], body: bytes
) -> None:
    handler = FakeHandler()
    async with aiohttp.ClientSession(headers={"Authorization": "Bearer sk-1"}) as session:
        with task_block(handler):
            await session.post(upstream.url + "/a%20b" + PATH, headers={"X-Two": "2"}, **options)
    [call] = handler.calls
    assert (call.method, call.host) == ("POST", urlsplit(upstream.url).netloc)
    assert (call.path, call.body) == ("/a b" + PATH, body)
    assert (call.headers["authorization"], call.headers["x-two"]) == ("Bearer sk-1", "2")
    if "json" in options:
        assert call.headers["content-type"] == "application/json"


@pytest.mark.filterwarnings("ignore:.*deprecated and will be removed:DeprecationWarning")
async def test_a_session_s_own_serializer_and_auth_are_used(upstream: Upstream) -> None:
    def spaced(content: object) -> str:
        return json.dumps(content, indent=1)

    handler = FakeHandler()
    session = aiohttp.ClientSession(
        json_serialize=spaced, auth=aiohttp.BasicAuth("a", "b"), base_url=upstream.url
    )
    async with session:
        with task_block(handler):
            await session.post(PATH, json=BODY)
    assert handler.calls[0].body == spaced(BODY).encode()
    assert handler.calls[0].headers["authorization"] == "Basic YTpi"


async def test_a_session_s_own_serializer_that_makes_bytes_is_used(upstream: Upstream) -> None:
    def spaced(content: object) -> bytes:
        return json.dumps(content, indent=1).encode()

    handler = FakeHandler()
    async with aiohttp.ClientSession(json_serialize_bytes=spaced) as session:
        with task_block(handler):
            await session.post(upstream.url + PATH, json=BODY)
    assert handler.calls[0].body == spaced(BODY)
    assert handler.calls[0].headers["content-type"] == "application/json"


async def test_the_query_is_asked_about_as_the_library_would_ask_for_it(upstream: Upstream) -> None:
    params: dict[str, str] | list[tuple[str, str]]
    handler = FakeHandler(reply=PASS_THROUGH)
    async with aiohttp.ClientSession() as session:
        with task_block(handler):
            for params in ({}, {"key": "a b&c", "x": "2"}, [("x", "2"), ("x", "3")]):
                response = await session.post(upstream.url + PATH + "?x=1", json=BODY, params=params)
                assert handler.calls[-1].url == str(response.url)
                assert handler.calls[-1].path == PATH
            with pytest.raises(TypeError):
                await session.post(upstream.url + PATH, json=BODY, params={"x": object()})  # type: ignore[dict-item]
    assert len(handler.calls) == len(upstream.seen) == 3


class RoutingHandler(FakeHandler):
    """Reads calls to the upstream as a run reads calls of a provider."""

    def __init__(self, upstream: Upstream) -> None:
        super().__init__()
        route = Route(
            provider="acme",
            hosts=(urlsplit(upstream.url).netloc,),
            endpoints={PATH: PATH},
            max_rows=10,
            max_bytes=10_000,
            max_row_bytes=10_000,
            windows=("24h",),
            query_credentials={"key": "x-goog-api-key"},
            credential_headers=("authorization", "x-goog-api-key"),
        )
        self._run = Calls(Terms(run_id=new_run_id(), run_name=""), Routes((route,)))

    async def answer(self, call: HttpCall) -> HttpReply | PassThrough:
        self.calls.append(call)
        read = self._run.read(call)
        return self.reply if isinstance(read, Request) else read


async def test_a_key_in_the_query_s_params_is_a_key(upstream: Upstream) -> None:
    async with aiohttp.ClientSession() as session:
        with task_block(RoutingHandler(upstream)):
            response = await session.post(upstream.url + PATH, json=BODY, params={"key": "K"})
            assert who(await response.read()) == "batch"


async def test_unwanted_and_passed_calls_reach_the_server_untouched(
    upstream: Upstream,
) -> None:
    handler = refusing()
    async with aiohttp.ClientSession() as session:
        plain = await (await session.post(upstream.url + PATH, json=BODY)).read()
        with task_block(handler):
            passed = await (await session.post(upstream.url + PATH, json=BODY)).read()
            other = await (await session.get(upstream.url + "/other")).read()
    assert who(plain) == who(passed) == who(other) == "upstream"
    assert [seen[1] for seen in upstream.seen] == [PATH, PATH, "/other"]
    assert upstream.seen[0] == upstream.seen[1]
    assert [call.path for call in handler.calls] == [PATH]


async def test_a_body_that_can_be_read_once_passes_through_and_is_counted(upstream: Upstream) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"{}"

    handler = FakeHandler()
    form = aiohttp.FormData()
    form.add_field("file", b"{}", filename="a.json")
    async with aiohttp.ClientSession() as session:
        with task_block(handler):
            for body in (pieces(), form):
                response = await session.post(upstream.url + PATH, data=body)
                assert who(await response.read()) == "upstream"
    assert handler.calls == []
    assert [(one.reason, one.n_calls) for one in handler.passed.counts()] == [("body sent as a stream", 2)]


async def test_an_error_is_an_error_as_the_library_has_it(upstream: Upstream) -> None:
    async with aiohttp.ClientSession(raise_for_status=True) as session:
        reply = error_reply(429, **{"x-should-retry": "false"})
        with task_block(FakeHandler(reply=reply)), pytest.raises(aiohttp.ClientResponseError) as failure:
            await session.post(upstream.url + PATH, json=BODY)
    assert failure.value.status == 429
    assert failure.value.headers is not None
    assert failure.value.headers["x-should-retry"] == "false"


async def test_timeouts_do_not_apply_to_caught_calls(upstream: Upstream) -> None:
    handler = FakeHandler()
    handler.released.clear()
    hurried = aiohttp.ClientTimeout(total=0.01)

    async def ask() -> bytes:
        async with aiohttp.ClientSession(timeout=hurried) as session:
            response = await session.post(upstream.url + PATH, json=BODY, timeout=hurried)
            return await response.read()

    with task_block(handler):
        task = asyncio.create_task(ask())
        _, pending = await asyncio.wait([task], timeout=0.1)
        assert pending
        handler.released.set()
        assert who(await task) == "batch"


async def test_a_long_answer_and_strange_headers_arrive_whole(upstream: Upstream) -> None:
    headers = {
        "Content-Encoding": "gzip",
        "Transfer-Encoding": "chunked",
        "X-Broken": "a\r\nx-smuggled: 1",
        "X-Long": "y" * 9000,
        "X-Name": "fine",
    }
    reply = HttpReply(status=529, headers=headers, body=b"z" * 3_000_000)
    async with aiohttp.ClientSession() as session:
        with task_block(FakeHandler(reply=reply)):
            async with session.post(upstream.url + PATH, json=BODY) as response:
                assert len(await response.read()) == 3_000_000
    assert response.status == 529
    assert dict(response.headers) == {"X-Name": "fine", "Content-Length": "3000000"}


async def test_cookies_traces_and_a_closed_session_are_what_they_always_are(upstream: Upstream) -> None:
    seen: list[str] = []

    async def at_end(session: object, context: object, params: aiohttp.TraceRequestEndParams) -> None:
        seen.append(f"{params.method} {params.response.status}")

    trace = aiohttp.TraceConfig()
    trace.on_request_end.append(at_end)
    reply = HttpReply(status=200, headers={"Set-Cookie": "a=b"}, body=b"{}")
    jar = aiohttp.CookieJar(unsafe=True)
    session = aiohttp.ClientSession(trace_configs=[trace], cookie_jar=jar)
    with task_block(FakeHandler(reply=reply)):
        await session.post(upstream.url + PATH, json=BODY)
        assert seen == ["POST 200"]
        assert {cookie.key: cookie.value for cookie in jar} == {"a": "b"}
        await session.close()
        with pytest.raises(RuntimeError, match="closed"):
            await session.post(upstream.url + PATH, json=BODY)


async def test_nothing_is_left_open_behind_a_thousand_calls(upstream: Upstream) -> None:
    async with aiohttp.ClientSession() as session:
        with task_block(FakeHandler()):
            replies = await asyncio.gather(
                *(session.post(upstream.url + PATH, json=BODY) for _ in range(1000))
            )
            assert {who(await reply.read()) for reply in replies} == {"batch"}
        del replies
        # Warnings are errors: an unclosed session or connection would be told here.
        gc.collect()
        assert not session.closed


async def test_the_last_user_restores_the_class_and_a_foreign_patch_stays(upstream: Upstream) -> None:
    def current() -> object:
        return vars(aiohttp.ClientSession)["_request"]

    before = current()
    switch.install()
    switch.install()
    ours: Callable[..., Any] = vars(aiohttp.ClientSession)["_request"]
    assert ours is not before
    switch.uninstall()
    assert current() is ours
    switch.uninstall()
    assert current() is before


async def test_the_probe_fails_for_a_library_whose_calls_slip_past(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    switch.install()
    try:
        await probe.check()

        async def foreign(session: object, method: str, url: str, **options: object) -> object:
            raise aiohttp.ClientError("nobody home")

        monkeypatch.setattr(aiohttp.ClientSession, "_request", foreign)
        with pytest.raises(NotIntercepted, match="aiohttp"):
            await probe.check()
        monkeypatch.undo()
        assert scope.current() is None
    finally:
        switch.uninstall()


class Tape:
    """A recorder of calls as vcrpy has it: it answers in the place of the library, or refuses."""

    def __init__(self, real: Callable[..., Any]) -> None:
        self.seen: list[str] = []

        @functools.wraps(real)
        async def play(session: Any, method: str, url: Any, **options: Any) -> Any:
            self.seen.append(str(url))
            raise LookupError("nothing of that call is on the tape")

        self.play = play


async def test_a_recorder_below_ours_sees_what_passes_only(
    upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    tape = Tape(aiohttp.ClientSession._request)
    monkeypatch.setattr(aiohttp.ClientSession, "_request", tape.play)
    async with aiohttp.ClientSession() as session:
        with task_block(FakeHandler()):
            await probe.check()
            response = await session.post(upstream.url + PATH, json=BODY)
            assert who(await response.read()) == "batch"
            with pytest.raises(LookupError):
                await session.get(upstream.url + "/other")
    assert tape.seen == [upstream.url + "/other"]


async def test_a_recorder_in_the_place_of_ours_is_found_at_the_start_of_a_block() -> None:
    plain = aiohttp.ClientSession._request
    switch.install()
    aiohttp.ClientSession._request = Tape(plain).play  # type: ignore[assignment, method-assign]
    try:
        with pytest.raises(NotIntercepted, match="aiohttp"):
            await probe.check()
    finally:
        aiohttp.ClientSession._request = plain  # type: ignore[method-assign]
        switch.uninstall()


@pytest.mark.parametrize(("url", "host"), HOSTS)
async def test_a_port_is_part_of_the_host_unless_it_is_the_schemes_own(url: str, host: str) -> None:
    handler = FakeHandler()
    async with aiohttp.ClientSession() as session:
        with task_block(handler):
            await session.post(url + PATH, json=BODY)
    assert [call.host for call in handler.calls] == [host]
    assert handler.wanted == [("POST", host, PATH)]
