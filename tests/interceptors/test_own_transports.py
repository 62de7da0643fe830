"""A client's own transport is respected: what answers by itself is left alone, what it sends on is batched."""

from __future__ import annotations

import functools
import json
import logging
from typing import Any

import aiohttp
import httpx
import httpx2
import pytest
import requests
from requests.adapters import HTTPAdapter

from .fakes import PATH, FakeHandler, completion, task_block

URL = f"https://llm.example{PATH}"
LIBRARIES = [httpx, httpx2]


@pytest.fixture
def batch() -> FakeHandler:
    return FakeHandler("batch")


def said(answer: Any) -> str:
    return str(answer["choices"][0]["message"]["content"])


def both_colours(library: Any, blocking: Any, awaiting: Any = None, **options: Any) -> tuple[Any, Any]:
    return (
        library.Client(transport=blocking, **options),
        library.AsyncClient(transport=awaiting or blocking, **options),
    )


async def ask_both(clients: tuple[Any, Any]) -> list[str]:
    with clients[0] as blocking:
        first = blocking.post(URL, json={})
    async with clients[1] as awaiting:
        second = await awaiting.post(URL, json={})
    return [said(first.json()), said(second.json())]


@pytest.mark.parametrize("library", LIBRARIES, ids=lambda one: one.__name__)
async def test_a_mock_transport_answers_by_itself(
    library: Any, batch: FakeHandler, caplog: pytest.LogCaptureFixture
) -> None:
    mock = library.MockTransport(lambda request: library.Response(200, json=completion("mocked")))
    with task_block(batch):
        assert await ask_both(both_colours(library, mock)) == ["mocked"] * 2
        # With steps of the library's own around the transport, too.
        assert await ask_both(both_colours(library, mock, auth=("a", "b"))) == ["mocked"] * 2
    assert not batch.calls
    assert not caplog.records


@pytest.mark.parametrize("library", LIBRARIES, ids=lambda one: one.__name__)
async def test_an_application_answers_by_itself_and_its_own_calls_are_batched(
    library: Any, batch: FakeHandler
) -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        async with library.AsyncClient() as client:
            inner = await client.post(URL, json={})
        body = json.dumps(completion(f"app over {said(inner.json())}")).encode()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})

    def blocking_application(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [("content-type", "application/json")])
        return [json.dumps(completion("app")).encode()]

    clients = both_colours(
        library, library.WSGITransport(blocking_application), library.ASGITransport(application)
    )
    with task_block(batch):
        assert await ask_both(clients) == ["app", "app over batch"]
    assert len(batch.calls) == 1


def signing(library: Any) -> tuple[Any, Any]:
    """Transports that set the key of a call and hand it on."""

    class Signs(library.BaseTransport):  # type: ignore[misc]
        def __init__(self) -> None:
            self.onward = library.HTTPTransport()

        def handle_request(self, request: Any) -> Any:
            request.headers["authorization"] = "Bearer signed"
            return self.onward.handle_request(request)

    class SignsToo(library.AsyncHTTPTransport):  # type: ignore[misc]
        async def handle_async_request(self, request: Any) -> Any:
            request.headers["authorization"] = "Bearer signed"
            return await super().handle_async_request(request)

    return Signs(), SignsToo()


@pytest.mark.parametrize("library", LIBRARIES, ids=lambda one: one.__name__)
async def test_a_transport_that_signs_is_batched_with_its_result(
    library: Any, batch: FakeHandler, caplog: pytest.LogCaptureFixture
) -> None:
    with task_block(batch):
        assert await ask_both(both_colours(library, *signing(library))) == ["batch"] * 2
    assert [call.headers["authorization"] for call in batch.calls] == ["Bearer signed"] * 2
    assert not caplog.records


@pytest.mark.parametrize("library", LIBRARIES, ids=lambda one: one.__name__)
async def test_a_transport_that_caches_is_asked_first_and_warned_of_once(
    library: Any, batch: FakeHandler, caplog: pytest.LogCaptureFixture
) -> None:
    class Cached(library.BaseTransport, library.AsyncBaseTransport):  # type: ignore[misc]
        def handle_request(self, request: Any) -> Any:
            return library.Response(200, json=completion("cached"))

        async def handle_async_request(self, request: Any) -> Any:
            return self.handle_request(request)

    with task_block(batch):
        assert await ask_both(both_colours(library, Cached())) == ["cached"] * 2
    assert not batch.calls
    assert caplog.text.count("client's own transport (Cached)") == 1


@pytest.mark.parametrize("library", LIBRARIES, ids=lambda one: one.__name__)
async def test_a_transport_that_sends_over_another_library_is_batched_there(
    library: Any, batch: FakeHandler, caplog: pytest.LogCaptureFixture
) -> None:
    class Over(library.BaseTransport, library.AsyncBaseTransport):  # type: ignore[misc]
        def handle_request(self, request: Any) -> Any:
            with requests.Session() as session:
                answer = session.post(str(request.url), data=request.content)
            return library.Response(answer.status_code, content=answer.content)

        async def handle_async_request(self, request: Any) -> Any:
            async with aiohttp.ClientSession() as session, session.post(str(request.url), json={}) as answer:
                return library.Response(answer.status, content=await answer.read())

    with task_block(batch):
        assert await ask_both(both_colours(library, Over())) == ["batch"] * 2
    assert len(batch.calls) == 2
    assert not caplog.records


@pytest.mark.parametrize("library", LIBRARIES, ids=lambda one: one.__name__)
async def test_a_dry_run_asks_no_transport_to_send(library: Any, batch: FakeHandler) -> None:
    batch.passed.sends_nothing = True
    with task_block(batch):
        assert await ask_both(both_colours(library, *signing(library))) == ["batch"] * 2
        with requests.Session() as session:
            session.mount("https://", Recorded())
            assert said(session.post(URL, json={}).json()) == "batch"
        connector = OfItsOwn()
        async with aiohttp.ClientSession(connector=connector) as own, own.post(URL, json={}) as answer:
            assert said(await answer.json()) == "batch"


def in_place_of_the_library(library: Any) -> list[tuple[Any, str]]:
    """What recorders and doubles replace."""
    core = pytest.importorskip(library.__name__.replace("httpx", "httpcore"))
    return [
        (library.HTTPTransport, "handle_request"),
        (library.AsyncHTTPTransport, "handle_async_request"),
        (core.ConnectionPool, "handle_request"),
        (core.AsyncConnectionPool, "handle_async_request"),
    ]


@pytest.mark.parametrize("library", LIBRARIES, ids=lambda one: one.__name__)
@pytest.mark.parametrize("first", [True, False], ids=["patched before", "patched inside"])
async def test_a_double_of_the_librarys_transport_answers_by_itself(
    library: Any, batch: FakeHandler, first: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answer(transport: object, request: object) -> Any:
        return library.Response(200, json=completion("recorded"))

    async def answer_too(transport: object, request: object) -> Any:
        return answer(transport, request)

    def record() -> None:
        for owner, name in in_place_of_the_library(library)[:2]:
            monkeypatch.setattr(owner, name, answer_too if "async" in name else answer)

    if first:
        record()
    with task_block(batch):
        if not first:
            record()
        assert await ask_both((library.Client(), library.AsyncClient())) == ["recorded"] * 2
        monkeypatch.undo()
    assert not batch.calls


@pytest.mark.parametrize("library", LIBRARIES, ids=lambda one: one.__name__)
async def test_an_observer_of_the_librarys_transport_hides_no_call(
    library: Any, batch: FakeHandler, monkeypatch: pytest.MonkeyPatch
) -> None:
    for owner, name in in_place_of_the_library(library):
        plain = getattr(owner, name)

        @functools.wraps(plain)
        def observed(*args: Any, plain: Any = plain, **options: Any) -> Any:
            return plain(*args, **options)

        monkeypatch.setattr(owner, name, observed)
    with task_block(batch):
        assert await ask_both((library.Client(), library.AsyncClient())) == ["batch"] * 2
    monkeypatch.undo()


@pytest.mark.parametrize("library", LIBRARIES, ids=lambda one: one.__name__)
async def test_a_proxy_of_the_client_is_warned_of_once(
    library: Any, batch: FakeHandler, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HTTPS_PROXY", raising=False)
    proxy = "http://user:s3cret@proxy.example:3128"
    mounts = {"all://": library.HTTPTransport(proxy=proxy)}
    with task_block(batch), library.Client(mounts=mounts) as client:
        assert said(client.post(URL, json={}).json()) == "batch"
        async with library.AsyncClient(proxy=proxy) as awaiting:
            assert said((await awaiting.post(URL, json={})).json()) == "batch"
    assert caplog.text.count("proxy of their client's own") == 1
    assert "s3cret" not in caplog.text


def test_a_proxy_of_the_environment_is_the_workers_too(
    batch: FakeHandler, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:3128")
    with task_block(batch), httpx.Client() as client:
        assert said(client.post(URL, json={}).json()) == "batch"
    assert not caplog.records


class Signs(HTTPAdapter):
    def send(self, request: Any, *args: Any, **options: Any) -> Any:
        request.headers["authorization"] = "Bearer signed"
        return super().send(request, *args, **options)


class Recorded(HTTPAdapter):
    def send(self, request: Any, *args: Any, **options: Any) -> Any:
        response = requests.Response()
        response.status_code, response.request = 200, request
        response._content = json.dumps(completion("recorded")).encode()
        return response


def test_adapters_of_a_session_are_asked_as_without_batchling(
    batch: FakeHandler, caplog: pytest.LogCaptureFixture
) -> None:
    with task_block(batch), requests.Session() as session:
        session.mount("https://", Signs())
        assert said(session.post(URL, json={}).json()) == "batch"
        assert batch.calls[0].headers["authorization"] == "Bearer signed"
        assert not caplog.records
        session.mount("https://", Recorded())
        assert said(session.post(URL, json={}).json()) == "recorded"
    assert "client's own transport (Recorded)" in caplog.text


def test_a_double_in_the_place_of_every_adapter_answers_by_itself(
    batch: FakeHandler, monkeypatch: pytest.MonkeyPatch
) -> None:
    def send(adapter: object, request: Any, **options: Any) -> Any:
        return Recorded().send(request)

    monkeypatch.setattr(HTTPAdapter, "send", send)
    with task_block(batch), requests.Session() as session:
        assert said(session.post(URL, json={}).json()) == "recorded"
        monkeypatch.undo()
    assert not batch.calls


class OfItsOwn(aiohttp.BaseConnector):
    async def _create_connection(self, *args: Any, **options: Any) -> Any:
        raise aiohttp.ClientPayloadError("its own")


class Resolver(aiohttp.abc.AbstractResolver):
    async def resolve(self, *args: Any, **options: Any) -> Any:
        raise OSError("its own")

    async def close(self) -> None: ...


@pytest.mark.parametrize("make", [OfItsOwn, lambda: aiohttp.TCPConnector(resolver=Resolver())])
async def test_a_connector_of_a_session_is_asked_as_without_batchling(
    make: Any, batch: FakeHandler, caplog: pytest.LogCaptureFixture
) -> None:
    with task_block(batch):
        async with aiohttp.ClientSession(connector=make()) as session:
            with pytest.raises(aiohttp.ClientError, match=r"its own|connect"):
                await session.post(URL, json={})
    assert not batch.calls
    assert caplog.text.count("client's own transport") == 1


@pytest.fixture(autouse=True)
def logs(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
