"""requests: a caught call is answered with the library's own response, and what is not caught reaches the server."""

import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests

from batchling_client.errors import NotIntercepted
from batchling_client.intercept import probe, switch
from batchling_client.intercept.interceptor import HttpReply

from .fakes import HOSTS, PATH, FakeHandler, Upstream, error_reply, process_block, refusing, who

BODY = {"model": "llama", "messages": [{"role": "user", "content": "hi"}]}


def test_a_caught_call_is_answered_with_the_library_s_own_response(upstream: Upstream) -> None:
    with process_block(FakeHandler()):
        response = requests.post(upstream.url + PATH, json=BODY, timeout=0.001)
        with requests.post(upstream.url + PATH, json=BODY, stream=True, timeout=1) as streamed:
            assert who(b"".join(streamed.iter_content(7))) == "batch"
    assert type(response) is requests.Response
    assert (response.status_code, response.ok, response.url) == (200, True, upstream.url + PATH)
    assert response.json()["choices"][0]["message"]["content"] == "batch"
    assert response.headers["X-Request-Id"] == "req_1"
    assert response.request.url == upstream.url + PATH
    assert timedelta(0) < response.elapsed < timedelta(seconds=10)
    assert upstream.seen == []


def test_the_handler_sees_the_call_as_it_would_have_been_sent(upstream: Upstream) -> None:
    handler = FakeHandler()
    with process_block(handler), requests.Session() as session:
        session.headers["Authorization"] = "Bearer sk-1"
        session.post(upstream.url + "/a%20b" + PATH, json=BODY, params={"q": "1"}, timeout=1)
        session.post(upstream.url + PATH, data='{"a":"é"}', auth=("a", "b"), timeout=1)
    first, second = handler.calls
    assert (first.method, first.host, first.path) == ("POST", urlsplit(upstream.url).netloc, "/a b" + PATH)
    assert first.url.endswith("?q=1")
    assert first.headers["authorization"] == "Bearer sk-1"
    assert first.headers["content-type"] == "application/json"
    assert first.body == requests.Request("POST", upstream.url, json=BODY).prepare().body
    assert (second.body, second.headers["authorization"]) == ('{"a":"é"}'.encode(), "Basic YTpi")


def test_unwanted_and_passed_calls_reach_the_server_untouched(upstream: Upstream) -> None:
    plain = requests.post(upstream.url + PATH, json=BODY, timeout=5)
    handler = refusing()
    with process_block(handler):
        passed = requests.post(upstream.url + PATH, json=BODY, timeout=5)
        other = requests.get(upstream.url + "/other", timeout=5)
    assert who(plain.content) == who(passed.content) == who(other.content) == "upstream"
    assert [seen[1] for seen in upstream.seen] == [PATH, PATH, "/other"]
    assert upstream.seen[0] == upstream.seen[1]
    assert [call.path for call in handler.calls] == [PATH]


def test_a_body_that_can_be_read_once_passes_through_and_is_counted(upstream: Upstream) -> None:
    def pieces() -> Iterator[bytes]:
        yield b"{}"

    handler = FakeHandler()
    with process_block(handler):
        for body in (pieces(), io.BytesIO(b"{}")):
            assert who(requests.post(upstream.url + PATH, data=body, timeout=5).content) == "upstream"
    assert handler.calls == []
    assert [(one.reason, one.n_calls) for one in handler.passed.counts()] == [("body sent as a stream", 2)]


def test_hooks_and_errors_are_what_they_always_are(upstream: Upstream) -> None:
    log: list[int] = []

    def at_response(response: requests.Response, **_: Any) -> None:
        log.append(response.status_code)

    reply = HttpReply(status=200, headers={"Content-Encoding": "gzip", "X-Name": "ü"}, body=b"plain")
    with process_block(FakeHandler(reply=reply)), requests.Session() as session:
        response = session.post(upstream.url + PATH, json=BODY, hooks={"response": at_response}, timeout=1)
        assert (log, response.content) == ([200], b"plain")
    with process_block(FakeHandler(reply=error_reply(429))), pytest.raises(requests.HTTPError, match="429"):
        requests.post(upstream.url + PATH, json=BODY, timeout=1).raise_for_status()


def test_threads_of_one_session_each_get_their_answer(upstream: Upstream) -> None:
    with process_block(FakeHandler()), requests.Session() as session, ThreadPoolExecutor(8) as threads:
        asked = [threads.submit(session.post, upstream.url + PATH, json=BODY, timeout=1) for _ in range(64)]
        assert {who(one.result().content) for one in asked} == {"batch"}


def test_the_last_user_restores_the_class() -> None:
    before = vars(requests.Session)["send"]
    switch.install()
    switch.install()
    switch.uninstall()
    assert vars(requests.Session)["send"] is not before
    switch.uninstall()
    assert vars(requests.Session)["send"] is before


async def test_the_probe_fails_for_a_library_whose_calls_slip_past(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    switch.install()
    try:
        await probe.check()

        def foreign(session: object, request: object, **options: object) -> requests.Response:
            raise requests.ConnectionError

        monkeypatch.setattr(requests.Session, "send", foreign)
        with pytest.raises(NotIntercepted, match="requests"):
            await probe.check()
        monkeypatch.undo()
    finally:
        switch.uninstall()


@pytest.mark.parametrize(("url", "host"), HOSTS)
def test_a_port_is_part_of_the_host_unless_it_is_the_schemes_own(url: str, host: str) -> None:
    handler = FakeHandler()
    with process_block(handler):
        requests.post(url + PATH, json=BODY, timeout=1)
    assert [call.host for call in handler.calls] == [host]
    assert set(handler.wanted) == {("POST", host, PATH)}


def test_a_port_that_is_none_is_refused_in_the_librarys_own_words() -> None:
    with process_block(FakeHandler()), pytest.raises(requests.exceptions.InvalidURL):
        requests.post("http://llm.example:99999999" + PATH, json=BODY, timeout=1)
