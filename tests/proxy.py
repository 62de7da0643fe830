"""A loopback TCP proxy that makes bad weather between two parts: slow, cut, torn, garbled, silent or refused.

    with Proxy("unix:///run/redis.sock") as proxy:
        connect(proxy.url)                                   # redis://127.0.0.1:PORT
        proxy.slow(latency_s=0.2)                            # each way, all connections
        cut = proxy.add(Rule(how=How.RST, way=Way.DOWN, after=b"EVALSHA"))
        ...
        cut.n_struck, proxy.n_connections, proxy.most_open
        proxy.heal()                                         # fair weather for all that still lives

It serves on a thread of its own, so that blocking tests may use it too; methods may be called from any thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import socket
import struct
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self, TypeVar
from urllib.parse import urlsplit

T = TypeVar("T")

HOST: Final = "127.0.0.1"
_PIECE: Final = 64 * 1024
_PATIENCE_S: Final = 10.0
_SETTLE_S: Final = 0.01
_PORTS: Final = {"http": 80, "https": 443, "redis": 6379, "rediss": 6379}
_NO_LINGER: Final = struct.pack("ii", 1, 0)
_FLIPPED: Final = bytes(255 - i for i in range(256))


class Way(enum.StrEnum):
    """Which bytes: those to the upstream, or those back from it."""

    UP = "up"
    DOWN = "down"


class How(enum.StrEnum):
    """What becomes of a connection at the byte at which a rule strikes."""

    FIN = "fin"
    """Both ends are told that nothing more comes."""
    RST = "rst"
    """Both ends are reset."""
    SILENCE = "silence"
    """Nothing passes either way any more and neither end is told: half-open, also after `heal`."""
    GARBLE = "garble"
    """This byte and all that follow it this way arrive with their bits flipped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """Strikes a connection where byte `at` of one way is about to pass: it never does, all bytes before it do.

    Bytes are counted from the start of a connection that comes, from now on one that is open already; or, with
    `after`, from where the client sends these words: up from the first of them, down from what comes back next.
    """

    how: How
    way: Way = Way.UP
    at: int = 0
    connection: int | None = None
    """The k-th connection that was ever accepted, from 1; None = any."""
    after: bytes = b""
    skip: int = 0
    """How many times `after` is heard, on whichever connection, without counting."""
    times: int | None = 1
    """How often it strikes; None = until `heal`."""


@dataclass(slots=True, eq=False)
class Armed:
    """A rule in force: how often `after` was heard, and how often it struck."""

    rule: Rule
    n_heard: int = 0
    n_struck: int = 0

    @property
    def spent(self) -> bool:
        return self.rule.times is not None and self.n_struck >= self.rule.times


@dataclass(slots=True)
class _Weather:
    """What holds for all connections."""

    fair: asyncio.Event
    latency_s: dict[Way, float]
    bytes_per_s: dict[Way, float | None]
    slow_close_s: float = 0.0


class Proxy:
    """Fronts the upstream of a URL (`redis://`, `unix://`, `http://`) on a free loopback port; a context manager.

    `url` is the same URL through the proxy; a unix socket becomes `redis://`. One object serves once.
    """

    def __init__(self, upstream_url: str) -> None:
        self._parts = urlsplit(upstream_url)
        self.port = 0
        self.n_connections = 0
        """Connections ever accepted."""
        self.n_open = 0
        """Connections whose client still holds its end, as far as it was heard."""
        self.most_open = 0
        """The most that were open at once."""
        self.n_bytes = dict.fromkeys(Way, 0)
        """Bytes that were let through, by way."""
        self._silent = False
        self._armed: list[Armed] = []
        self._live: dict[_Connection, asyncio.Task[None]] = {}
        self._port: socket.socket | None = None

    @property
    def url(self) -> str:
        """The upstream's URL with the proxy in its place."""
        if self._parts.scheme == "unix":
            return f"redis://{HOST}:{self.port}"
        login, at, _ = self._parts.netloc.rpartition("@")
        return self._parts._replace(netloc=f"{login}{at}{HOST}:{self.port}").geturl()

    def slow(
        self, *, latency_s: float = 0.0, bytes_per_s: float | None = None, way: Way | None = None
    ) -> None:
        """Slows what passes from now on, one way or (None) each way."""

        def change() -> None:
            for one in Way if way is None else (way,):
                self._weather.latency_s[one], self._weather.bytes_per_s[one] = latency_s, bytes_per_s

        self._do(change)

    def close_slowly(self, seconds: float) -> None:
        """Tells either end that the other has closed this much later."""
        self._do(lambda: setattr(self._weather, "slow_close_s", seconds))

    def add(self, rule: Rule) -> Armed:
        """Puts a rule in force, for connections that are open and for those that come."""

        def arm() -> Armed:
            armed = Armed(rule)
            self._armed.append(armed)
            for connection in self._live:
                connection.arm(armed)
            return armed

        return self._do(arm)

    def strike(self, how: How = How.RST) -> int:
        """Strikes every open connection now; answers how many."""

        def strike_all() -> int:
            struck = [connection for connection in self._live if connection.client_there]
            for connection in list(self._live):
                connection.strike(how, *Way)
            return len(struck)

        return self._do(strike_all)

    def silence(self) -> None:
        """Makes connections half-open, those that come too: accepted, swallowed, never answered, never closed."""
        self._do(lambda: setattr(self, "_silent", True))
        self.strike(How.SILENCE)

    def hold(self) -> None:
        """Lets nothing pass and loses nothing: it all arrives after `heal`."""
        self._do(self._weather.fair.clear)

    def refuse(self) -> None:
        """Closes the port: who comes is refused; what is open lives on."""
        self._do(self._close_port)

    def heal(self) -> None:
        """Fair weather: no rule, no delay, the port open, what was held flows. Silent connections stay silent."""

        def clear() -> None:
            weather = self._weather
            weather.latency_s, weather.bytes_per_s = dict.fromkeys(Way, 0.0), dict.fromkeys(Way, None)
            weather.slow_close_s, self._silent = 0.0, False
            self._armed.clear()
            for connection in self._live:
                connection.disarm()
            weather.fair.set()
            self._open_port()

        self._do(clear)

    def start(self) -> Self:
        """Serves; answers once connections are accepted."""
        ready: Future[None] = Future()
        self._thread = threading.Thread(target=self._serve, args=(ready,), name="proxy", daemon=True)
        self._thread.start()
        ready.result(_PATIENCE_S)
        return self

    def stop(self) -> None:
        """Resets what is open and closes the port."""
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(_PATIENCE_S)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self.stop()

    def _do(self, change: Callable[[], T]) -> T:
        async def run() -> T:
            return change()

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(_PATIENCE_S)

    def _serve(self, ready: Future[None]) -> None:
        try:
            asyncio.run(self._until_stopped(ready))
        except BaseException as error:
            if ready.done():
                raise
            ready.set_exception(error)

    async def _until_stopped(self, ready: Future[None]) -> None:
        self._loop, self._stopping = asyncio.get_running_loop(), asyncio.Event()
        self._weather = _Weather(asyncio.Event(), dict.fromkeys(Way, 0.0), dict.fromkeys(Way, None))
        self._weather.fair.set()
        self._open_port()
        ready.set_result(None)
        await self._stopping.wait()
        self._close_port()
        for connection in list(self._live):
            connection.strike(How.RST, *Way)
        await asyncio.gather(*self._live.values())

    def _open_port(self) -> None:
        if self._port is None:
            self._port = socket.create_server((HOST, self.port), backlog=512)
            self._port.setblocking(False)
            self.port = self._port.getsockname()[1]
            self._loop.add_reader(self._port, self._accept, self._port)

    def _close_port(self) -> None:
        if self._port is not None:
            self._loop.remove_reader(self._port)
            self._port.close()
            self._port = None

    def _accept(self, port: socket.socket) -> None:
        try:
            client, _ = port.accept()
        except OSError:
            return
        client.setblocking(False)
        self.n_connections += 1
        self.n_open += 1
        self.most_open = max(self.most_open, self.n_open)
        connection = _Connection(self.n_connections, self._weather, self._passed, self._client_left)
        for armed in self._armed:
            connection.arm(armed)
        if self._silent:
            connection.strike(How.SILENCE, *Way)
        self._live[connection] = self._loop.create_task(self._carry(connection, client))

    async def _carry(self, connection: _Connection, client: socket.socket) -> None:
        try:
            reader, writer = await asyncio.open_connection(sock=client, limit=_PIECE)
            await connection.carry(reader, writer, None if connection.deaf else self._connect)
        finally:
            del self._live[connection]

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        parts = self._parts
        if parts.scheme == "unix":
            return await asyncio.open_unix_connection(parts.path, limit=_PIECE)
        port = parts.port or _PORTS[parts.scheme]
        return await asyncio.open_connection(parts.hostname, port, limit=_PIECE)

    def _passed(self, way: Way, n: int) -> None:
        self.n_bytes[way] += n

    def _client_left(self) -> None:
        self.n_open -= 1


@dataclass(slots=True, eq=False)
class _Target:
    armed: Armed
    offset: int


class _Connection:
    """One client and its upstream; two pumps, each with a queue so that latency does not narrow the pipe."""

    def __init__(
        self,
        number: int,
        weather: _Weather,
        passed: Callable[[Way, int], None],
        client_left: Callable[[], None],
    ) -> None:
        self.number = number
        self.client_there = True
        self._weather = weather
        self._tell_passed = passed
        self._tell_client_left = client_left
        self._n_passed = dict.fromkeys(Way, 0)
        self._targets: dict[Way, list[_Target]] = {way: [] for way in Way}
        self._listening: dict[Armed, bytes] = {}
        self._n_heard = 0
        self._swallowing = False
        self.deaf = False
        self._garbled: set[Way] = set()
        self._writers: dict[Way, asyncio.StreamWriter] = {}
        self._pumps: list[asyncio.Task[None]] = []
        self._torn = asyncio.Event()

    def arm(self, armed: Armed) -> None:
        rule = armed.rule
        if rule.connection not in (None, self.number):
            return
        if rule.after:
            self._listening[armed] = b""
        else:
            self._targets[rule.way].append(_Target(armed, self._n_passed[rule.way] + rule.at))

    def disarm(self) -> None:
        self._listening.clear()
        for targets in self._targets.values():
            targets.clear()

    def strike(self, how: How, *ways: Way) -> None:
        match how:
            case How.GARBLE:
                self._garbled.update(ways)
            case How.SILENCE:
                self._swallowing = self.deaf = True
            case How.FIN:
                self._swallowing = True
                for writer in self._writers.values():
                    _say_end(writer)
            case How.RST:
                self._torn.set()
                for writer in self._writers.values():
                    _reset(writer)
                for pump in self._pumps:
                    pump.cancel()
                self._client_left()

    async def carry(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        connect: Callable[[], Coroutine[Any, Any, tuple[asyncio.StreamReader, asyncio.StreamWriter]]] | None,
    ) -> None:
        self._writers[Way.DOWN] = writer
        try:
            if connect is not None:
                upstream, self._writers[Way.UP] = await connect()
                self._pumps.append(asyncio.create_task(self._pump(Way.DOWN, upstream)))
            self._pumps.append(asyncio.create_task(self._pump(Way.UP, reader)))
            await asyncio.wait(self._pumps)
            if self.deaf:
                # The upstream of a half-open connection never learns that its client is gone.
                await self._torn.wait()
        except OSError:
            self.strike(How.RST)
        finally:
            for pump in self._pumps:
                pump.cancel()
            await asyncio.gather(*self._pumps, return_exceptions=True)
            for one in self._writers.values():
                _reset(one) if self._torn.is_set() else one.close()
            self._client_left()

    async def _pump(self, way: Way, reader: asyncio.StreamReader) -> None:
        queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(64)
        reading = asyncio.create_task(self._read(way, reader, queue))
        loop = asyncio.get_running_loop()
        try:
            while True:
                due_at, piece = await queue.get()
                await asyncio.sleep(max(0.0, due_at - loop.time()))
                await self._weather.fair.wait()
                if not piece:
                    await self._end(way)
                    return
                await self._let_pass(way, piece)
        except OSError:
            # One end is gone: the other is told as the network would.
            if not self.deaf:
                self.strike(How.RST)
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)

    async def _read(
        self, way: Way, reader: asyncio.StreamReader, queue: asyncio.Queue[tuple[float, bytes]]
    ) -> None:
        loop = asyncio.get_running_loop()
        piece = b"-"
        while piece:
            try:
                piece = await reader.read(_PIECE)
            except OSError:
                if way is Way.UP:
                    self._client_left()
                if not self.deaf:
                    self.strike(How.RST)
                return
            if way is Way.UP:
                self._hear(piece)
                if not piece:
                    self._client_left()
            await queue.put((loop.time() + self._weather.latency_s[way], piece))

    async def _end(self, way: Way) -> None:
        await asyncio.sleep(self._weather.slow_close_s)
        if not self._swallowing:
            _say_end(self._writers[way])

    def _hear(self, piece: bytes) -> None:
        for armed, tail in self._listening.items():
            words, text = armed.rule.after, tail + piece
            found = text.find(words)
            while found >= 0:
                armed.n_heard += 1
                if armed.n_heard > armed.rule.skip:
                    start = self._n_heard - len(tail) + found
                    base = start if armed.rule.way is Way.UP else self._n_passed[Way.DOWN]
                    self._targets[armed.rule.way].append(_Target(armed, base + armed.rule.at))
                found = text.find(words, found + len(words))
            self._listening[armed] = text[len(text) - len(words) + 1 :] if len(words) > 1 else b""
        self._n_heard += len(piece)

    async def _let_pass(self, way: Way, piece: bytes) -> None:
        while piece and not self._swallowing and not self._torn.is_set():
            target = self._next(way)
            room = len(piece) if target is None else max(0, target.offset - self._n_passed[way])
            await self._write(way, piece[:room])
            piece = piece[room:]
            if target is not None and piece:
                self._targets[way].remove(target)
                if not target.armed.spent:
                    target.armed.n_struck += 1
                    # A reset may overtake what the other end has not read yet.
                    await asyncio.sleep(_SETTLE_S if target.armed.rule.how is How.RST else 0)
                    self.strike(target.armed.rule.how, way)

    def _next(self, way: Way) -> _Target | None:
        targets = self._targets[way]
        targets[:] = [target for target in targets if not target.armed.spent]
        return min(targets, key=lambda target: target.offset, default=None)

    async def _write(self, way: Way, piece: bytes) -> None:
        writer = self._writers[way]
        if way in self._garbled:
            piece = piece.translate(_FLIPPED)
        while piece:
            rate = self._weather.bytes_per_s[way]
            part = piece if rate is None else piece[: max(1, int(rate * 0.02))]
            writer.write(part)
            await writer.drain()
            piece = piece[len(part) :]
            self._n_passed[way] += len(part)
            self._tell_passed(way, len(part))
            if rate is not None:
                await asyncio.sleep(len(part) / rate)

    def _client_left(self) -> None:
        if self.client_there:
            self.client_there = False
            self._tell_client_left()


def _say_end(writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError, RuntimeError):
        if writer.can_write_eof():
            writer.write_eof()


def _reset(writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError, ValueError):
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
    writer.transport.abort()
