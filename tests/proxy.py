"""A loopback TCP proxy that injects network faults between two parts: slow, cut, garbled, silent or refused.

    with Proxy("unix:///run/redis.sock") as proxy:
        connect(proxy.url)                                   # redis://127.0.0.1:PORT
        proxy.slow(latency_s=0.2)                            # each way, all connections
        cut = proxy.add(Rule(how=How.RST, way=Way.DOWN, after=b"EVALSHA"))
        ...
        cut.n_struck, proxy.n_connections, proxy.most_open
        proxy.heal()                                         # fair weather for all that still lives

It serves on its own thread, so that blocking tests can use it; call methods from any thread.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable
from concurrent.futures import Future
from types import TracebackType
from typing import Final, Self, TypeVar
from urllib.parse import urlsplit

from .proxied import PIECE, Armed, Connection, How, Rule, Streams, Way, Weather
from .redis_server import kept_port

__all__ = ["HOST", "Armed", "How", "Proxy", "Rule", "Way"]

T = TypeVar("T")

HOST: Final = "127.0.0.1"
_PATIENCE_S: Final = 10.0
_PORTS: Final = {"http": 80, "https": 443, "redis": 6379, "rediss": 6379}


class Proxy:
    """A proxy for the upstream of a URL (`redis://`, `unix://`, `http://`) on a free loopback port; a context manager.

    `url` is the same URL through the proxy; a unix socket becomes `redis://`. An object can be started once.
    """

    def __init__(self, upstream_url: str) -> None:
        self._parts = urlsplit(upstream_url)
        self.port = 0
        self.n_connections = 0
        """The number of connections accepted."""
        self.n_open = 0
        """The number of connections whose client has not closed its end, as far as the proxy knows."""
        self.most_open = 0
        """The largest number of connections open at once."""
        self.n_bytes = dict.fromkeys(Way, 0)
        """Bytes passed, by direction."""
        self._silent = False
        self._armed: list[Armed] = []
        self._live: dict[Connection, asyncio.Task[None]] = {}
        self._port: socket.socket | None = None

    @property
    def url(self) -> str:
        """Return the upstream's URL with the proxy in its place."""
        if self._parts.scheme == "unix":
            return f"redis://{HOST}:{self.port}"
        login, at, _ = self._parts.netloc.rpartition("@")
        return self._parts._replace(netloc=f"{login}{at}{HOST}:{self.port}").geturl()

    def slow(
        self, *, latency_s: float = 0.0, bytes_per_s: float | None = None, way: Way | None = None
    ) -> None:
        """Slow all bytes from now on, in one direction or (None) in both."""

        def change() -> None:
            for one in Way if way is None else (way,):
                self._weather.latency_s[one], self._weather.bytes_per_s[one] = latency_s, bytes_per_s

        self._do(change)

    def close_slowly(self, seconds: float) -> None:
        """Pass a close on to the other end this much later."""
        self._do(lambda: setattr(self._weather, "slow_close_s", seconds))

    def add(self, rule: Rule) -> Armed:
        """Put a rule in force, for open and for new connections."""

        def arm() -> Armed:
            armed = Armed(rule)
            self._armed.append(armed)
            for connection in self._live:
                connection.arm(armed)
            return armed

        return self._do(arm)

    def strike(self, how: How = How.RST) -> int:
        """Strike every open connection now; return how many."""

        def strike_all() -> int:
            struck = [connection for connection in self._live if connection.client_there]
            for connection in list(self._live):
                connection.strike(how, *Way)
            return len(struck)

        return self._do(strike_all)

    def silence(self) -> None:
        """Make open and new connections half-open: accepted and read, but never answered and never closed."""
        self._do(lambda: setattr(self, "_silent", True))
        self.strike(How.SILENCE)

    def hold(self) -> None:
        """Hold all bytes without losing any: they arrive after `heal`."""
        self._do(self._weather.fair.clear)

    def refuse(self) -> None:
        """Close the port: new connections are refused, open ones stay."""
        self._do(self._close_port)

    def heal(self) -> None:
        """Remove all rules and delays, open the port, pass held bytes. Silent connections stay silent."""

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
        """Serve; return once connections are accepted."""
        ready: Future[None] = Future()
        self._thread = threading.Thread(target=self._serve, args=(ready,), name="proxy", daemon=True)
        self._thread.start()
        ready.result(_PATIENCE_S)
        return self

    def stop(self) -> None:
        """Reset open connections and close the port."""
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
        self._weather = Weather(asyncio.Event(), dict.fromkeys(Way, 0.0), dict.fromkeys(Way, None))
        self._weather.fair.set()
        with kept_port() as self.port:
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
        connection = Connection(self.n_connections, self._weather, self._passed, self._client_left)
        for armed in self._armed:
            connection.arm(armed)
        if self._silent:
            connection.strike(How.SILENCE, *Way)
        self._live[connection] = self._loop.create_task(self._carry(connection, client))

    async def _carry(self, connection: Connection, client: socket.socket) -> None:
        try:
            reader, writer = await asyncio.open_connection(sock=client, limit=PIECE)
            await connection.carry(reader, writer, None if connection.deaf else self._connect)
        finally:
            del self._live[connection]

    async def _connect(self) -> Streams:
        parts = self._parts
        if parts.scheme == "unix":
            return await asyncio.open_unix_connection(parts.path, limit=PIECE)
        port = parts.port or _PORTS[parts.scheme]
        return await asyncio.open_connection(parts.hostname, port, limit=PIECE)

    def _passed(self, way: Way, n: int) -> None:
        self.n_bytes[way] += n

    def _client_left(self) -> None:
        self.n_open -= 1
