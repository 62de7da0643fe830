"""gRPC and plain urllib3: a batchable call is sent with one warning, and other calls are left alone."""

import asyncio
import http.client
import logging
import socket
import timeit
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import botocore.session
import grpc
import httpx
import pytest
import requests
import urllib3
from botocore.config import Config

from batchling_client.intercept import scope, switch
from batchling_client.intercept.interceptor import PASS_THROUGH, HttpCall, PassThrough
from batchling_client.intercept.libraries import grpc as over_grpc
from batchling_client.intercept.out_of_reach import Foreign
from batchling_client.intercept.passed import Passed
from batchling_client.session.calls import Calls
from batchling_client.session.lanes import Terms
from batchling_client.wire.ids import new_run_id
from batchling_client.wire.routes import Route, Routes

from .fakes import FakeHandler, Upstream, process_block, task_block
from .test_scope import run_script

CHAT = "/xai_api.Chat/GetCompletion"
CHUNKS = "/xai_api.Chat/GetCompletionChunk"
BEDROCK = "bedrock-runtime.us-east-1.amazonaws.com"
BEDROCK_ROUTE = Route(
    provider="bedrock",
    hosts=("bedrock-runtime.*.amazonaws.com",),
    endpoints={"/model/{model}/invoke": "/invoke", "/model/{model}/converse": "/converse"},
    max_rows=10,
    max_bytes=1000,
    max_row_bytes=1000,
    windows=("24h",),
)


class RoutingHandler(FakeHandler):
    """Wants what a run would want of Bedrock, and lets it pass."""

    def __init__(self) -> None:
        super().__init__(reply=PASS_THROUGH)
        self._run = Calls(Terms(run_id=new_run_id(), run_name=""), Routes((BEDROCK_ROUTE,)))

    def wants(self, method: str, host: str, path: str) -> bool:
        self.wanted.append((method, host, path))
        return self._run.wants(method, host, path)


class _Echo(grpc.GenericRpcHandler):  # type: ignore[misc]
    def service(self, details: Any) -> Any:
        if details.method.endswith("Chunk"):
            return grpc.unary_stream_rpc_method_handler(lambda request, context: iter([request, request]))
        return grpc.unary_unary_rpc_method_handler(lambda request, context: request)


@pytest.fixture(scope="module")
def grpc_server() -> Iterator[str]:
    with ThreadPoolExecutor(2) as pool:
        server = grpc.server(pool)
        server.add_generic_rpc_handlers((_Echo(),))
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        yield f"127.0.0.1:{port}"
        server.stop(None).wait()


@pytest.fixture
def channel(grpc_server: str) -> Iterator[Any]:
    with grpc.insecure_channel(grpc_server) as channel:
        yield channel


@pytest.fixture
async def aio_channel(grpc_server: str) -> AsyncIterator[Any]:
    async with grpc.aio.insecure_channel(grpc_server) as channel:
        yield channel


@pytest.fixture
def everything_goes_upstream(upstream: Upstream, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every connection of urllib3, whatever the host, ends at the upstream."""
    host, _, port = upstream.url.removeprefix("http://").partition(":")

    def connect(address: object, *args: object, **options: object) -> socket.socket:
        return socket.create_connection((host, int(port)))

    monkeypatch.setattr("urllib3.util.connection.create_connection", connect)


def aws(service: str) -> Any:
    session = botocore.session.Session()
    return session.create_client(
        service,
        region_name="us-east-1",
        aws_access_key_id="AKIA",
        aws_secret_access_key="secret",
        endpoint_url=f"http://{BEDROCK}" if service == "bedrock-runtime" else "http://s3.amazonaws.com",
        config=Config(retries={"max_attempts": 0}, proxies={}),
    )


class PassingInterceptor(grpc.UnaryUnaryClientInterceptor):  # type: ignore[misc]
    def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        return continuation(details, request)


WAYS: dict[str, Callable[[Any], bytes]] = {
    "call": lambda channel: channel.unary_unary(CHAT)(b"x"),
    "with_call": lambda channel: channel.unary_unary(CHAT).with_call(b"x")[0],
    "future": lambda channel: channel.unary_unary(CHAT).future(b"x").result(),
    "chunks": lambda channel: next(iter(list(channel.unary_stream(CHUNKS)(b"x")))),
    "intercepted": lambda channel: grpc.intercept_channel(channel, PassingInterceptor()).unary_unary(CHAT)(
        b"x"
    ),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_chat_over_grpc_is_warned_of_once_and_answered(
    way: str, channel: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with process_block(FakeHandler()):
        answers = [WAYS[way](channel) for _ in range(3)]
    assert answers == [b"x"] * 3
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "xai-sdk" in caplog.text
    assert "https://api.x.ai/v1" in caplog.text


def test_a_chat_over_grpc_in_a_child_process_of_a_block_is_counted_and_warned_of(
    channel: Any, caplog: pytest.LogCaptureFixture
) -> None:
    noted: list[str] = []
    switch.install()
    scope.surround(Foreign("no block reaches here", note=noted.append))
    try:
        assert channel.unary_unary(CHAT)(b"x") == b"x"
        assert channel.unary_unary("/my.Service/Do")(b"x") == b"x"
    finally:
        scope._around.clear()
        switch.uninstall()
    assert noted == ["xai-sdk"]
    assert "no block reaches here" in caplog.text


async def test_a_chat_over_grpc_aio_is_warned_of_once_and_answered(
    aio_channel: Any, caplog: pytest.LogCaptureFixture
) -> None:
    older_than_the_block = aio_channel.unary_unary(CHAT)
    with task_block(FakeHandler()):
        assert await older_than_the_block(b"x") == b"x"
        assert [part async for part in aio_channel.unary_stream(CHUNKS)(b"y")] == [b"y", b"y"]
    assert len(caplog.records) == 1
    assert "full price" in caplog.text


def test_other_grpc_calls_and_calls_outside_of_blocks_are_silent(
    channel: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with process_block(FakeHandler()):
        assert channel.unary_unary("/xai_api.Models/ListLanguageModels")(b"x") == b"x"
        assert channel.unary_unary("/my.Service/Do")(b"x") == b"x"
        with scope.outside():
            assert channel.unary_unary(CHAT)(b"x") == b"x"
    assert channel.unary_unary(CHAT)(b"x") == b"x"
    assert caplog.records == []


def test_every_grpc_method_that_is_known_has_a_way_that_is_named(caplog: pytest.LogCaptureFixture) -> None:
    passed = Passed(Routes())
    for method in over_grpc.RPCS:
        over_grpc.note_rpc(passed, method)
    assert all("to have them batched" in record.getMessage() for record in caplog.records)
    assert len(caplog.records) == 2


@pytest.mark.usefixtures("everything_goes_upstream")
def test_boto3_calls_to_bedrock_are_warned_of_once_and_sent(
    upstream: Upstream, caplog: pytest.LogCaptureFixture
) -> None:
    runtime = aws("bedrock-runtime")
    with process_block(RoutingHandler()), caplog.at_level(logging.WARNING, "batchling_client"):
        for model in ("anthropic.claude-v1:0", "arn:aws:bedrock:us-east-1:1:inference-profile/x"):
            runtime.invoke_model(modelId=model, body=b"{}")
            runtime.converse(modelId=model, messages=[{"role": "user", "content": [{"text": "hi"}]}])
    assert len(upstream.seen) == 4
    assert len(caplog.records) == 1
    assert BEDROCK in caplog.text
    assert "AsyncAnthropicBedrock" in caplog.text
    assert "batchling submit" in caplog.text
    assert "AKIA" not in caplog.text


@pytest.mark.usefixtures("everything_goes_upstream")
def test_other_calls_of_boto3_are_silent(upstream: Upstream, caplog: pytest.LogCaptureFixture) -> None:
    with process_block(RoutingHandler()), caplog.at_level(logging.WARNING, "batchling_client"):
        aws("s3").get_object(Bucket="b", Key="k")["Body"].read()
    aws("bedrock-runtime").invoke_model(modelId="m", body=b"{}")
    assert len(upstream.seen) == 2
    assert caplog.records == []


@pytest.mark.parametrize("through_a_proxy", [False, True], ids=["direct", "proxy"])
@pytest.mark.usefixtures("everything_goes_upstream")
def test_urllib3_by_itself_is_warned_of(
    through_a_proxy: bool, upstream: Upstream, caplog: pytest.LogCaptureFixture
) -> None:
    make = urllib3.ProxyManager(upstream.url) if through_a_proxy else urllib3.PoolManager()
    handler = FakeHandler()
    with process_block(handler), make as pool:
        url = "http://API.groq.com/openai/v1/chat%2Fcompletions?x=CANARY"
        assert pool.request("POST", url, body=b"{}").status == 200
    assert handler.wanted == [("POST", "api.groq.com", "/openai/v1/chat/completions")]
    assert handler.calls == []
    assert len(caplog.records) == 1
    assert "httpx, requests or aiohttp" in caplog.text
    assert "CANARY" not in caplog.text


@pytest.mark.parametrize("through", ["direct", "proxy", "tunnel"])
def test_http_client_by_itself_is_warned_of_once_and_goes_on(
    through: str, upstream: Upstream, caplog: pytest.LogCaptureFixture
) -> None:
    handler = FakeHandler()
    site = upstream.url.removeprefix("http://")
    path = "/openai/v1/chat%2Fcompletions?x=CANARY"
    with process_block(handler):
        for _ in range(2):
            connection = http.client.HTTPConnection(site)
            if through == "tunnel":
                # What is asked for is at the other end; nobody answers there.
                connection.set_tunnel("API.groq.com", 80)
                with pytest.raises(OSError, match="Tunnel connection failed"):
                    connection.request("POST", path, b"{}")
            else:
                connection.request(
                    "POST", f"http://API.groq.com{path}" if through == "proxy" else path, b"{}"
                )
                assert connection.getresponse().status == 200
            connection.close()
    there = site if through == "direct" else "api.groq.com"
    assert handler.wanted == [("POST", there, "/openai/v1/chat/completions")] * 2
    assert handler.calls == []
    assert len(caplog.records) == 1
    assert "over http.client directly" in caplog.text
    assert "CANARY" not in caplog.text


def test_urllib_is_asked_about_posts_only_and_left_alone_outside_of_blocks(
    upstream: Upstream, caplog: pytest.LogCaptureFixture
) -> None:
    handler = FakeHandler(wanting=False)
    with process_block(handler):
        urllib.request.urlopen(f"{upstream.url}/v1/models").read()
        with scope.outside():
            urllib.request.urlopen(f"{upstream.url}/v1/chat/completions", b"{}").read()
    urllib.request.urlopen(f"{upstream.url}/v1/chat/completions", b"{}").read()
    assert handler.wanted == []
    assert caplog.records == []


def test_the_handler_is_asked_once_about_a_call_of_urllib3(upstream: Upstream) -> None:
    handler = FakeHandler()
    with process_block(handler), urllib3.PoolManager() as pool:
        pool.request("POST", f"{upstream.url}/v1/chat/completions", body=b"{}")
    assert len(handler.wanted) == 1


@pytest.mark.parametrize("takes_steps", [False, True])
def test_the_handler_is_asked_once_about_a_call_that_requests_lets_pass(
    takes_steps: bool, upstream: Upstream, caplog: pytest.LogCaptureFixture
) -> None:
    handler = FakeHandler(reply=PASS_THROUGH)
    with process_block(handler), requests.Session() as session:
        if takes_steps:
            session.auth = ("u", "p")
        session.post(upstream.url + "/v1/chat/completions", json={})
    assert len(handler.calls) == 1
    assert len(upstream.seen) == 1
    assert caplog.records == []


class OverAnother(httpx.AsyncBaseTransport, httpx.BaseTransport):
    """Sends over another library, as litellm's and openai's aiohttp transports do."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        import aiohttp

        async with aiohttp.ClientSession() as session, session.post(str(request.url), data=b"{}") as response:
            return httpx.Response(response.status, content=await response.read())

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        return httpx.Response(requests.post(str(request.url), data=b"{}", timeout=10).status_code)


def post(url: str, auth: Any) -> int:
    with httpx.Client(transport=OverAnother(), auth=auth) as client:
        return client.post(url, json={}).status_code


@pytest.mark.parametrize("auth", [None, ("u", "p")], ids=["plain", "auth"])
async def test_a_call_over_two_libraries_is_asked_about_once(auth: Any, upstream: Upstream) -> None:
    url = upstream.url + "/v1/chat/completions"
    passing, catching = FakeHandler(reply=PASS_THROUGH), FakeHandler()
    for handler in (passing, catching):
        with task_block(handler):
            async with httpx.AsyncClient(transport=OverAnother(), auth=auth) as client:
                assert (await client.post(url, json={})).status_code == 200
            assert await asyncio.to_thread(post, url, auth) == 200
    assert (len(passing.calls), len(catching.calls)) == (2, 2)
    assert len(upstream.seen) == 2


async def test_tasks_beside_a_passing_call_stay_in_their_block(upstream: Upstream) -> None:
    """Only the call itself goes outside: a task that was started before, or after, is in the block."""
    seen = []

    class Handler(FakeHandler):
        async def answer(self, call: HttpCall) -> PassThrough:
            seen.append(scope.current())
            return PASS_THROUGH

    handler = Handler()
    with task_block(handler):
        async with httpx.AsyncClient() as client:
            url = upstream.url + "/v1/chat/completions"
            await asyncio.gather(*(client.post(url, json={}) for _ in range(3)))
            assert scope.current() is handler
    assert seen == [handler] * 3
    assert scope.current() is None


def test_outside_reaches_past_process_blocks_and_ends() -> None:
    handler = FakeHandler()
    scope.enter_process(handler)
    with scope.outside():
        assert scope.current() is None
        with scope.outside():
            assert scope.current() is None
        assert scope.current() is None
    assert scope.current() is handler
    scope.leave_process(handler)


def test_watching_costs_a_call_outside_of_blocks_next_to_nothing() -> None:
    pool = urllib3.HTTPConnectionPool("h")
    plain = urllib3.HTTPConnectionPool.urlopen
    calls = 0

    def counted(*args: object, **options: object) -> None:
        nonlocal calls
        calls += 1

    urllib3.HTTPConnectionPool.urlopen = counted  # type: ignore[assignment, method-assign]
    try:
        switch.install()
        cost_s = min(timeit.repeat(lambda: pool.urlopen("POST", "/"), number=1000, repeat=5)) / 1000
        switch.uninstall()
    finally:
        urllib3.HTTPConnectionPool.urlopen = plain  # type: ignore[method-assign]
    assert calls == 5000
    assert cost_s < 2e-5


LATER = """
import logging, sys
from batchling_client.intercept import scope, switch
from batchling_client.intercept.passed import Passed
from batchling_client.wire.routes import Routes

logging.basicConfig(stream=sys.stdout, format="%(message)s")


class Handler:
    passed = Passed(Routes())

    def wants(self, method, host, path):
        return host == "probe:9"

    def passes(self, method, host, path):
        return False


switch.install()
assert not {"grpc", "urllib3", "botocore"} & set(sys.modules), "imported by install"
scope.enter_process(Handler())
"""


def test_libraries_imported_later_are_watched_and_left_as_they_were() -> None:
    out = run_script(
        LATER
        + """
import grpc, grpc._channel, urllib3

def patched():
    return [
        owner.__call__.__dict__.get("__wrapped__") is not None
        for owner in (grpc._channel._UnaryUnaryMultiCallable, grpc.aio._channel.UnaryStreamMultiCallable)
    ] + [hasattr(urllib3.HTTPConnectionPool.urlopen, "__wrapped__")]

assert patched() == [True] * 3
try:
    urllib3.HTTPConnectionPool("probe", 9).urlopen("POST", "/", retries=False, timeout=0.01)
except urllib3.exceptions.HTTPError:
    pass
switch.uninstall()
assert patched() == [False] * 3
"""
    )
    assert out.count("is sent over urllib3") == 1
