"""The proxy injects its faults at the exact byte."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator

import pytest

from tests.proxy import HOST, How, Proxy, Rule, Way
from tests.waiting import wait_until

PATIENCE_S = 20.0
"""Seconds to wait for data that must arrive."""
SILENT_S = 0.3


class Echo:
    """An upstream that echoes the bytes it gets."""

    def __init__(self) -> None:
        self.received = b""
        self.ends: list[str] = []
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while piece := await reader.read(65536):
                self.received += piece
                writer.write(piece)
                await writer.drain()
            self.ends.append("fin")
        except ConnectionResetError:
            self.ends.append("rst")
        finally:
            writer.close()


@pytest.fixture
async def echo() -> AsyncIterator[Echo]:
    upstream = Echo()
    server = await asyncio.start_server(upstream.serve, HOST, 0)
    upstream.port = server.sockets[0].getsockname()[1]
    yield upstream
    server.close()


@pytest.fixture
def proxy(echo: Echo) -> Iterator[Proxy]:
    with Proxy(f"http://user@{HOST}:{echo.port}/path") as running:
        yield running


class Client:
    """The client's end of a connection through the proxy."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def says(self, words: bytes) -> None:
        self.writer.write(words)
        await self.writer.drain()

    async def hears(self, n: int) -> bytes:
        return await asyncio.wait_for(self.reader.readexactly(n), PATIENCE_S)

    async def hears_nothing(self) -> None:
        """Check that nothing arrives, not even an end, while the test waits."""
        assert await self.hears_end(SILENT_S) == (b"", "silence")

    async def hears_end(self, patience_s: float = PATIENCE_S) -> tuple[bytes, str]:
        """Return the data that still arrives, and the end: `fin`, `rst`, or `silence` while the test waits."""
        heard = b""
        try:
            while piece := await asyncio.wait_for(self.reader.read(65536), patience_s):
                heard += piece
            return heard, "fin"
        except ConnectionResetError:
            return heard, "rst"
        except TimeoutError:
            return heard, "silence"


@pytest.fixture
async def clients(proxy: Proxy) -> AsyncIterator[list[Client]]:
    opened: list[Client] = []
    yield opened
    for one in opened:
        one.writer.transport.abort()


async def come(proxy: Proxy, clients: list[Client]) -> Client:
    client = Client(*await asyncio.open_connection(HOST, proxy.port))
    clients.append(client)
    return client


def test_the_url_leads_to_the_upstream_through_the_proxy(proxy: Proxy) -> None:
    assert proxy.url == f"http://user@{HOST}:{proxy.port}/path"
    assert Proxy("unix:///run/redis.sock").url == f"redis://{HOST}:0"


async def test_without_faults_all_bytes_and_both_closes_pass(
    proxy: Proxy, echo: Echo, clients: list[Client]
) -> None:
    client = await come(proxy, clients)
    words = bytes(range(256)) * 4000

    sending = asyncio.create_task(client.says(words))
    assert await client.hears(len(words)) == words
    await sending
    client.writer.write_eof()

    assert await client.hears_end() == (b"", "fin")
    await wait_until(lambda: echo.ends == ["fin"], description="the upstream sees the end")
    assert proxy.n_bytes == {Way.UP: len(words), Way.DOWN: len(words)}
    await wait_until(lambda: proxy.n_open == 0, description="nobody is there")
    assert (proxy.n_connections, proxy.most_open) == (1, 1)


@pytest.mark.parametrize("how", [How.FIN, How.RST, How.SILENCE])
@pytest.mark.parametrize("way", Way)
@pytest.mark.parametrize("at", [0, 1, 6])
async def test_a_cut_happens_at_the_given_byte(
    proxy: Proxy, echo: Echo, clients: list[Client], how: How, way: Way, at: int
) -> None:
    cut = proxy.add(Rule(how=how, way=way, at=at))
    client = await come(proxy, clients)
    await client.says(b"0123456")

    silent = how is How.SILENCE
    heard = await client.hears(at) if silent and way is Way.DOWN else b""
    rest, end = await client.hears_end(SILENT_S if silent else PATIENCE_S)
    heard += rest

    assert end == how.value
    assert heard == b"0123456"[:at] if way is Way.DOWN else b"0123456"[:at].startswith(heard)
    arrived = b"0123456"[: at if way is Way.UP else 7]
    await wait_until(lambda: echo.received == arrived, description="the upstream has its part")
    assert cut.n_struck == 1
    if how is not How.SILENCE:
        await wait_until(lambda: echo.ends == [how.value], description="the upstream sees the end")
    client = await come(proxy, clients)
    await client.says(b"again")
    assert await client.hears(5) == b"again"


async def test_a_byte_that_never_comes_cuts_nothing(proxy: Proxy, clients: list[Client]) -> None:
    cut = proxy.add(Rule(how=How.RST, at=5))
    client = await come(proxy, clients)
    await client.says(b"01234")
    assert await client.hears(5) == b"01234"
    assert cut.n_struck == 0


async def test_an_open_connection_is_counted_from_now_on(proxy: Proxy, clients: list[Client]) -> None:
    client = await come(proxy, clients)
    await client.says(b"before")
    await client.hears(6)
    proxy.add(Rule(how=How.RST, way=Way.DOWN, at=2))
    await client.says(b"after")
    assert await client.hears_end() == (b"af", "rst")


async def test_after_matches_however_its_bytes_are_split(
    proxy: Proxy, echo: Echo, clients: list[Client]
) -> None:
    up = proxy.add(Rule(how=How.FIN, after=b"POST /b", at=9, skip=1))
    client = await come(proxy, clients)
    await client.says(b"POST /b one;")
    assert await client.hears(12) == b"POST /b one;"
    await client.says(b"GET /; POS")
    assert await client.hears(10) == b"GET /; POS"
    await client.says(b"T /b two")

    assert (await client.hears_end())[1] == "fin"
    assert echo.received == b"POST /b one;GET /; POST /b t"
    assert (up.n_heard, up.n_struck) == (2, 1)


async def test_the_answer_after_a_match_is_cut(proxy: Proxy, echo: Echo, clients: list[Client]) -> None:
    proxy.add(Rule(how=How.RST, way=Way.DOWN, at=0, after=b"two"))
    client = await come(proxy, clients)
    await client.says(b"one")
    assert await client.hears(3) == b"one"
    await client.says(b"two")
    assert await client.hears_end() == (b"", "rst")
    assert echo.received == b"onetwo"


async def test_only_the_named_connection_is_struck(proxy: Proxy, clients: list[Client]) -> None:
    proxy.add(Rule(how=How.RST, connection=2))
    for end in ("silence", "rst", "silence"):
        client = await come(proxy, clients)
        await client.says(b"hello")
        if end == "silence":
            assert await client.hears(5) == b"hello"
            await client.hears_nothing()
        else:
            assert (await client.hears_end())[1] == end


async def test_garbled_bytes_arrive_flipped(proxy: Proxy, clients: list[Client]) -> None:
    proxy.add(Rule(how=How.GARBLE, way=Way.DOWN, at=2))
    client = await come(proxy, clients)
    await client.says(b"abcd")
    assert await client.hears(4) == b"ab" + bytes(255 - c for c in b"cd")


async def test_silence_holds_for_open_and_new_connections_for_ever(
    proxy: Proxy, echo: Echo, clients: list[Client]
) -> None:
    there = await come(proxy, clients)
    await there.says(b"1")
    await there.hears(1)
    proxy.silence()
    comes = await come(proxy, clients)
    for client in (there, comes):
        await client.says(b"x" * 100_000)
        await client.hears_nothing()
    proxy.heal()
    await there.says(b"still there?")
    await there.hears_nothing()
    assert echo.received == b"1"
    there.writer.close()
    await wait_until(lambda: proxy.n_open == 1, description="the client is gone")
    assert echo.ends == []
    fresh = await come(proxy, clients)
    await fresh.says(b"new")
    assert await fresh.hears(3) == b"new"


async def test_held_bytes_arrive_after_heal(proxy: Proxy, clients: list[Client]) -> None:
    client = await come(proxy, clients)
    proxy.hold()
    await client.says(b"held")
    await client.hears_nothing()
    proxy.heal()
    assert await client.hears(4) == b"held"


async def test_a_refused_port_opens_again(proxy: Proxy, clients: list[Client]) -> None:
    client = await come(proxy, clients)
    await client.says(b"there")
    await client.hears(5)
    port = proxy.port
    proxy.refuse()
    with pytest.raises(ConnectionRefusedError):
        await come(proxy, clients)
    await client.says(b"lives")
    assert await client.hears(5) == b"lives"
    proxy.heal()
    await come(proxy, clients)
    assert proxy.port == port


async def test_an_unreachable_upstream_resets_the_client(clients: list[Client]) -> None:
    async def come_and_hear() -> None:
        client = await come(alone, clients)
        await client.reader.read(1)

    with Proxy("unix:///nowhere/at/all") as alone, pytest.raises(ConnectionResetError):
        await come_and_hear()


async def test_strike_hits_all_open_connections(proxy: Proxy, echo: Echo, clients: list[Client]) -> None:
    both = [await come(proxy, clients), await come(proxy, clients)]
    for client in both:
        await client.says(b"hi")
        await client.hears(2)
    assert proxy.strike() == 2
    assert [await client.hears_end() for client in both] == [(b"", "rst")] * 2
    await wait_until(lambda: proxy.n_open == 0, description="nobody is there")
    assert proxy.most_open == 2


async def test_latency_is_added_each_way_and_does_not_reduce_bandwidth(
    proxy: Proxy, clients: list[Client]
) -> None:
    proxy.slow(latency_s=0.1)
    client = await come(proxy, clients)
    started = time.monotonic()
    words = b"x" * 2_000_000
    sending = asyncio.create_task(client.says(words))
    assert await client.hears(len(words)) == words
    await sending
    assert 0.2 <= time.monotonic() - started < 5.0  # thirty pieces one after the other would take six seconds


async def test_bandwidth_is_bounded_one_way(proxy: Proxy, clients: list[Client]) -> None:
    proxy.slow(bytes_per_s=10_000, way=Way.DOWN)
    client = await come(proxy, clients)
    started = time.monotonic()
    await client.says(b"x" * 3000)
    await client.hears(3000)
    assert time.monotonic() - started >= 0.25


async def test_a_slow_close_is_passed_on_late(proxy: Proxy, clients: list[Client]) -> None:
    proxy.close_slowly(0.1)
    client = await come(proxy, clients)
    started = time.monotonic()
    client.writer.write_eof()
    assert await client.reader.read() == b""
    assert time.monotonic() - started >= 0.2
