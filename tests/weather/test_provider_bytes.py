"""Between a worker and a provider, byte by byte: a cut call never reports wrongly whether it was done.

The shipped adapters call the sandbox through the proxy. Each call is cut at many bytes of its request and of its
answer; the sandbox shows what really happened.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Iterator
from dataclasses import replace

import httpx
import pytest

from batchling_client.wire.keys import ProviderBatchId
from batchling_worker import providers
from batchling_worker.dialects import provider_call
from batchling_worker.errors import MaybeDone, TemporaryError
from batchling_worker.provider import Account, Ended, Ending, NotFound
from batchling_worker.sandbox import Sandbox
from tests.providers.desk import Desk
from tests.providers.wire import Seen, Wire
from tests.proxy import HOST, How, Proxy, Rule, Way
from tests.waiting import wait_until

KEY = "gsk-CANARY-5f1c2d"
ROW = b'{"custom_id":"r%d","response":{"status_code":200,"request_id":"q","body":{}},"error":null}\n'


@pytest.fixture(scope="module")
def served() -> Iterator[Sandbox]:
    with Sandbox(speeds={"*": 0.0}) as sandbox:
        yield sandbox


@pytest.fixture
def sandbox(served: Sandbox) -> Sandbox:
    served.reset()
    return served


@pytest.fixture
def proxy(sandbox: Sandbox) -> Iterator[Proxy]:
    with Proxy(sandbox.base_url("groq")) as running:
        yield running


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(timeout=httpx.Timeout(15.0), trust_env=False) as client:
        yield client


@pytest.fixture
def impatient(http: httpx.AsyncClient) -> None:
    """Give up silent calls after a moment."""
    http.timeout = httpx.Timeout(0.5, connect=5.0)


@pytest.fixture
def desk(proxy: Proxy, http: httpx.AsyncClient) -> Desk:
    headers = {"authorization": f"Bearer {KEY}"}
    account = Account(base_url=proxy.url, headers=headers, http=http, digest="a" * 20)
    return Desk(provider=providers.load("groq"), account=account)


@pytest.fixture
async def fair(desk: Desk, sandbox: Sandbox) -> AsyncIterator[Desk]:
    """Return the same account over a direct connection, with the usual timeouts."""
    async with httpx.AsyncClient(timeout=httpx.Timeout(15.0), trust_env=False) as patient:
        account = replace(desk.account, base_url=sandbox.base_url("groq"), http=patient)
        yield replace(desk, account=account)


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provider_call, "RESUME_PAUSE_S", 0.0)


async def fails(call: Awaitable[object]) -> TemporaryError | None:
    """Return the error of a cut call, and check that it holds no key; None if the call succeeded."""
    [caught] = await asyncio.gather(asyncio.wait_for(call, 20), return_exceptions=True)
    if not isinstance(caught, BaseException):
        return None
    assert isinstance(caught, TemporaryError), repr(caught)
    assert KEY.removeprefix("gsk-") not in repr(caught)
    assert caught.__cause__ is caught.__context__ is None
    return caught


async def sizes(proxy: Proxy, call: Awaitable[object]) -> dict[Way, int]:
    """Return the number of bytes of a call, each way."""
    before = dict(proxy.n_bytes)
    await call
    return {way: proxy.n_bytes[way] - before[way] for way in Way}


def offsets(n_bytes: int, step: int) -> list[int]:
    """Return offsets from the first byte to the last, both included."""
    return sorted({0, 1, *range(0, n_bytes, step), n_bytes - 1})


@pytest.mark.parametrize("how", [How.RST, How.FIN])
async def test_a_create_cut_in_its_request_is_reported_as_not_done_or_uncertain(
    desk: Desk, fair: Desk, sandbox: Sandbox, proxy: Proxy, how: How
) -> None:
    file = await fair.upload()
    n_bytes = (await sizes(proxy, desk.create(file)))[Way.UP]
    for at in offsets(n_bytes, 9 if how is How.FIN else 61):
        n_batches = len(sandbox.batches())
        cut = proxy.add(Rule(how=how, way=Way.UP, at=at, after=b"POST "))

        error = await fails(desk.create(file))

        assert cut.n_struck == 1, at
        assert isinstance(error, MaybeDone), at
        assert len(sandbox.batches()) == n_batches


@pytest.mark.parametrize("how", [How.RST, How.FIN])
async def test_a_create_cut_in_its_answer_is_uncertain_and_its_batch_is_found(
    desk: Desk, fair: Desk, sandbox: Sandbox, proxy: Proxy, how: How
) -> None:
    file = await fair.upload()
    n_bytes = (await sizes(proxy, desk.create(file)))[Way.DOWN]
    for at in offsets(n_bytes, 9 if how is How.FIN else 61):
        n_batches = len(sandbox.batches())
        cut = proxy.add(Rule(how=how, way=Way.DOWN, at=at, after=b"POST "))

        error = await fails(desk.create(file))

        if not cut.n_struck:
            # Answers differ in length by a few digits: this answer was complete before the cut.
            assert at >= n_bytes - 9
            proxy.heal()
            continue
        assert isinstance(error, MaybeDone), at
        assert len(sandbox.batches()) == n_batches + 1


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("at", [0, 3, 9, 40, 150, 400])
async def test_a_create_with_a_garbled_answer_is_uncertain(
    desk: Desk, fair: Desk, sandbox: Sandbox, proxy: Proxy, at: int
) -> None:
    file = await fair.upload()
    proxy.add(Rule(how=How.GARBLE, way=Way.DOWN, at=at, after=b"POST "))
    assert isinstance(await fails(desk.create(file)), MaybeDone)
    assert len(sandbox.batches()) == 1


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("way", Way)
@pytest.mark.parametrize("at", [0, 100])
async def test_a_silent_create_is_reported_as_uncertain_in_bounded_time(
    desk: Desk, fair: Desk, proxy: Proxy, way: Way, at: int
) -> None:
    file = await fair.upload()
    proxy.add(Rule(how=How.SILENCE, way=way, at=at, after=b"POST "))
    assert isinstance(await fails(desk.create(file)), MaybeDone)


@pytest.mark.parametrize("how", [How.RST, How.FIN])
@pytest.mark.parametrize("way", Way)
async def test_an_upload_that_is_cut_at_any_byte_is_tried_again_and_costs_nothing(
    desk: Desk, sandbox: Sandbox, proxy: Proxy, how: How, way: Way
) -> None:
    rows = desk.requests(2_000)
    n_bytes = (await sizes(proxy, desk.upload(rows)))[way]
    # The sandbox, like real servers, does not wait for the last bytes of a form.
    for at in offsets(n_bytes - (60 if way is Way.UP else 4), n_bytes // (12 if how is How.FIN else 4)):
        cut = proxy.add(Rule(how=how, way=way, at=at, after=b"POST "))

        error = await fails(desk.upload(rows))

        assert cut.n_struck == 1, at
        assert error is not None, at
        assert not isinstance(error, MaybeDone)
    assert await desk.upload(rows)
    assert sandbox.batches() == []


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("at", [0, 60_000])
async def test_an_upload_that_goes_silent_is_given_up_in_bounded_time(
    desk: Desk, proxy: Proxy, at: int
) -> None:
    proxy.add(Rule(how=How.SILENCE, way=Way.UP, at=at, after=b"POST "))
    assert await fails(desk.upload(desk.requests(100_000))) is not None


@pytest.mark.parametrize("how", [How.RST, How.FIN])
async def test_a_poll_or_search_cut_at_any_byte_fails_without_a_result(
    desk: Desk, fair: Desk, proxy: Proxy, how: How
) -> None:
    batches = [await fair.submit(), await fair.submit()]

    async def look_at_both() -> None:
        """Poll both batches: the cut poll fails, and the other poll is answered."""
        looks = (await desk.provider.look(desk.account, batches)).values()
        assert not any(isinstance(seen, NotFound) for seen in looks)
        for seen in looks:
            if isinstance(seen, Exception):
                raise seen

    # The answers of two polls come over two connections, each with about half of the bytes.
    for call, n_answers in ((lambda: desk.look(batches[0]), 1), (look_at_both, 2)):
        n_bytes = (await sizes(proxy, call()))[Way.DOWN] // n_answers - 8 * (n_answers - 1)
        for at in offsets(n_bytes, n_bytes // (15 if how is How.FIN else 5)):
            proxy.add(Rule(how=how, way=Way.DOWN, at=at, after=b"GET "))
            assert await fails(call()) is not None, at


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("at", [0, 12, 100, 400])
async def test_a_garbled_poll_fails_without_a_result(desk: Desk, fair: Desk, proxy: Proxy, at: int) -> None:
    batch = await fair.submit()
    proxy.add(Rule(how=How.GARBLE, way=Way.DOWN, at=at, after=b"GET "))
    assert await fails(desk.look(batch)) is not None


async def ended(desk: Desk, n_rows: int) -> Ending:
    """Return a finished batch of many rows."""
    batch: ProviderBatchId = await desk.submit(desk.requests(n_rows))

    async def is_ended() -> bool:
        return isinstance(await desk.look(batch), Ended)

    await wait_until(is_ended, description="the batch ends")
    return (await desk.ended(batch)).ending


async def lengths(desk: Desk, ending: Ending) -> tuple[int, int]:
    """Return the bytes of a download's answer: of its head, and in all."""
    account = desk.account
    url = f"{account.base_url}/openai/v1/files/{ending.results[0]}/content"
    reply = await account.http.get(url, headers=account.headers)
    reply.raise_for_status()
    raw = reply.headers.raw
    n_head = len(b"HTTP/1.1 200 OK\r\n") + sum(len(name) + len(value) + 4 for name, value in raw) + 2
    return n_head, n_head + len(reply.content)


@pytest.mark.parametrize("how", [How.RST, How.FIN])
async def test_a_download_cut_at_any_byte_of_its_body_resumes_without_gaps_or_repeats(
    desk: Desk, fair: Desk, proxy: Proxy, how: How
) -> None:
    ending = await ended(fair, 400)
    n_head, n_bytes = await lengths(fair, ending)
    for at in [
        n_head + 1,
        *range(n_head + 100, n_bytes, n_bytes // (15 if how is How.FIN else 5)),
        n_bytes - 1,
    ]:
        cut = proxy.add(Rule(how=how, way=Way.DOWN, at=at, after=b"GET "))

        answers = await asyncio.wait_for(desk.answers(ending), 20)

        assert cut.n_struck == 1
        assert sorted(answer.custom_id for answer in answers) == sorted(desk.requests(400))


async def test_a_download_that_is_cut_before_its_body_is_tried_again_later(
    desk: Desk, fair: Desk, proxy: Proxy
) -> None:
    ending = await ended(fair, 3)
    for at in (0, 1, 20, 90):
        proxy.add(Rule(how=How.RST, way=Way.DOWN, at=at, after=b"GET "))
        assert await fails(desk.answers(ending)) is not None


async def test_a_download_that_is_always_cut_after_a_while_still_ends_where_parts_are_served(
    desk: Desk,
) -> None:
    body = b"".join(ROW % number for number in range(400))

    def part(seen: Seen) -> bytes:
        start = int((seen.header("range") or "bytes=0-")[6:-1])
        place = f"bytes {start}-{len(body) - 1}/{len(body)}".encode()
        head = b"HTTP/1.1 206 Partial Content\r\ncontent-range: %b\r\ncontent-length: %d\r\n\r\n"
        return head % (place, len(body) - start) + body[start:]

    async with Wire() as wire:
        wire.reply = part
        with Proxy(wire.url) as proxy:
            cut = proxy.add(Rule(how=How.RST, way=Way.DOWN, at=len(body) // 5, after=b"GET ", times=None))
            short = replace(desk, account=replace(desk.account, base_url=proxy.url))
            answers = await asyncio.wait_for(short.answers(Ending(results=("file-1",))), 30)
    assert [answer.custom_id for answer in answers] == [f"r{number}" for number in range(400)]
    assert cut.n_struck >= 4


@pytest.mark.usefixtures("impatient")
async def test_a_download_that_goes_silent_is_resumed_in_bounded_time(
    desk: Desk, fair: Desk, proxy: Proxy
) -> None:
    ending = await ended(fair, 400)
    for at in (5_000, 50_000):
        proxy.add(Rule(how=How.SILENCE, way=Way.DOWN, at=at, after=b"GET "))
        answers = await asyncio.wait_for(desk.answers(ending), 20)
        assert sorted(answer.custom_id for answer in answers) == sorted(desk.requests(400))


async def test_a_download_that_never_resumes_is_given_up(desk: Desk, fair: Desk, proxy: Proxy) -> None:
    ending = await ended(fair, 400)
    proxy.add(Rule(how=How.RST, way=Way.DOWN, at=5_000, after=b"GET "))
    proxy.add(Rule(how=How.RST, way=Way.DOWN, at=0, after=b"range: bytes=", times=None))
    assert await fails(desk.answers(ending)) is not None


async def test_an_unreachable_provider_got_nothing(desk: Desk, proxy: Proxy) -> None:
    proxy.refuse()
    refused = await fails(desk.create("file-1"))
    nowhere = replace(desk, account=replace(desk.account, base_url="http://no-such-host.invalid"))
    unknown = await fails(nowhere.create("file-1"))
    plain = replace(desk, account=replace(desk.account, base_url=proxy.url.replace("http", "https")))
    proxy.heal()
    no_tls = await fails(plain.create("file-1"))
    for error in (refused, unknown, no_tls):
        assert error is not None
        assert not isinstance(error, MaybeDone)


async def test_a_peer_that_fails_the_tls_handshake_got_nothing(desk: Desk, sandbox: Sandbox) -> None:
    async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        writer.write(bytes(range(255, 0, -1)) * 20)
        writer.close()

    server = await asyncio.start_server(babble, HOST, 0)
    port = server.sockets[0].getsockname()[1]
    garbled = replace(desk, account=replace(desk.account, base_url=f"https://{HOST}:{port}"))
    error = await fails(garbled.create("file-1"))
    assert error is not None
    assert not isinstance(error, MaybeDone)
    server.close()


@pytest.mark.usefixtures("impatient")
async def test_a_peer_that_accepts_and_stays_silent_is_given_up_in_bounded_time(desk: Desk) -> None:
    with socket.create_server((HOST, 0)) as deaf:
        silent = replace(
            desk, account=replace(desk.account, base_url=f"http://{HOST}:{deaf.getsockname()[1]}")
        )
        assert isinstance(await fails(silent.create("file-1")), MaybeDone)
        assert await fails(silent.upload()) is not None
