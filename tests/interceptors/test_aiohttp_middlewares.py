"""aiohttp's middlewares run before a call is caught: an answer of their own is not paid for, their changes are sent."""

import asyncio
import json
import socket
from collections.abc import Sequence
from typing import Any

import aiohttp
import httpx
import pytest

from .fakes import PATH, FakeHandler, Upstream, completion, error_reply, refusing, task_block, who

BODY = {"model": "llama", "messages": [{"role": "user", "content": "hi"}]}
PLACES = pytest.mark.parametrize("of_call", [False, True], ids=["session", "call"])


class Cache:
    """Answers by itself what it has been given before."""

    def __init__(self) -> None:
        self.kept: dict[str, aiohttp.ClientResponse] = {}

    async def __call__(
        self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        key = str(request.url)
        if key not in self.kept:
            answer = await handler(request)
            await answer.read()
            self.kept[key] = answer
        return self.kept[key]


async def authorize(
    request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
) -> aiohttp.ClientResponse:
    request.headers["Authorization"] = "Bearer sk-1"
    return await handler(request)


async def rewrite(
    request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
) -> aiohttp.ClientResponse:
    await request.update_body(json.dumps({**BODY, "model": "larger"}).encode())
    return await handler(request)


async def asked_twice(
    request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
) -> aiohttp.ClientResponse:
    answer = await handler(request)
    return await handler(request) if answer.status == 429 else answer


def session_and_options(
    of_call: bool, middlewares: Sequence[Any], **options: Any
) -> tuple[aiohttp.ClientSession, dict[str, Any]]:
    if of_call:
        return aiohttp.ClientSession(**options), {"middlewares": middlewares}
    return aiohttp.ClientSession(middlewares=middlewares, **options), {}


@PLACES
async def test_an_answer_of_a_middleware_is_not_paid_for(of_call: bool, upstream: Upstream) -> None:
    batch = FakeHandler("batch")
    session, options = session_and_options(of_call, [Cache()])
    async with session:
        with task_block(batch):
            for _ in range(3):
                answer = await session.post(upstream.url + PATH, json=BODY, **options)
                assert (answer.status, who(await answer.read())) == (200, "batch")
    assert len(batch.calls) == 1
    assert not upstream.seen


async def test_a_middleware_that_answers_every_call_is_named_once(
    upstream: Upstream, caplog: pytest.LogCaptureFixture
) -> None:
    batch = FakeHandler("batch")
    cache = Cache()
    async with aiohttp.ClientSession(middlewares=[cache]) as session:
        await session.post(upstream.url + PATH, json=BODY)
        with task_block(batch):
            for _ in range(3):
                answer = await session.post(upstream.url + PATH, json=BODY)
                assert who(await answer.read()) == "upstream"
    assert not batch.calls
    assert len(upstream.seen) == 1
    assert [record.getMessage().count("(Cache)") for record in caplog.records] == [1]


@PLACES
async def test_what_middlewares_have_changed_is_batched(of_call: bool, upstream: Upstream) -> None:
    batch = FakeHandler("batch")
    session, options = session_and_options(of_call, [authorize, rewrite])
    async with session:
        with task_block(batch):
            answer = await session.post(upstream.url + PATH, json=BODY, **options)
            assert who(await answer.read()) == "batch"
            assert str(answer.request_info.url) == upstream.url + PATH
    [call] = batch.calls
    assert call.headers["authorization"] == "Bearer sk-1"
    assert json.loads(call.body)["model"] == "larger"
    assert not upstream.seen


@pytest.mark.parametrize("options", [{"json": BODY}, {"data": b"{}"}, {"data": "{}"}, {}], ids=str)
async def test_a_body_is_read_as_without_middlewares(upstream: Upstream, options: dict[str, Any]) -> None:
    bodies = []
    for middlewares in ([], [authorize]):
        batch = FakeHandler("batch")
        async with aiohttp.ClientSession(middlewares=middlewares) as session:
            with task_block(batch):
                await session.post(upstream.url + PATH, **options)
        bodies.append(batch.calls[0].body)
    assert bodies[0] == bodies[1]


async def test_a_middleware_sees_an_error_and_may_ask_again(upstream: Upstream) -> None:
    batch = FakeHandler("batch", reply=error_reply(429))
    async with aiohttp.ClientSession(middlewares=[asked_twice]) as session:
        with task_block(batch):
            assert (await session.post(upstream.url + PATH, json=BODY)).status == 429
            with pytest.raises(aiohttp.ClientResponseError):
                await session.post(upstream.url + PATH, json=BODY, raise_for_status=True)
    assert len(batch.calls) == 4
    assert not upstream.seen


async def test_a_call_that_passes_is_sent_once_with_the_middlewares_changes(upstream: Upstream) -> None:
    async with aiohttp.ClientSession(middlewares=[authorize]) as session:
        with task_block(refusing()):
            answer = await session.post(upstream.url + PATH, json=BODY)
            assert who(await answer.read()) == "upstream"
            # A stream can be read only once, and reaches the server whole.
            answer = await session.post(upstream.url + PATH, data=pieces())
            assert who(await answer.read()) == "upstream"
    assert [seen[3]["authorization"] for seen in upstream.seen] == ["Bearer sk-1"] * 2
    assert [seen[2] for seen in upstream.seen] == [json.dumps(BODY).encode(), b"onetwo"]


async def pieces() -> Any:
    yield b"one"
    yield b"two"


async def test_a_timeout_holds_for_calls_that_pass_and_not_for_batches(upstream: Upstream) -> None:
    batch = FakeHandler("batch")
    batch.released.clear()
    short = aiohttp.ClientTimeout(total=0.2)
    async with aiohttp.ClientSession(middlewares=[authorize], timeout=short) as session:
        with task_block(batch):
            waiting = asyncio.create_task(session.post(upstream.url + PATH, json=BODY))
            await batch.asked.wait()
            done, _ = await asyncio.wait([waiting], timeout=0.5)
            assert not done
            batch.released.set()
            assert who(await (await waiting).read()) == "batch"
        with socket.create_server(("127.0.0.1", 0)) as silent:
            host, port = silent.getsockname()
            with task_block(refusing()), pytest.raises(TimeoutError):
                await session.post(f"http://{host}:{port}{PATH}", json=BODY)


class OverAiohttp(httpx.AsyncBaseTransport):
    """What httpx_aiohttp and the SDKs' copies of it do."""

    __module__ = "httpx_aiohttp"

    def __init__(self, client: aiohttp.ClientSession) -> None:
        self.client = client

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        answer = await self.client.request(
            request.method, str(request.url), headers=dict(request.headers), data=request.content
        )
        return httpx.Response(answer.status, content=await answer.read())


async def test_a_session_below_httpx_has_its_middlewares_too(upstream: Upstream) -> None:
    batch = FakeHandler("batch")
    session = aiohttp.ClientSession(middlewares=[Cache(), authorize])
    transport = OverAiohttp(session)
    async with session, httpx.AsyncClient(transport=transport) as client:
        with task_block(batch):
            for _ in range(2):
                answer = await client.post(upstream.url + PATH, json=BODY)
                assert (answer.status_code, answer.json()) == (200, completion("batch"))
    assert [call.headers["authorization"] for call in batch.calls] == ["Bearer sk-1"]
    assert not upstream.seen
