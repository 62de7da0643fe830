"""Code that a program puts in the place of its HTTP library's, or around it, before a block opens or inside it: doubles
answer by themselves, what other code sends on is batched as that code made it, and nothing goes past in silence."""

from __future__ import annotations

import functools
import http.client
import json
import logging
import types
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import aiohttp
import httpx
import httpx2
import pytest
import requests
import responses

from batchling_client.intercept import probe

from .fakes import PATH, FakeHandler, completion, task_block

URL = f"https://llm.example{PATH}"
LIBRARIES = [httpx, httpx2]
FIRST = pytest.mark.parametrize("first", [True, False], ids=["before the block", "inside it"])


@pytest.fixture(autouse=True)
def logs(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)


@pytest.fixture
def batch() -> FakeHandler:
    return FakeHandler("batch")


def said(answer: Any) -> str:
    return str(answer["choices"][0]["message"]["content"])


@contextmanager
def block(batch: FakeHandler, put: Callable[[], Any], *, first: bool) -> Iterator[None]:
    """Open a block inside what `put` enters, or the other way around."""
    with ExitStack() as stack:
        if first:
            stack.enter_context(put())
        stack.enter_context(task_block(batch))
        if not first:
            stack.enter_context(put())
        yield


def post_blocking(library: Any, body: object = None) -> Any:
    """Return the answer to one blocking call."""
    return library.post(URL, json=body or {}, timeout=5).json()


async def checked(first: bool) -> None:
    """Open a block as far as the self-test; what is put over ours later is that of the next block."""
    if first:
        await probe.check()


def of_httpx(library: Any) -> Any:
    return library.Response(200, json=completion("double"), request=library.Request("POST", URL))


def of_requests() -> requests.Response:
    response = requests.Response()
    response.status_code, response.url = 200, URL
    response.request = requests.Request("POST", URL).prepare()
    response._content = json.dumps(completion("double")).encode()
    return response


STEPS = [
    "Client.send",
    "Client._send_handling_auth",
    "Client._send_handling_redirects",
    "Client._send_single_request",
    "HTTPTransport.handle_request",
]


@FIRST
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("autospec", [True, False], ids=["autospec", "plain"])
@pytest.mark.parametrize("library", LIBRARIES, ids=lambda one: one.__name__)
async def test_a_double_of_unittest_in_httpx_answers_by_itself(
    library: Any, autospec: bool, step: str, first: bool, batch: FakeHandler, caplog: pytest.LogCaptureFixture
) -> None:
    place = f"{library.__name__}.{step}"
    options: dict[str, Any] = {"autospec": True} if autospec else {}

    def put() -> Any:
        return mock.patch(place, return_value=of_httpx(library), **options)

    with block(batch, put, first=first):
        await checked(first)
        assert said(post_blocking(library)) == "double"
    assert not batch.calls
    assert not caplog.records


@FIRST
@pytest.mark.parametrize("library", LIBRARIES, ids=lambda one: one.__name__)
async def test_a_double_in_the_place_of_async_send_answers_by_itself(
    library: Any, first: bool, batch: FakeHandler
) -> None:
    def put() -> Any:
        return mock.patch.object(library.AsyncClient, "send", mock.AsyncMock(return_value=of_httpx(library)))

    with block(batch, put, first=first):
        await checked(first)
        async with library.AsyncClient() as client:
            assert said((await client.post(URL, json={})).json()) == "double"
    assert not batch.calls


@FIRST
@pytest.mark.parametrize(
    "place",
    [
        "requests.Session.send",
        "requests.Session.request",
        "requests.adapters.HTTPAdapter.send",
    ],
)
async def test_a_double_of_unittest_in_requests_answers_by_itself(
    place: str, first: bool, batch: FakeHandler
) -> None:
    with block(batch, lambda: mock.patch(place, return_value=of_requests()), first=first):
        await checked(first)
        assert said(post_blocking(requests)) == "double"
    assert not batch.calls


@FIRST
async def test_an_adapter_that_a_double_chooses_answers_by_itself(first: bool, batch: FakeHandler) -> None:
    # As requests-mock has it: a function of its own in the place of get_adapter.
    adapter = mock.Mock()
    adapter.send.return_value = of_requests()
    place = "requests.Session.get_adapter"
    with block(batch, lambda: mock.patch(place, return_value=adapter), first=first):
        await checked(first)
        assert said(post_blocking(requests)) == "double"
    assert not batch.calls


@FIRST
async def test_responses_answers_by_itself(
    first: bool, batch: FakeHandler, caplog: pytest.LogCaptureFixture
) -> None:
    with block(batch, responses.RequestsMock, first=first):
        pass
    double = responses.RequestsMock()
    with block(batch, lambda: double, first=first):
        double.add(responses.POST, URL, json=completion("double"))
        await checked(first)
        assert said(post_blocking(requests)) == "double"
        assert len(double.calls) == 1
    assert not batch.calls
    assert not caplog.records


@FIRST
async def test_a_double_in_the_place_of_aiohttp_answers_by_itself(
    first: bool, batch: FakeHandler, caplog: pytest.LogCaptureFixture
) -> None:
    # As aioresponses has it.
    answer = mock.Mock(json=mock.AsyncMock(return_value=completion("double")))

    def put() -> Any:
        return mock.patch("aiohttp.ClientSession._request", autospec=True, return_value=answer)

    with block(batch, put, first=first):
        await checked(first)
        async with aiohttp.ClientSession() as session:
            assert said(await (await session.post(URL, json={})).json()) == "double"
    assert not batch.calls
    assert not caplog.records


async def test_a_function_in_the_place_of_aiohttp_is_asked_and_warned_of(
    batch: FakeHandler, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def _request(session: object, method: str, url: object, **options: object) -> Any:
        return mock.Mock(json=mock.AsyncMock(return_value=completion("own")))

    monkeypatch.setattr(aiohttp.ClientSession, "_request", _request)
    with task_block(batch):
        await probe.check()
        async with aiohttp.ClientSession() as session:
            for _ in range(2):
                assert said(await (await session.post(URL, json={})).json()) == "own"
    monkeypatch.undo()
    assert not batch.calls
    assert caplog.text.count("which replaces code of aiohttp") == 1


CLASSES = ["httpx.AsyncClient", "httpx2.AsyncClient", "requests.Session", "aiohttp.ClientSession"]


@pytest.mark.parametrize("place", CLASSES)
@pytest.mark.parametrize("autospec", [True, False], ids=["autospec", "plain"])
async def test_clients_older_than_a_double_of_their_class_are_batched(
    place: str, autospec: bool, batch: FakeHandler
) -> None:
    clients: dict[str, Any] = {
        "httpx.AsyncClient": httpx.AsyncClient(),
        "httpx2.AsyncClient": httpx2.AsyncClient(),
        "requests.Session": requests.Session(),
        "aiohttp.ClientSession": aiohttp.ClientSession(),
    }
    try:
        with mock.patch(place, autospec=autospec or None), task_block(batch):
            await probe.check()
            sent = clients[place].post(URL, json={})
            answer = sent if place.startswith("requests") else await sent
            found = answer.json() if "aiohttp" not in place else await answer.json()
            assert said(found) == "batch"
    finally:
        for name in CLASSES[:2]:
            await clients[name].aclose()
        await clients["aiohttp.ClientSession"].close()
        clients["requests.Session"].close()


PLACES = [("Client", "send"), ("HTTPTransport", "handle_request")]


def signing(original: Any, *, marked: bool) -> Callable[..., Any]:
    """Wrap a library's function to set the key of a call, blocking or awaiting like the wrapped function."""

    def signs(owner: object, request: Any, **options: Any) -> Any:
        request.headers["authorization"] = "Bearer signed"
        return original(owner, request, **options)

    return functools.wraps(original)(signs) if marked else signs


@FIRST
@pytest.mark.parametrize("marked", [True, False], ids=["wraps", "unmarked"])
@pytest.mark.parametrize(("owner", "name"), PLACES)
@pytest.mark.parametrize("library", LIBRARIES, ids=lambda one: one.__name__)
async def test_a_call_that_code_around_httpx_signs_is_batched_as_signed(
    library: Any,
    owner: str,
    name: str,
    marked: bool,
    first: bool,
    batch: FakeHandler,
    caplog: pytest.LogCaptureFixture,
) -> None:
    @contextmanager
    def put() -> Iterator[None]:
        with ExitStack() as stack:
            for prefix in ("", "Async"):
                place = getattr(library, prefix + owner)
                method = name.replace("handle_", "handle_async_") if prefix else name
                signs = signing(vars(place)[method], marked=marked)
                stack.enter_context(mock.patch.object(place, method, signs))
            yield

    with block(batch, put, first=first):
        await checked(first)
        assert said(post_blocking(library, {"n": 1})) == "batch"
        async with library.AsyncClient() as client:
            assert said((await client.post(URL, json={"n": 2})).json()) == "batch"
    assert [call.headers["authorization"] for call in batch.calls] == ["Bearer signed"] * 2
    assert [json.loads(call.body) for call in batch.calls] == [{"n": 1}, {"n": 2}]
    assert [(call.host, call.path, call.url) for call in batch.calls] == [("llm.example", PATH, URL)] * 2
    assert not caplog.records


def test_a_transport_of_a_programs_own_over_httpcore_is_batched(
    batch: FakeHandler, caplog: pytest.LogCaptureFixture
) -> None:
    core: Any = pytest.importorskip("httpcore")

    class OverPool(httpx.BaseTransport):
        def __init__(self, pool: Any) -> None:
            self.pool = pool

        def handle_request(self, request: httpx.Request) -> httpx.Response:
            url = str(request.url)
            answer = self.pool.request("POST", url, headers=request.headers.raw, content=request.read())
            return httpx.Response(answer.status, headers=answer.headers, content=answer.content)

    class Elsewhere(core.ConnectionPool):  # type: ignore[misc]
        def create_connection(self, origin: object) -> Any:
            raise core.ConnectError("a way of its own")

    with task_block(batch):
        with httpx.Client(transport=OverPool(core.ConnectionPool())) as client:
            assert said(client.post(URL, json={}).json()) == "batch"
        assert not caplog.records
        with httpx.Client(transport=OverPool(Elsewhere())) as client, pytest.raises(core.ConnectError):
            client.post(URL, json={})
    assert len(batch.calls) == 1
    assert "client's own transport (OverPool)" not in caplog.text


def test_code_that_sends_in_a_way_of_its_own_is_warned_of_even_where_it_fails(
    batch: FakeHandler, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def send(adapter: object, request: Any, **options: Any) -> Any:
        raise requests.ConnectionError("sent over a socket of its own")

    monkeypatch.setattr(requests.adapters.HTTPAdapter, "send", send)
    with task_block(batch), pytest.raises(requests.ConnectionError):
        post_blocking(requests)
    monkeypatch.undo()
    assert not batch.calls
    assert "which replaces code of requests" in caplog.text
    assert "full price" in caplog.text


def test_an_answer_from_a_cache_is_not_warned_of_once_the_cache_has_sent_a_call_on(
    batch: FakeHandler, caplog: pytest.LogCaptureFixture
) -> None:
    class Cached(httpx.HTTPTransport):
        kept: httpx.Response | None = None

        def handle_request(self, request: httpx.Request) -> httpx.Response:
            if self.kept is None:
                answer = super().handle_request(request)
                Cached.kept = httpx.Response(200, content=answer.read())
            return Cached.kept or of_httpx(httpx)

    with task_block(batch), httpx.Client(transport=Cached()) as client:
        assert [said(client.post(URL, json={}).json()) for _ in range(3)] == ["batch"] * 3
    assert len(batch.calls) == 1
    assert not caplog.records


async def test_a_recorder_that_replaced_connections_before_the_block_stops_nothing(
    batch: FakeHandler, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As vcrpy has it: a class of its own under the name of http.client's.
    def putrequest(connection: object, *args: object) -> None: ...

    base = type("VCRConnection", (), {"putrequest": putrequest, "__module__": "vcr.stubs"})
    double = types.new_class(
        "VCRHTTPConnection", (base,), exec_body=lambda names: names.update(__module__="vcr.stubs")
    )
    own = http.client.HTTPConnection
    monkeypatch.setattr(http.client, "HTTPConnection", double)
    before = vars(own)["putrequest"]
    with task_block(batch):
        await probe.check()
        assert vars(own)["putrequest"] is not before
    assert vars(own)["putrequest"] is before
    assert vars(base)["putrequest"] is putrequest


@pytest.mark.parametrize("library", LIBRARIES, ids=lambda one: one.__name__)
async def test_an_outer_block_catches_calls_again_once_a_double_over_it_is_stopped(
    library: Any, batch: FakeHandler
) -> None:
    # A block inside the double makes a patch over it; the double puts back the patch that it was started over.
    before = vars(library.AsyncClient)["send"]
    with task_block(batch):
        answer = mock.AsyncMock(return_value=of_httpx(library))
        with mock.patch.object(library.AsyncClient, "send", answer), task_block(FakeHandler("inner")):
            async with library.AsyncClient() as client:
                assert said((await client.post(URL, json={})).json()) == "double"
        async with library.AsyncClient() as client:
            assert said((await client.post(URL, json={})).json()) == "batch"
    assert vars(library.AsyncClient)["send"] is before


@pytest.mark.parametrize("library", [*LIBRARIES, requests], ids=lambda one: one.__name__)
def test_a_double_from_before_the_block_that_is_stopped_inside_it_hides_no_call(
    library: Any, batch: FakeHandler
) -> None:
    owner = library.Session if library is requests else library.Client
    before = vars(owner)["send"]
    double = mock.patch.object(owner, "send", return_value=of_requests())
    double.start()
    with task_block(batch):
        double.stop()
        assert said(post_blocking(library)) == "batch"
    assert vars(owner)["send"] is before
    assert len(batch.calls) == 1


@pytest.mark.parametrize("way", ["post", "request"])
async def test_a_double_of_aiohttp_that_is_stopped_inside_the_block_hides_no_call(
    way: str, batch: FakeHandler
) -> None:
    own = aiohttp.ClientSession
    before = dict(vars(own))
    double = mock.patch.object(own, "_request", autospec=True, return_value=mock.Mock())
    double.start()
    async with own() as session:
        with task_block(batch):
            ask = session.post if way == "post" else functools.partial(session.request, "POST")
            await ask(URL, json={})
            assert not batch.calls
            double.stop()
            for _ in range(2):
                answer = await ask(URL, json={})
                assert said(await answer.json()) == "batch"
    assert len(batch.calls) == 2
    assert dict(vars(own)) == before


async def test_a_double_of_aiohttp_is_left_alone_where_programs_see_it(batch: FakeHandler) -> None:
    own = aiohttp.ClientSession
    with (
        mock.patch.object(own, "_request", autospec=True) as sends,
        mock.patch.object(own, "post") as asks,
        task_block(batch),
    ):
        assert own.post is asks
        async with own() as session:
            session.post(URL, json={})
            await session.request("POST", URL, json={})
    asks.assert_called_once()
    sends.assert_called_once()
    assert not batch.calls


@pytest.mark.parametrize("of_session", [True, False])
async def test_a_double_that_answers_from_a_middleware_of_aiohttp_is_left_alone(
    of_session: bool, batch: FakeHandler, caplog: pytest.LogCaptureFixture
) -> None:
    # As pook has it, where it is started inside a block.
    answer = mock.Mock(json=mock.AsyncMock(return_value=completion("double")), release=mock.Mock())

    class Answers:
        __module__ = "pook.interceptors.aiohttp"

        async def __call__(self, request: Any, handler: Any) -> Any:
            return answer

    options: dict[str, Any] = {"middlewares": (Answers(),)}
    jar = aiohttp.DummyCookieJar()
    with task_block(batch):
        async with aiohttp.ClientSession(cookie_jar=jar, **(options if of_session else {})) as session:
            found = await session.post(URL, json={}, **({} if of_session else options))
            assert said(await found.json()) == "double"
    assert not batch.calls
    assert not caplog.records
