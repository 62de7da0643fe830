"""Each way a call can fail becomes the error that steers its retry, and no text of it holds the credential."""

from __future__ import annotations

import asyncio
import datetime as dt
import email.utils
import json
import logging
import socket
import ssl
import traceback
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Final, TypeVar

import httpx
import pytest

from batchling_client.wire.keys import ProviderBatchId
from batchling_worker.dialects import http_errors, slow_answers
from batchling_worker.dialects.provider_call import REDIRECTS
from batchling_worker.errors import Limited, MaybeDone, PermanentError, TemporaryError, WorkerError
from batchling_worker.provider import Ending, NotFound, Running

from .conftest import KEY
from .desk import Desk
from .wire import Seen, Wire, answer

T = TypeVar("T")

BATCH = ProviderBatchId("batch_1")


async def test_a_proxy_that_asks_for_a_password_is_named_and_its_password_is_not(
    wire: Wire, wired: Desk
) -> None:
    wire.reply = lambda seen: answer(b"<html><title>Sign in</title></html>", status=407)
    through = wire.url.replace("http://", "http://bob:sk-secret@")
    for base_url in ("http://api.example", "https://api.example"):
        async with httpx.AsyncClient(proxy=through) as client:
            account = replace(wired.account, base_url=base_url, http=client)
            error = await failure_of_look(replace(wired, account=account))
        assert "407" in str(error)
        assert "check HTTPS_PROXY and HTTP_PROXY of the worker" in str(error)
        assert "sk-secret" not in str(error)
    assert [seen.head.partition(" ")[0] for seen in wire.seen] == ["GET", "CONNECT"]


async def failure_of_create(desk: Desk) -> WorkerError:
    with pytest.raises(WorkerError) as caught:
        await desk.create("file-1")
    return caught.value


async def failure_of_look(desk: Desk) -> WorkerError:
    with pytest.raises(WorkerError) as caught:
        await desk.look(BATCH)
    return caught.value


async def test_a_create_that_was_never_sent_may_be_sent_again(wired: Desk) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        nowhere = f"http://127.0.0.1:{taken.getsockname()[1]}"
        desk = replace(wired, account=replace(wired.account, base_url=nowhere))
        error = await failure_of_create(desk)
    assert type(error) is TemporaryError
    assert wired.provider.facts.name in str(error)


@pytest.mark.parametrize("base_url", ["localhost/v1", "http://127.0.0.1:not-a-port", "ftp://127.0.0.1"])
async def test_a_base_url_that_is_none_keeps_the_batch_waiting(wired: Desk, base_url: str) -> None:
    desk = replace(wired, account=replace(wired.account, base_url=base_url))
    assert type(await failure_of_create(desk)) is TemporaryError
    assert type(await failure_of_look(desk)) is TemporaryError


def anonymous(protocol: int) -> ssl.SSLContext:
    """TLS that asks for no certificate."""
    context = ssl.SSLContext(protocol)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("AECDH-AES128-SHA:@SECLEVEL=0")
    return context


def answer_broken(listening: socket.socket) -> None:
    """Takes one connection and sends it an answer of which one byte was changed on its way."""
    came, sent = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = anonymous(ssl.PROTOCOL_TLS_SERVER).wrap_bio(came, sent, server_side=True)
    connection, _ = listening.accept()
    with connection:

        def until_done(work: Callable[[], T]) -> T:
            while True:
                try:
                    done = work()
                except ssl.SSLWantReadError:
                    connection.sendall(sent.read())
                    came.write(connection.recv(65_536))
                else:
                    connection.sendall(sent.read())
                    return done

        until_done(tls.do_handshake)
        until_done(lambda: tls.read(65_536))
        tls.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
        record = sent.read()
        connection.sendall(record[:-1] + bytes([record[-1] ^ 1]))


async def test_tls_that_breaks_in_the_middle_of_an_answer_leaves_a_create_in_doubt(wired: Desk) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        url = f"https://127.0.0.1:{listening.getsockname()[1]}"
        async with httpx.AsyncClient(verify=anonymous(ssl.PROTOCOL_TLS_CLIENT)) as client:
            desk = replace(wired, account=replace(wired.account, base_url=url, http=client))
            for failure, kind in ((failure_of_create, MaybeDone), (failure_of_look, TemporaryError)):
                answering = asyncio.create_task(asyncio.to_thread(answer_broken, listening))
                assert type(await failure(desk)) is kind
                await answering


async def test_a_full_pool_sends_nothing(wire: Wire, wired: Desk) -> None:
    wire.reply = lambda seen: None
    limits = httpx.Limits(max_connections=1)
    async with httpx.AsyncClient(verify=False, limits=limits, timeout=httpx.Timeout(5.0, pool=0.05)) as http:
        desk = replace(wired, account=replace(wired.account, http=http))
        holder = asyncio.create_task(desk.look(BATCH))
        await asyncio.wait_for(wire.asked.wait(), 5)
        assert type(await failure_of_create(desk)) is TemporaryError
        assert len(wire.seen) == 1
        holder.cancel()
        await asyncio.gather(holder, return_exceptions=True)


@pytest.mark.parametrize(
    "reply",
    [
        b"",
        b"HTTP/1.1 20",
        b"HTTP/1.1 200 OK\r\nContent-Len",
        answer(b'{"id":"batch', length=400),
        answer(b'{"id":"batch'),
        answer(b""),
        answer(b"{}"),
        answer(b'{"id":""}'),
        answer(b'{"id":null}'),
        answer(b'{"id":{}}'),
        answer(b"[]"),
        answer(b"\xff\xfe"),
        answer(b"<html>gateway</html>"),
        answer(b"", status=500),
        answer(b"bad gateway", status=502),
        answer(b"", status=504),
        answer(b"{}", status=408),
        answer(b"{}", status=409),
        answer(b"{}", status=499),
        b"nonsense\r\n\r\n",
    ],
)
async def test_a_create_whose_answer_is_lost_is_never_taken_for_undone(
    wire: Wire, wired: Desk, reply: bytes
) -> None:
    wire.reply = lambda seen: reply
    assert type(await failure_of_create(wired)) is MaybeDone
    assert len(wire.seen) == 1


async def test_a_create_that_runs_into_silence_is_never_taken_for_undone(wire: Wire, wired: Desk) -> None:
    wire.reply = lambda seen: None
    # Only the wait for the answer is short: a connection that comes late is a call that was never sent.
    async with httpx.AsyncClient(timeout=httpx.Timeout(10.0, read=0.1), verify=False) as http:
        desk = replace(wired, account=replace(wired.account, http=http))
        assert type(await failure_of_create(desk)) is MaybeDone
    await asyncio.wait_for(wire.asked.wait(), 10)
    assert len(wire.seen) == 1


async def dripping(size: int = 10_000) -> AsyncIterator[bytes]:
    """An answer that is never silent and never done."""
    yield answer(b"{", length=size)
    for _ in range(size):
        await asyncio.sleep(0.02)
        yield b" "


async def test_an_answer_that_comes_a_byte_at_a_time_ends_in_bounded_time(wire: Wire, wired: Desk) -> None:
    wire.reply = lambda seen: dripping()
    async with httpx.AsyncClient(timeout=httpx.Timeout(10.0, read=0.4), verify=False) as http:
        desk = replace(wired, account=replace(wired.account, http=http))
        assert type(await failure_of_look(desk)) is TemporaryError
        assert type(await failure_of_create(desk)) is MaybeDone
        with pytest.raises(TemporaryError):
            await desk.answers(Ending(results=("file-1",)))


async def test_the_time_of_sending_a_call_does_not_count_for_its_answer() -> None:
    async def ask(trace: slow_answers.Trace) -> str:
        await trace("http11.send_request_body.started", None)
        await asyncio.sleep(0.3)
        await trace("http11.receive_response_headers.started", None)
        return "answered"

    async def silent(trace: slow_answers.Trace) -> str:
        await trace("http11.receive_response_headers.started", None)
        await asyncio.sleep(60)
        return "late"

    async def unheard(event: str, more: object) -> None:
        pass

    assert await slow_answers.in_time(ask, unheard, 0.05) == "answered"
    with pytest.raises(TimeoutError):
        await slow_answers.in_time(silent, unheard, 0.05)


@pytest.mark.parametrize(
    "reply", [b"", answer(b'{"id":"x', length=400), answer(b"<html>"), answer(b"", status=503)]
)
async def test_calls_that_cost_nothing_are_just_temporary(wire: Wire, wired: Desk, reply: bytes) -> None:
    wire.reply = lambda seen: reply
    assert type(await failure_of_look(wired)) is TemporaryError
    with pytest.raises(TemporaryError) as caught:
        await wired.upload()
    assert type(caught.value) is TemporaryError


@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 413, 422])
async def test_a_refusal_is_handed_on_in_the_provider_s_own_words(
    wire: Wire, wired: Desk, status: int
) -> None:
    body = b'{"error": {"message": "Not on this plan.", "code": "not_available_for_plan"}}'
    wire.reply = lambda seen: answer(body, status=status)
    error = await failure_of_create(wired)
    assert type(error) is PermanentError
    assert (error.status, error.body) == (status, body)
    assert "Not on this plan." in str(error)


@pytest.mark.parametrize(
    "body",
    [
        b'{"error":{"code":400,"message":"API key not valid.","details":[{"reason":"API_KEY_INVALID"}]}}',
        b'{"code":"invalid","error":"Incorrect API key provided: s***t."}',
    ],
)
async def test_a_key_that_is_refused_with_400_is_refused_like_any_other(
    wire: Wire, wired: Desk, body: bytes
) -> None:
    wire.reply = lambda seen: answer(body, status=400)
    error = await failure_of_look(wired)
    assert type(error) is PermanentError
    assert (error.status, error.body) == (401, body)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'{"detail":"Unauthorized"}', "Unauthorized"),
        (
            b'{"detail":[{"loc":["line 2","body","n"],"msg":"too many","type":"t"},{"msg":"too few"}]}',
            "line 2.body.n: too many; too few",
        ),
        (b'{"detail":[{"loc":"body","msg":7},"x"]}', "x"),
        (b'{"status_code":400,"detail":"not valid","extra":[{"key":"k","message":"m"}]}', "not valid (k: m)"),
        (b'{"detail":[]}', '{"detail":[]}'),
        (b'{"error":"a sentence","request_id":"r"}', "a sentence"),
        (b'{"error":"bad_request","message":"a sentence"}', "a sentence"),
        (b'{"errors":[{"status":"400","title":"Bad","detail":"a sentence"}]}', "a sentence"),
        (b'{"errors":["one", {"message": "two"}]}', "one; two"),
        (
            b'{"title":"Not valid.","status":400,"errors":{"model":["is gone"],"n":["is 7"]}}',
            "model: is gone; n: is 7",
        ),
        (b'{"type":"about:blank","title":"Bad Request","status":400,"detail":"a sentence"}', "a sentence"),
        (b'{"fault":{"faultstring":"a sentence","detail":{"errorcode":"x.y"}}}', "a sentence"),
        (b'{"__type":"ValidationException","message":"a sentence"}', "a sentence"),
        (
            b'{"error":{"code":400,"message":"a sentence","details":[{"@type":"t","fieldViolations":'
            b'[{"field":"contents[0]","description":"is empty"}]}]}}',
            "a sentence (contents[0]: is empty)",
        ),
        (b'[{"error":{"code":429,"message":"a sentence"}}]', "a sentence"),
        (b"a sentence\n", "a sentence"),
        (
            b"<!DOCTYPE html>\n<html><head><title>502 Bad &amp; Gone</title></head><p>x</p></html>",
            "502 Bad & Gone",
        ),
        (b"<html><head><style>p{}</style></head><body><p>a\nsentence</p></body></html>", "a sentence"),
    ],
)
def test_the_sentence_is_found_in_every_shape_that_providers_have(body: bytes, words: str) -> None:
    assert http_errors.message_of(body) == words


def test_the_words_of_an_error_are_bounded() -> None:
    for said in ("a" * 10_000, [{"msg": "a" * 1000, "loc": [0]}] * 100, {"error": {"message": "a" * 10_000}}):
        assert 100 < len(http_errors.message_of(json.dumps(said).encode())) <= http_errors.LONGEST_REASON
    deep = b'{"error":' * 500 + b'"x"' + b"}" * 500
    assert len(http_errors.message_of(deep)) <= http_errors.LONGEST_REASON


@pytest.mark.parametrize(
    ("body", "becomes"),
    [
        (b"Too many files", b"Too many files Delete some."),
        (b"", b"Delete some."),
        (b'{"error":"Too many files"}', b'{"error":"Too many files Delete some."}'),
        (
            b'{"error":{"message":"Too many files","n":1}}',
            b'{"error":{"message":"Too many files Delete some.","n":1}}',
        ),
        (b'{"detail":"Too many files"}', b'{"detail":"Too many files Delete some."}'),
    ],
)
def test_more_words_follow_the_sentence_of_an_error(body: bytes, becomes: bytes) -> None:
    assert http_errors.with_words(body, "Delete some.") == becomes


@pytest.mark.parametrize(
    "body",
    [
        b'{"detail":[{"loc":["body"],"msg":"Too many files","type":"t"}]}',
        b'{"errors":[{"detail":"Too many files"}]}',
        b'{"fault":{"faultstring":"Too many files"}}',
        b'[{"error":{"message":"Too many files"}}]',
        b'"Too many files"',
        b"<html><title>Too many files</title></html>",
    ],
)
def test_more_words_follow_those_of_an_error_of_any_other_shape(body: bytes) -> None:
    message = json.loads(http_errors.with_words(body, "Delete some."))["error"]["message"]
    assert message.removeprefix("body: ") == "Too many files Delete some."


@pytest.mark.parametrize("status", [425, 429])
async def test_a_rate_limit_is_neither_a_refusal_nor_a_lost_answer(
    wire: Wire, wired: Desk, status: int
) -> None:
    wire.reply = lambda seen: answer(b"", status=status, headers="Retry-After: 7\r\n")
    error = await failure_of_create(wired)
    assert type(error) is Limited
    assert error.delay_s == 7.0
    assert type(await failure_of_look(wired)) is TemporaryError


ELSEWHERE = ["http://localhost:{port}/v1", "https://127.0.0.1:{port}/v1", "http://127.0.0.1:1/v1"]
ELSEWHERE += ["//evil.example/v1", "http://user:secret@127.0.0.1:{port}/v1", "http://[oops/v1", ""]


@pytest.mark.parametrize("place", ELSEWHERE)
@pytest.mark.parametrize("status", [302, 307, 308])
async def test_no_redirect_takes_the_credential_elsewhere(
    wire: Wire, wired: Desk, place: str, status: int
) -> None:
    location = place.format(port=wire.url.rpartition(":")[2])
    wire.reply = lambda seen: answer(b"", status=status, headers=f"Location: {location}\r\n")
    look, create = await failure_of_look(wired), await failure_of_create(wired)
    assert type(look) is TemporaryError
    assert type(create) is PermanentError
    assert create.status == 502
    for error in (look, create):
        assert f"BATCHLING_PROVIDERS__{wired.provider.facts.name.upper()}__BASE_URL" in str(error)
        assert "secret" not in str(error)
    assert all("/v1" not in place or seen.header("host") == wire.url.partition("//")[2] for seen in wire.seen)
    assert len(wire.seen) == 2


def to(place: str, status: int, body: bytes) -> Callable[[Seen], bytes]:
    """Redirects every call once."""
    return lambda seen: (
        answer(body)
        if place in seen.target
        else answer(b"", status=status, headers=f"Location: {place}{seen.target}\r\n")
    )


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_look_and_a_download_follow_a_redirect_to_the_same_host(
    wire: Wire, wired: Desk, status: int
) -> None:
    wire.reply = to("/moved", status, b'{"id":"batch_1","status":"in_progress"}')
    assert isinstance((await wired.look(BATCH)), Running)
    row = b'{"custom_id":"a","response":{"status_code":200,"body":{"id":"x"}},"error":null}\n'
    wire.reply = to("/moved", status, row)
    assert [one.custom_id for one in await wired.answers(Ending(results=("file-1",)))] == ["a"]
    assert all(seen.header("authorization") == f"Bearer {KEY}" for seen in wire.seen)


@pytest.mark.parametrize("status", [307, 308])
async def test_an_upload_and_a_create_are_sent_to_the_same_host_whole(
    wire: Wire, wired: Desk, status: int
) -> None:
    wire.reply = to("/moved", status, b'{"id":"it-1","status":"validating"}')
    await wired.upload()
    await wired.create("file-1")
    upload, uploaded, create, created = wire.seen
    assert [seen.head.partition(" ")[0] for seen in wire.seen] == ["POST"] * 4
    assert upload.body.count(b"\n") == uploaded.body.count(b"\n")
    assert len(upload.body) == len(uploaded.body) > 100
    assert create.body == created.body


async def test_a_create_follows_no_redirect_that_may_change_its_method(wire: Wire, wired: Desk) -> None:
    wire.reply = to("/moved", 301, b'{"id":"it-1","status":"validating"}')
    error = await failure_of_create(wired)
    assert type(error) is PermanentError
    assert "another path of the same host" in str(error)
    assert len(wire.seen) == 1


@pytest.mark.parametrize("place", ["/v1/batches/batch_1", "{url}/v1/batches/batch_1", "batches/batch_1"])
@pytest.mark.parametrize("status", [302, 303])
async def test_a_create_that_is_redirected_to_a_place_of_its_server_may_have_made_a_batch(
    wire: Wire, wired: Desk, status: int, place: str
) -> None:
    location = place.format(url=wire.url)
    wire.reply = lambda seen: answer(b"", status=status, headers=f"Location: {location}\r\n")
    error = await failure_of_create(wired)
    assert isinstance(error, MaybeDone)
    assert error.refusal is not None
    assert "redirects to another path" in str(error)
    assert len(wire.seen) == 1


async def test_a_redirect_in_a_circle_ends(wire: Wire, wired: Desk) -> None:
    wire.reply = lambda seen: answer(b"", status=307, headers=f"Location: {wire.url}/elsewhere\r\n")
    error = await failure_of_look(wired)
    assert type(error) is TemporaryError
    assert "base URL" in str(error)
    assert "to the same URL again" in str(error)
    assert "another" not in str(error)
    assert len(wire.seen) == REDIRECTS + 1


async def test_redirects_from_path_to_path_end(wire: Wire, wired: Desk) -> None:
    wire.reply = lambda seen: answer(b"", status=307, headers=f"Location: /x{len(wire.seen)}\r\n")
    error = await failure_of_look(wired)
    assert type(error) is TemporaryError
    assert "another path of the same host, again and again" in str(error)
    assert len(wire.seen) == REDIRECTS + 1


NOW = dt.datetime(2026, 11, 23, 12, 0, 0, tzinfo=dt.UTC)


def http_date(after_s: float) -> str:
    return email.utils.format_datetime(NOW + dt.timedelta(seconds=after_s), usegmt=True)


@pytest.mark.parametrize(
    ("headers", "delay_s"),
    [
        ({}, None),
        ({"retry-after": "12"}, 12.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after": "0"}, 0.0),
        ({"retry-after-ms": "1500", "retry-after": "12"}, 1.5),
        ({"retry-after-ms": "soon", "retry-after": "12"}, 12.0),
        ({"retry-after": "86400"}, 86400.0),
        ({"retry-after": http_date(90), "date": http_date(0)}, 90.0),
        ({"retry-after": http_date(-90), "date": http_date(0)}, 0.0),
        ({"retry-after": http_date(9e5), "date": http_date(0)}, 9e5),
        ({"retry-after": "-3"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": ""}, None),
        ({"retry-after": "next week"}, None),
        ({"retry-after": "Mon, 99 Foo 2026 99:99:99 GMT"}, None),
    ],
)
def test_the_provider_s_wish_is_read_in_all_its_forms(headers: dict[str, str], delay_s: float | None) -> None:
    assert http_errors.retry_after_s(httpx.Headers(headers)) == delay_s


@pytest.mark.parametrize(
    ("said", "of_look", "of_create"),
    [("7", 7.0, 7.0), ("240", 240.0, 240.0), ("1800", 300.0, 1800.0), ("86400", None, 3600.0)],
)
async def test_a_wish_is_honoured_up_to_a_bound_that_fits_the_call(
    wire: Wire, wired: Desk, said: str, of_look: float | None, of_create: float
) -> None:
    for status in (429, 503):
        wire.reply = lambda seen, status=status: answer(  # type: ignore[misc]
            b"", status=status, headers=f"Retry-After: {said}\r\n"
        )
        look, create = await failure_of_look(wired), await failure_of_create(wired)
        assert isinstance(look, TemporaryError)
        assert isinstance(create, TemporaryError)
        assert (look.delay_s, create.delay_s) == (of_look, of_create)


def google_error(delay: object) -> bytes:
    """An error of Google's with the delay in its details, as of the wire on 2026-11-23."""
    details = [
        {"@type": "type.googleapis.com/google.rpc.Help", "links": []},
        {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": delay},
    ]
    error = {"code": 429, "message": "Too many requests.", "status": "RESOURCE_EXHAUSTED", "details": details}
    return json.dumps({"error": error}).encode()


@pytest.mark.parametrize(
    ("body", "of_look", "of_create"),
    [
        (google_error("7s"), 7.0, 7.0),
        (google_error("34.074824224s"), 34.074824224, 34.074824224),
        (b"[%b]" % google_error("7s"), 7.0, 7.0),
        (google_error("1800s"), 300.0, 1800.0),
        (google_error("86400s"), None, 3600.0),
        (google_error("999999999999s"), None, None),
        (google_error("-7s"), None, None),
        (google_error("soon"), None, None),
        (google_error(7), None, None),
        (b'{"error":{"details":{"retryDelay":"7s"}}}', None, None),
        (b'{"error":{"details":["7s",null,[]]}}', None, None),
        (b"[]", None, None),
        (b'{"retry_after_seconds":42}', 42.0, 42.0),
        (b'{"retry_after_seconds":-1}', None, None),
        (b'{"retry_after_seconds":true}', None, None),
        (b'{"retry_after_seconds":%b}' % (b"9" * 5000), None, None),
    ],
)
def test_a_wish_in_the_body_is_honoured_as_one_in_a_header(
    body: bytes, of_look: float | None, of_create: float | None
) -> None:
    look = http_errors.CallInfo(provider="gemini", does="look at a batch")
    create = http_errors.CallInfo(provider="gemini", does="create a batch", paid=True, submits=True)
    assert http_errors.wish_of(look, httpx.Headers(), body) == of_look
    assert http_errors.wish_of(create, httpx.Headers(), body) == of_create
    assert http_errors.wish_of(look, httpx.Headers({"retry-after": "12"}), body) == 12.0


def openai_error(message: str, code: str = "") -> bytes:
    return json.dumps(
        {"error": {"message": message, "type": code or "x", "param": None, "code": code}}
    ).encode()


NO_MONEY: list[tuple[int, bytes]] = [
    (429, openai_error("You exceeded your current quota, please check your plan and billing details.")),
    (429, openai_error("Out.", "insufficient_quota")),
    (
        429,
        openai_error("Your account is not active, please check your billing details.", "billing_not_active"),
    ),
    (400, openai_error("Billing hard limit has been reached", "billing_hard_limit_reached")),
    (402, openai_error("Insufficient Balance")),
    (402, b""),
    (429, openai_error("Your account is suspended, check it.", "exceeded_current_quota_error")),
    (
        429,
        openai_error(
            "Your team has either used all available credits or reached its monthly spending limit."
        ),
    ),
    (403, openai_error("Your newly created team doesn't have any credits yet.")),
    (429, openai_error("Credit limit exceeded, please add credits")),
    (429, b'{"message":"Inactive subscription or usage limit reached"}'),
    (403, b'{"code":30001,"message":"Sorry, your account balance is insufficient"}'),
    (412, b'{"error":"Account is suspended, possibly due to reaching the monthly spending limit"}'),
    (
        400,
        b'{"type":"error","error":{"type":"invalid_request_error","message":"Your credit balance is too low"}}',
    ),
    (429, b'{"error":{"message":"Budget has been exceeded! Current cost: 3","type":"budget_exceeded"}}'),
    (
        429,
        b'{"error":{"code":429,"message":"Your prepayment credits are depleted.","status":"RESOURCE_EXHAUSTED"}}',
    ),
    (
        429,
        b'{"error":{"code":429,"message":"You exceeded your current quota, please check your plan and billing details. '
        b'* Quota exceeded for metric: batch_tokens, limit: 0","status":"RESOURCE_EXHAUSTED"}}',
    ),
    (429, openai_error("Your project has exceeded its monthly spending cap.", "RESOURCE_EXHAUSTED")),
    (429, b'{"object":"error","message":"You have exceeded your monthly usage limit."}'),
    (403, openai_error("user quota is not enough")),
]


@pytest.mark.parametrize(("status", "body"), NO_MONEY)
async def test_an_account_without_money_is_not_a_rate_limit(
    wire: Wire, wired: Desk, status: int, body: bytes
) -> None:
    wire.reply = lambda seen: answer(body, status=status, headers="Retry-After: 1\r\n")
    for error in (await failure_of_create(wired), await failure_of_look(wired)):
        assert type(error) is PermanentError
        assert (error.status, error.body) == (status, body)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        openai_error("Rate limit reached for requests per min (RPM): Limit 3.", "rate_limit_exceeded"),
        openai_error("Too many requests, try again in 20s."),
        b'{"error":{"code":429,"message":"You exceeded your current quota, please check your plan and billing details. '
        b"Head to: https://ai.google.dev/gemini-api/docs/rate-limits. * Quota exceeded for metric: "
        b'generate_requests_per_day, limit: 50","status":"RESOURCE_EXHAUSTED"}}',
        b'{"error":{"code":429,"message":"Resource has been exhausted (check quota).","status":"RESOURCE_EXHAUSTED"}}',
    ],
)
async def test_a_rate_limit_is_not_taken_for_an_empty_purse(wire: Wire, wired: Desk, body: bytes) -> None:
    wire.reply = lambda seen: answer(body, status=429)
    assert type(await failure_of_look(wired)) is TemporaryError


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b'{"error":{"message":"upstream is down"}}', TemporaryError, 0),
        (b'{"error":"upstream is down"}', TemporaryError, 0),
        (b'{"error":{"message":"upstream is down","code":502}}', TemporaryError, 0),
        (b'{"object":"error","message":"upstream is down","code":503}', TemporaryError, 0),
        (b'{"success":false,"message":"upstream is down"}', TemporaryError, 0),
        (b'{"error":{"message":"upstream is down","type":"invalid_request_error"}}', TemporaryError, 0),
        (b'{"error":{"message":"upstream is down","code":422}}', TemporaryError, 0),
        (b'{"error":{"message":"upstream is down","code":429}}', TemporaryError, 0),
        (b'{"error":{"message":"upstream is down","code":"insufficient_quota"}}', PermanentError, 429),
        (b'{"error":{"message":"upstream is down","type":"authentication_error"}}', PermanentError, 401),
        (b'{"error":{"message":"upstream is down","code":"403"}}', PermanentError, 403),
    ],
)
async def test_an_error_that_is_sent_as_a_success_is_one(
    wire: Wire, wired: Desk, body: bytes, kind: type[WorkerError], status: int
) -> None:
    wire.reply = lambda seen: answer(body)
    look, create = await failure_of_look(wired), await failure_of_create(wired)
    assert type(look) is kind
    assert "upstream is down" in str(look)
    assert getattr(look, "status", 0) == status
    assert type(create) is (MaybeDone if kind is TemporaryError else PermanentError)


async def test_a_create_that_is_refused_under_200_may_have_been_made(wire: Wire, wired: Desk) -> None:
    wire.reply = lambda seen: answer(b'{"error":{"message":"No.","code":400}}')
    error = await failure_of_create(wired)
    assert isinstance(error, MaybeDone)
    assert error.refusal is not None
    assert (error.refusal.status, http_errors.message_of(error.refusal.body)) == (400, "No.")


async def test_an_upload_that_is_refused_under_200_is_refused(wire: Wire, wired: Desk) -> None:
    wire.reply = lambda seen: answer(b'{"error":{"message":"Too large.","code":413}}')
    with pytest.raises(PermanentError) as caught:
        await wired.upload()
    assert caught.value.status == 413


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b'{"error":{"message":"The purpose is odd."}}', 400, "The purpose is odd."),
        (b'{"error":"The purpose is odd."}', 400, "The purpose is odd."),
        (b'{"id":null,"error":{"message":"The purpose is odd."}}', 400, "The purpose is odd."),
        (b'{"id":"","object":"file","error":{"message":"Too large.","code":413}}', 413, "Too large."),
        (b'{"data":{},"error":{"message":"Too large.","code":"413"}}', 413, "Too large."),
        (b'{"success":false,"errors":[{"code":7003,"message":"No route"}],"result":null}', 400, "No route"),
        (b'{"code":40001,"message":"The purpose is odd.","data":null}', 400, "The purpose is odd."),
        (b'{"detail":"Not allowed here"}', 400, "Not allowed here"),
        (b'{"detail":[{"loc":["body","file"],"msg":"field required"}]}', 422, "field required"),
    ],
)
async def test_an_upload_refused_under_200_fails_at_once_with_its_words(
    wire: Wire, wired: Desk, body: bytes, status: int, words: str
) -> None:
    wire.reply = lambda seen: answer(body)
    with pytest.raises(PermanentError, match=words) as caught:
        await wired.upload()
    assert (caught.value.status, words in caught.value.body.decode()) == (status, True)


@pytest.mark.parametrize(
    "body",
    [
        b'{"error":"overloaded, try again later"}',
        b'{"error":{"message":"Service temporarily unavailable"}}',
        b'{"error":{"message":"No.","code":503}}',
        b'{"message":"An internal server error occurred"}',
        b'{"message":"stored","file_url":"x"}',
        b'{"object":"file"}',
        b"{}",
    ],
)
async def test_an_upload_whose_server_is_at_fault_under_200_is_made_again(
    wire: Wire, wired: Desk, body: bytes
) -> None:
    wire.reply = lambda seen: answer(body)
    with pytest.raises(TemporaryError):
        await wired.upload()


WRAPPED: Final = [
    '{"data":%s}',
    '{"code":0,"message":"ok","data":%s}',
    '{"success":true,"errors":[],"result":%s}',
]


@pytest.mark.parametrize("around", WRAPPED)
async def test_an_object_in_a_wrapper_is_read(wire: Wire, wired: Desk, around: str) -> None:
    said = {"id": "it-1", "status": "in_progress"}
    wire.reply = lambda seen: answer((around % json.dumps(said)).encode())
    assert await wired.upload() == "it-1"
    assert await wired.create("file-1") == "it-1"
    assert isinstance(await wired.look(ProviderBatchId("it-1")), Running)


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("Fri, 31 Dec 9999 23:59:59 GMT", "days; batchling tries again within 60 minutes"),
        ("86400", r"asks for a pause of 24.0 hours; batchling tries again within 60 minutes"),
        ("1e300", r"asks for a pause of 1,000,000,000 days"),
    ],
)
async def test_a_pause_that_is_too_long_is_cut_and_said(
    wire: Wire, wired: Desk, said: str, words: str
) -> None:
    wire.reply = lambda seen: answer(b'{"error":"busy"}', status=429, headers=f"Retry-After: {said}\r\n")
    with pytest.raises(TemporaryError, match=words) as caught:
        await wired.upload()
    assert caught.value.delay_s == 3600.0
    look = await failure_of_look(wired)
    assert "tries again within 5 minutes" in str(look)


async def test_a_batch_that_is_unknown_under_200_is_not_found(wire: Wire, wired: Desk) -> None:
    wire.reply = lambda seen: answer(b'{"error":{"message":"No such batch","code":404}}')
    assert await wired.look(BATCH) == NotFound()


def everything_said(error: BaseException) -> str:
    """What a log, a traceback with its locals left out, and an error reporter that follows contexts can show."""
    texts = ["".join(traceback.format_exception(error)), repr(error), repr(vars(error))]
    linked = [one for one in (error.__context__, error.__cause__) if one is not None]
    return "\n".join(texts + [everything_said(one) for one in linked])


@pytest.mark.parametrize(
    "reply",
    [
        b"",
        answer(b"", status=500),
        answer(f"Invalid key {KEY}.".encode(), status=401),
        answer(json.dumps({"error": {"message": f"Bearer {KEY} is revoked"}}).encode(), status=403),
        answer(f"Bearer {KEY} went wrong".encode(), status=502),
    ],
)
async def test_no_error_holds_the_credential_or_the_call_that_carried_it(
    wire: Wire, wired: Desk, reply: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "batchling")
    wire.reply = lambda seen: reply
    errors = [await failure_of_create(wired), await failure_of_look(wired)]
    with pytest.raises(WorkerError) as caught:
        await wired.answers(Ending(results=("file-1",)))
    for error in [*errors, caught.value]:
        assert KEY not in everything_said(error)
        assert error.__context__ is None or isinstance(error.__context__, WorkerError)
    assert KEY not in caplog.text
    assert KEY in wire.seen[0].head


@pytest.mark.parametrize("mark", ["\n", "…", "\x00"])
async def test_a_credential_that_fits_no_header_is_refused_without_being_quoted(
    wire: Wire, wired: Desk, mark: str
) -> None:
    error = await failure_of_create(wired.under_key(f"{KEY}{mark}tail"))
    assert type(error) is PermanentError
    assert error.status == 401
    assert json.loads(error.body)["error"]["code"] == "invalid_api_key"
    assert KEY not in everything_said(error)
    assert wire.seen == []


def test_a_credential_is_left_out_however_json_spells_it() -> None:
    call_info = http_errors.CallInfo(
        provider="acme", does="x", secrets=http_errors.secrets_of({"x-api-key": 'a"b\\cdef'})
    )
    assert (
        http_errors.redacted(call_info, b'raw a"b\\cdef json a\\"b\\\\cdef')
        == b"raw [redacted] json [redacted]"
    )
    assert "cdef" not in repr(call_info)
