"""A caught call is answered like a real one, and whatever is not caught reaches the server untouched."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import pytest

from batchling_client.intercept.interceptor import HttpReply

from .fakes import HOSTS, PATH, FakeHandler, Upstream, process_block, refusing, task_block, who

BODY = {"model": "llama", "messages": [{"role": "user", "content": "hi"}]}


async def ask(library: Any, url: str, **options: Any) -> Any:
    async with library.AsyncClient(verify=False) as client:
        return await client.post(url, json=BODY, **options)


def ask_blocking(library: Any, url: str, **options: Any) -> Any:
    with library.Client(verify=False) as client:
        return client.post(url, json=BODY, **options)


async def ask_either(library: Any, url: str, *, blocking: bool) -> Any:
    return ask_blocking(library, url) if blocking else await ask(library, url)


blocking = pytest.mark.parametrize("blocking", [False, True], ids=["async", "sync"])


@blocking
async def test_a_caught_call_is_answered_with_the_library_s_own_finished_response(
    library: Any, upstream: Upstream, blocking: bool
) -> None:
    with task_block(FakeHandler()):
        response = await ask_either(library, upstream.url + PATH, blocking=blocking)
    assert type(response) is library.Response
    assert who(response.content) == "batch"
    assert response.raise_for_status() is response
    assert str(response.request.url) == upstream.url + PATH
    assert timedelta(0) < response.elapsed < timedelta(seconds=10)
    assert response.is_closed
    assert response.http_version == "HTTP/1.1"
    assert response.reason_phrase == "OK"
    assert dict(response.headers) == {
        "content-type": "application/json",
        "x-request-id": "req_1",
        "content-length": str(len(response.content)),
    }
    assert upstream.seen == []


@blocking
async def test_the_handler_sees_the_call_as_it_would_have_been_sent(
    library: Any, upstream: Upstream, blocking: bool
) -> None:
    handler = FakeHandler()
    options = {
        "headers": [("X-Two", "1"), ("X-Two", "2"), ("Authorization", "Bearer sk-1")],
        "params": {"q": "a b"},
    }
    with task_block(handler):
        if blocking:
            ask_blocking(library, upstream.url + "/a%20b" + PATH, **options)
        else:
            await ask(library, upstream.url + "/a%20b" + PATH, **options)
    [call] = handler.calls
    assert (call.method, call.host, call.path) == ("POST", urlsplit(upstream.url).netloc, "/a b" + PATH)
    assert call.url.startswith(f"{upstream.url}/a%20b{PATH}?q=a")
    assert call.headers["x-two"] == "1, 2"
    assert call.headers["authorization"] == "Bearer sk-1"
    assert call.body == library.Request("POST", upstream.url, json=BODY).content
    assert "sk-1" not in repr(call)


@blocking
async def test_unwanted_and_passed_calls_reach_the_server_untouched(
    library: Any, upstream: Upstream, blocking: bool
) -> None:
    plain = await ask_either(library, upstream.url + PATH, blocking=blocking)
    handler = refusing()
    with task_block(handler):
        passed = await ask_either(library, upstream.url + PATH, blocking=blocking)
        other = await ask_either(library, upstream.url + "/other", blocking=blocking)
    assert who(plain.content) == who(passed.content) == who(other.content) == "upstream"
    assert [seen[1] for seen in upstream.seen] == [PATH, PATH, "/other"]
    assert upstream.seen[0] == upstream.seen[1]
    assert [call.path for call in handler.calls] == [PATH]


async def test_a_stream_is_unread_until_it_is_read(library: Any) -> None:
    with task_block(FakeHandler()):
        async with library.AsyncClient(verify=False) as client:
            for method in ("aread", "aiter_bytes", "aiter_raw", "aiter_lines"):
                async with client.stream("POST", "http://provider.test" + PATH, json=BODY) as response:
                    with pytest.raises(library.ResponseNotRead):
                        assert response.content
                    got = getattr(response, method)()
                    parts = [await got] if method == "aread" else [part async for part in got]
                    whole = "".join(parts).encode() if method == "aiter_lines" else b"".join(parts)
                    assert who(whole) == "batch"
                assert response.is_closed
                assert response.elapsed >= timedelta(0)


def test_a_blocking_stream_is_unread_until_it_is_read(library: Any) -> None:
    with process_block(FakeHandler()), library.Client(verify=False) as client:
        for method in ("read", "iter_bytes", "iter_raw"):
            with client.stream("POST", "http://provider.test" + PATH, json=BODY) as response:
                with pytest.raises(library.ResponseNotRead):
                    assert response.content
                got = getattr(response, method)()
                assert who(got if method == "read" else b"".join(got)) == "batch"
            assert response.is_closed


async def test_the_client_s_default_encoding_is_used(library: Any) -> None:
    reply = HttpReply(status=200, headers={"content-type": "text/plain"}, body="é".encode("latin-1"))
    with task_block(FakeHandler(reply=reply)):
        async with library.AsyncClient(verify=False, default_encoding="latin-1") as client:
            assert (await client.post("http://provider.test" + PATH, json=BODY)).text == "é"


async def test_headers_on_how_a_body_once_travelled_do_not_break_it(library: Any) -> None:
    headers = {
        "Content-Encoding": "gzip",
        "Transfer-Encoding": "chunked",
        "Content-Length": "1",
        "X-Name": "ü",
    }
    with task_block(FakeHandler(reply=HttpReply(status=200, headers=headers, body=b"plain"))):
        response = await ask(library, "http://provider.test" + PATH)
    assert response.content == b"plain"
    assert dict(response.headers) == {"x-name": "ü", "content-length": "5"}


async def test_timeouts_do_not_apply_to_caught_calls(library: Any) -> None:
    handler = FakeHandler()
    handler.released.clear()
    with task_block(handler):
        task = asyncio.create_task(ask(library, "http://provider.test" + PATH, timeout=0.001))
        _, pending = await asyncio.wait([task], timeout=0.1)
        assert pending
        handler.released.set()
        assert who((await task).content) == "batch"


async def test_a_cancelled_caller_leaves_the_handler_at_once(library: Any) -> None:
    handler = FakeHandler()
    handler.released.clear()
    with task_block(handler), pytest.raises(TimeoutError):
        await asyncio.wait_for(ask(library, "http://provider.test" + PATH), 0.05)


async def test_a_closed_client_raises_as_it_always_did(library: Any) -> None:
    handler = FakeHandler()
    with task_block(handler):
        client = library.AsyncClient(verify=False)
        await client.aclose()
        with pytest.raises(RuntimeError, match="closed"):
            await client.post("http://provider.test" + PATH)
        blocking_client = library.Client(verify=False)
        blocking_client.close()
        with pytest.raises(RuntimeError, match="closed"):
            blocking_client.post("http://provider.test" + PATH)
    assert handler.calls == []


async def test_hooks_are_called_once_each_and_may_change_the_request(
    library: Any, upstream: Upstream
) -> None:
    log: list[str] = []

    async def on_request(request: Any) -> None:
        request.headers["x-hook"] = "yes"
        log.append("request")

    async def on_response(response: Any) -> None:
        log.append(f"response {response.status_code} {(await response.aread() and who(response.content))}")

    hooks = {"request": [on_request], "response": [on_response]}
    for handler, name in ((FakeHandler(), "batch"), (refusing(), "upstream")):
        async with library.AsyncClient(verify=False, event_hooks=hooks) as client:
            with task_block(handler):
                response = await client.post(upstream.url + PATH, json=BODY)
        assert who(response.content) == name
        assert response.elapsed > timedelta(0)
        assert handler.calls[0].headers["x-hook"] == "yes"
        assert log == ["request", f"response 200 {name}"]
        log.clear()
    assert upstream.seen[0][3]["x-hook"] == "yes"


def test_blocking_hooks_are_called_once_each(library: Any, upstream: Upstream) -> None:
    log: list[str] = []
    hooks = {
        "request": [lambda request: log.append("request")],
        "response": [lambda response: log.append(f"response {response.status_code}")],
    }
    for handler, name in ((FakeHandler(), "batch"), (refusing(), "upstream")):
        with library.Client(verify=False, event_hooks=hooks) as client, process_block(handler):
            assert who(client.post(upstream.url + PATH, json=BODY).content) == name
        assert log == ["request", "response 200"]
        log.clear()


async def test_a_client_s_auth_is_seen_by_the_handler(library: Any, upstream: Upstream) -> None:
    def sign(request: Any) -> Any:
        request.headers["authorization"] = "Bearer signed"
        return request

    for auth, expected in ((sign, "Bearer signed"), (("a", "b"), "Basic YTpi")):
        handler = FakeHandler()
        with task_block(handler):
            async with library.AsyncClient(verify=False, auth=auth) as client:
                assert who((await client.post(upstream.url + PATH, json=BODY)).content) == "batch"
            with library.Client(verify=False) as blocking_client:
                blocking_client.post(upstream.url + PATH, json=BODY, auth=auth)
        assert [call.headers["authorization"] for call in handler.calls] == [expected, expected]
    handler = FakeHandler()
    with task_block(handler):
        await ask(library, upstream.url.replace("//", "//a:b@") + PATH)
    assert handler.calls[0].headers["authorization"] == "Basic YTpi"


async def test_an_auth_flow_that_fetches_a_token_first_gets_it_from_the_server(
    library: Any, upstream: Upstream
) -> None:
    class TokenAuth(library.Auth):  # type: ignore[misc]
        requires_response_body = True

        def auth_flow(self, request: Any) -> Any:
            response = yield library.Request("POST", upstream.url + "/token")
            request.headers["authorization"] = "Bearer " + response.json()["token"]
            yield request

    handler = FakeHandler()
    with task_block(handler):
        async with library.AsyncClient(verify=False, auth=TokenAuth()) as client:
            assert who((await client.post(upstream.url + PATH, json=BODY)).content) == "batch"
        with library.Client(verify=False, auth=TokenAuth()) as blocking_client:
            assert who(blocking_client.post(upstream.url + PATH, json=BODY).content) == "batch"
    assert [call.headers["authorization"] for call in handler.calls] == ["Bearer fresh", "Bearer fresh"]
    assert [seen[1] for seen in upstream.seen] == ["/token", "/token"]


async def test_a_body_that_can_be_read_once_passes_through_and_is_counted(
    library: Any, upstream: Upstream
) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield b"{}"

    def blocking_chunks() -> Iterator[bytes]:
        yield b"{}"

    handler = FakeHandler()
    with task_block(handler):
        async with library.AsyncClient(verify=False) as client:
            for options in ({"content": chunks()}, {"files": {"file": b"{}"}}):
                response = await client.post(upstream.url + PATH, **options)
                assert who(response.content) == "upstream"
        with library.Client(verify=False) as blocking_client:
            response = blocking_client.post(upstream.url + PATH, content=blocking_chunks())
    assert who(response.content) == "upstream"
    assert (upstream.seen[0][2], upstream.seen[2][2]) == (b"{}", b"{}")
    assert handler.calls == []
    assert [(one.reason, one.n_calls) for one in handler.passed.counts()] == [("body sent as a stream", 3)]


async def test_a_stream_body_that_is_not_ours_is_not_read(library: Any, upstream: Upstream) -> None:
    n_read: list[int] = []

    async def chunks() -> AsyncIterator[bytes]:
        n_read.append(len(upstream.seen))
        yield b"one"

    with task_block(FakeHandler()):
        async with library.AsyncClient(verify=False) as client:
            request = client.build_request("POST", upstream.url + "/other", content=chunks())
            await client.send(request)
    assert n_read == [0]
    assert upstream.seen[0][2] == b"one"


async def test_a_request_made_from_a_byte_stream_is_caught(library: Any, upstream: Upstream) -> None:
    handler = FakeHandler()
    with task_block(handler):
        async with library.AsyncClient(verify=False) as client:
            request = library.Request("POST", upstream.url + PATH, stream=library.ByteStream(b"{}"))
            assert who((await client.send(request=request)).content) == "batch"
    assert handler.calls[0].body == b"{}"


async def test_a_subclass_that_overrides_send_is_caught_below_its_override(
    library: Any, upstream: Upstream
) -> None:
    class Counting(library.AsyncClient):  # type: ignore[misc]
        n_sent = 0

        async def send(self, *args: Any, **options: Any) -> Any:
            self.n_sent += 1
            return await super().send(*args, **options)

    handler = FakeHandler()
    with task_block(handler):
        async with Counting(verify=False) as client:
            assert who((await client.post(upstream.url + PATH, json=BODY)).content) == "batch"
    assert client.n_sent == len(handler.calls) == 1


async def test_two_blocks_in_two_tasks_answer_their_own_callers(library: Any) -> None:
    async def run(name: str) -> str:
        with task_block(FakeHandler(name)):
            responses = await asyncio.gather(*(ask(library, "http://provider.test" + PATH) for _ in range(3)))
        assert len({who(response.content) for response in responses}) == 1
        return who(responses[0].content)

    assert list(await asyncio.gather(run("a"), run("b"))) == ["a", "b"]


async def test_nested_blocks_answer_from_the_innermost(library: Any, upstream: Upstream) -> None:
    names: list[str] = []

    async def note() -> None:
        names.append(who((await ask(library, upstream.url + PATH)).content))

    with task_block(FakeHandler("outer")):
        await note()
        with task_block(FakeHandler("inner")):
            await note()
        await note()
    await note()
    assert names == ["outer", "inner", "outer", "upstream"]


async def test_a_call_started_inside_is_answered_after_the_block_and_a_later_one_is_not_caught(
    library: Any, upstream: Upstream
) -> None:
    handler = FakeHandler()
    handler.released.clear()

    async def twice() -> list[str]:
        return [who((await ask(library, upstream.url + PATH)).content) for _ in range(2)]

    with task_block(handler):
        task = asyncio.create_task(twice())
        await asyncio.wait_for(handler.asked.wait(), 10)
    handler.released.set()
    assert await task == ["batch", "upstream"]


async def test_to_thread_inside_a_task_block_is_caught(library: Any, upstream: Upstream) -> None:
    handler = FakeHandler()
    with task_block(handler):
        response = await asyncio.to_thread(ask_blocking, library, upstream.url + PATH)
        assert who(response.content) == "batch"


def test_a_thread_pool_inside_a_plain_block_is_caught(library: Any, upstream: Upstream) -> None:
    handler = FakeHandler()
    with process_block(handler), ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: ask_blocking(library, upstream.url + PATH), range(8)))
    assert [who(response.content) for response in answers] == ["batch"] * 8
    assert threading.active_count() < 50
    assert upstream.seen == []


@pytest.mark.parametrize(("url", "host"), HOSTS)
def test_a_port_is_part_of_the_host_unless_it_is_the_schemes_own(library: Any, url: str, host: str) -> None:
    handler = FakeHandler()
    with process_block(handler):
        ask_blocking(library, url + PATH)
        ask_blocking(library, url + PATH, auth=("a", "b"))
    assert [call.host for call in handler.calls] == [host, host]
    assert set(handler.wanted) == {("POST", host, PATH)}
