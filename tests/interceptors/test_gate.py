"""In a rehearsal no call leaves for a real provider: it goes to the sandbox or is refused, over every library."""

import asyncio
import http.client
import io
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any
from unittest import mock

import aiohttp
import grpc
import httpcore
import httpx
import httpx2
import pytest
import requests
import responses
import urllib3
from lm15.transports import StdlibAsyncTransport, StdlibTransport, TransportRequest

from batchling_client.block import sandboxed
from batchling_client.block.parameters import BlockOptions
from batchling_client.block.run_handler import RunHandler
from batchling_client.errors import RequestRefused
from batchling_client.intercept import gate, scope, switch
from batchling_client.session.lanes import Terms
from batchling_client.wire.deployment.rehearsing import NO_ACCOUNT
from batchling_client.wire.ids import new_run_id
from batchling_client.wire.routes import Routes

from .fakes import FakeHandler, Upstream, process_block, refusing, task_block

KNOWN = "https://api.openai.com/v1/chat/completions"
UNKNOWN = "https://llm.invalid/v1/chat/completions"
KEY = {"authorization": "Bearer sk-real"}


@pytest.fixture
def rehearsed(upstream: Upstream) -> Iterator[Upstream]:
    """The upstream is the sandbox of this process."""
    gate.close(sandboxed.SandboxGate(upstream.url, Routes(), ["openai", "gemini"]))
    switch.install()
    yield upstream
    gate.open_again()
    switch.uninstall()


async def by_aiohttp(url: str) -> tuple[int, bytes]:
    async with aiohttp.ClientSession() as session, session.post(url, json={}, headers=KEY) as response:
        return response.status, await response.read()


def by_httpx(library: Any) -> Callable[[str], Awaitable[tuple[int, bytes]]]:
    async def post(url: str) -> tuple[int, bytes]:
        async with library.AsyncClient() as client:
            response = await client.post(url, json={}, headers=KEY)
        blocking = library.post(url, json={}, headers=KEY)
        assert (blocking.status_code, blocking.content) == (response.status_code, response.content)
        return response.status_code, response.content

    return post


async def by_requests(url: str) -> tuple[int, bytes]:
    response = await asyncio.to_thread(requests.post, url, json={}, headers=KEY, timeout=10)
    return response.status_code, response.content


async def by_urllib3(url: str) -> tuple[int, bytes]:
    def post() -> tuple[int, bytes]:
        with urllib3.PoolManager() as pool:
            whole = pool.request("POST", url, body=b"{}", headers=KEY)
            streamed = pool.request("POST", url, body="{}", headers=KEY, preload_content=False)
            assert b"".join(streamed.stream()) == whole.data
        return whole.status, whole.data

    return await asyncio.to_thread(post)


async def by_lm15(url: str) -> tuple[int, bytes]:
    request = TransportRequest("POST", url, headers=list(KEY.items()), body=b"{}")
    with StdlibTransport() as transport, transport.stream(request) as response:
        blocking = response.status, response.read()
    async with StdlibAsyncTransport() as awaiting, awaiting.stream(request) as awaited:
        assert (awaited.status, await awaited.read()) == blocking
    return blocking


WAYS = {
    "aiohttp": by_aiohttp,
    "httpx": by_httpx(httpx),
    "httpx2": by_httpx(httpx2),
    "requests": by_requests,
    "lm15": by_lm15,
    "urllib3": by_urllib3,
}


@pytest.mark.parametrize("way", WAYS)
async def test_a_call_to_a_provider_goes_to_the_sandbox_and_one_to_an_unknown_host_nowhere(
    way: str, rehearsed: Upstream
) -> None:
    for handler in (None, refusing(), FakeHandler(wanting=False)):
        rehearsed.seen.clear()
        if handler is None:
            answered, refused = await WAYS[way](KNOWN), await WAYS[way](UNKNOWN)
        else:
            with task_block(handler):
                answered, refused = await WAYS[way](KNOWN), await WAYS[way](UNKNOWN)
        assert answered[0] == 200
        assert {path for _, path, _, _ in rehearsed.seen} == {"/openai/v1/chat/completions"}
        assert {headers["authorization"] for _, _, _, headers in rehearsed.seen} == {f"Bearer {NO_ACCOUNT}"}
        assert refused[0] == 403
        error = json.loads(refused[1])["error"]
        assert error["code"] == "rehearsal"
        assert "llm.invalid" in error["message"]
        assert "was not sent" in error["message"]


async def test_a_call_that_a_batch_takes_is_answered_by_its_block(rehearsed: Upstream) -> None:
    handler = FakeHandler()
    with task_block(handler):
        assert (await by_aiohttp(KNOWN))[0] == 200
    assert len(handler.calls) == 1
    assert rehearsed.seen == []


async def test_a_call_outside_of_its_block_does_not_pass_the_gate(rehearsed: Upstream) -> None:
    with task_block(FakeHandler()), scope.outside():
        assert (await by_aiohttp(UNKNOWN))[0] == 403


def test_every_method_of_a_provider_goes_to_the_sandbox_and_other_hosts_are_reached(
    rehearsed: Upstream,
) -> None:
    assert httpx.get("https://api.openai.com/v1/models", params={"limit": "2"}).status_code == 200
    url = (
        "https://generativelanguage.googleapis.com/v1beta/models/m:streamGenerateContent?alt=sse&key=sk-real"
    )
    assert httpx.post(url, json={}).status_code == 200
    assert httpx.get(f"{rehearsed.url}/elsewhere").status_code == 200
    assert [(method, path) for method, path, _, _ in rehearsed.seen] == [
        ("GET", "/openai/v1/models"),
        ("POST", "/gemini/v1beta/models/m:streamGenerateContent"),
        ("GET", "/elsewhere"),
    ]


def test_a_provider_that_is_not_served_is_refused(rehearsed: Upstream) -> None:
    refused = httpx.post("https://api.groq.com/openai/v1/chat/completions", json={})
    assert refused.status_code == 403
    assert "--provider groq" in refused.json()["error"]["message"]
    assert rehearsed.seen == []


async def test_a_body_that_can_be_read_once_is_refused(rehearsed: Upstream) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"{}"

    async with httpx.AsyncClient() as client:
        refused = await client.post(KNOWN, content=pieces())
    assert refused.status_code == 403
    assert rehearsed.seen == []


def test_calls_that_cannot_be_answered_are_refused_with_an_error(rehearsed: Upstream) -> None:
    with (
        grpc.insecure_channel("127.0.0.1:9") as channel,
        pytest.raises(RequestRefused, match=r"xai_api\.Chat"),
    ):
        channel.unary_unary("/xai_api.Chat/GetCompletion")(b"x")
    assert rehearsed.seen == []


def test_a_sandbox_that_has_gone_is_an_answer_and_no_call_goes_elsewhere() -> None:
    gate.close(sandboxed.SandboxGate("http://127.0.0.1:9", Routes(), []))
    switch.install()
    try:
        gone = httpx.post(KNOWN, json={})
    finally:
        gate.open_again()
        switch.uninstall()
    assert gone.status_code == 503
    assert "does not answer" in gone.json()["error"]["message"]


def test_calls_that_are_refused_are_free_and_not_counted_as_passed(
    rehearsed: Upstream, caplog: pytest.LogCaptureFixture
) -> None:
    """A run's summary tells what was paid for; what the sandbox answers is counted as in a real run."""
    terms = Terms(run_id=new_run_id(), run_name="")
    run = RunHandler(terms, BlockOptions(), Routes(), None)
    with process_block(run):
        assert httpx.post(UNKNOWN, json={}).status_code == 403
        assert requests.post(UNKNOWN, json={}, timeout=10).status_code == 403
        assert httpx.post(KNOWN, content=iter([b"{}"])).status_code == 403
        assert httpx.post("https://api.groq.com/openai/v1/audio/speech", json={}).status_code == 403
        assert urllib3.PoolManager().request("POST", UNKNOWN).status == 403
        with pytest.raises(RequestRefused):
            http.client.HTTPSConnection("llm.invalid").request("POST", "/v1/chat/completions")
        with grpc.insecure_channel("127.0.0.1:9") as channel, pytest.raises(RequestRefused):
            channel.unary_unary("/xai_api.Chat/GetCompletion")(b"x")
        assert run.progress.n_passed == 0
        assert httpx.post("https://api.openai.com/v1/audio/speech", json={}).status_code == 200
    assert [(one.host, one.n_calls) for one in run.progress.passed] == [("api.openai.com", 1)]
    refused = run.passed.refusals()
    assert "4 to llm.invalid" in refused
    assert "1 to api.openai.com" in refused
    assert "1 to xai-sdk" in refused or "others" in refused
    assert len(caplog.records) == 1


def test_a_run_whose_calls_were_all_refused_says_so(rehearsed: Upstream) -> None:
    terms = Terms(run_id=new_run_id(), run_name="")
    run = RunHandler(terms, BlockOptions(), Routes(), None)
    with process_block(run):
        httpx.post(UNKNOWN, json={})
    assert "The rehearsal refused what it saw: 1 to llm.invalid" in run.summary()
    assert "full price" not in run.summary()


def doubled_below_httpx(url: str) -> httpx.Response:
    """As respx has it."""
    answer = httpcore.Response(200, content=b'{"by": "double"}')
    pool = httpcore.ConnectionPool
    with mock.patch.object(pool, "handle_request", autospec=True, return_value=answer):
        return httpx.post(url, json={}, headers=KEY)


def doubled_by_responses(url: str) -> requests.Response:
    with responses.RequestsMock(assert_all_requests_are_fired=False) as double:
        double.post(url, json={"by": "double"})
        return requests.post(url, json={}, headers=KEY, timeout=10)


def doubled_below_requests(url: str) -> requests.Response:
    """As vcrpy has it: a connection class of its own answers below the library's adapter."""

    class Connection:
        host, port, proxy, proxy_is_verified, is_verified, is_closed = "a", 443, None, None, True, True

        def __init__(self, *args: object, **options: object) -> None: ...

        def connect(self) -> None: ...

        def close(self) -> None: ...

        def request(self, *args: object, **options: object) -> None: ...

        def getresponse(self) -> urllib3.HTTPResponse:
            return urllib3.HTTPResponse(io.BytesIO(b'{"by": "double"}'), status=200, preload_content=False)

    Connection.__module__ = "vcr.stubs"
    pools = urllib3.connectionpool
    with (
        mock.patch.object(pools.HTTPSConnectionPool, "ConnectionCls", Connection),
        mock.patch.object(pools.HTTPConnectionPool, "ConnectionCls", Connection),
    ):
        return requests.post(url, json={}, headers=KEY, timeout=10)


DOUBLES = [doubled_below_httpx, doubled_by_responses, doubled_below_requests]


@pytest.mark.parametrize("ask", DOUBLES)
def test_a_double_answers_by_itself_in_a_rehearsal_without_a_block(
    rehearsed: Upstream, ask: Callable[[str], Any]
) -> None:
    assert ask(KNOWN).json() == {"by": "double"}
    assert rehearsed.seen == []


@pytest.mark.parametrize("ask", DOUBLES[:2])
def test_a_double_answers_by_itself_in_a_rehearsal_too(
    rehearsed: Upstream, ask: Callable[[str], Any]
) -> None:
    batch = FakeHandler("batch")
    with process_block(batch):
        assert ask(KNOWN).json() == {"by": "double"}
        # Nothing guards an unknown host against what a double sends on.
        assert ask(UNKNOWN).json() != {"by": "double"}
    assert len(batch.calls) == 1
    assert batch.passed.n_left_alone == 1
    assert rehearsed.seen == []
