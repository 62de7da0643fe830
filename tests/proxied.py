"""A connection through the proxy: its two pumps, and the rules that strike it at a byte."""

from __future__ import annotations

import asyncio
import contextlib
import enum
import socket
import struct
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

Streams: TypeAlias = tuple[asyncio.StreamReader, asyncio.StreamWriter]

PIECE: Final = 64 * 1024
_SETTLE_S: Final = 0.05
_NO_LINGER: Final = struct.pack("ii", 1, 0)
_FLIPPED: Final = bytes(255 - i for i in range(256))


class Way(enum.StrEnum):
    """The direction of bytes: to the upstream, or back from it."""

    UP = "up"
    DOWN = "down"


class How(enum.StrEnum):
    """The effect on a connection at the byte where a rule strikes."""

    FIN = "fin"
    """Close both ends normally (FIN)."""
    RST = "rst"
    """Reset both ends."""
    SILENCE = "silence"
    """Drop all bytes both ways without a close: the connection is half-open, also after `heal`."""
    GARBLE = "garble"
    """Flip the bits of this byte and of all later bytes in this direction."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """Strikes a connection when byte `at` of one direction is about to pass: all earlier bytes pass, it does not.

    Bytes count from the start of a new connection, and from now on an open connection. With `after` they count from
    the point where the client sends these bytes: upwards from the first of them, downwards from the next answer.
    """

    how: How
    way: Way = Way.UP
    at: int = 0
    connection: int | None = None
    """The k-th connection accepted, from 1; None = any."""
    after: bytes = b""
    skip: int = 0
    """How many matches of `after`, on any connection, are ignored first."""
    times: int | None = 1
    """How often it strikes; None = until `heal`."""


@dataclass(slots=True, eq=False)
class Armed:
    """A rule in force: how often `after` matched, and how often it struck."""

    rule: Rule
    n_heard: int = 0
    n_struck: int = 0

    @property
    def spent(self) -> bool:
        return self.rule.times is not None and self.n_struck >= self.rule.times


@dataclass(slots=True)
class Weather:
    """The settings of all connections."""

    fair: asyncio.Event
    latency_s: dict[Way, float]
    bytes_per_s: dict[Way, float | None]
    slow_close_s: float = 0.0


@dataclass(slots=True, eq=False)
class _Target:
    armed: Armed
    offset: int


class Connection:
    """One client and its upstream: two pumps, each with a queue, so that latency does not reduce the bandwidth."""

    def __init__(
        self,
        number: int,
        weather: Weather,
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
        connect: Callable[[], Coroutine[Any, Any, Streams]] | None,
    ) -> None:
        self._writers[Way.DOWN] = writer
        try:
            if connect is not None:
                upstream, self._writers[Way.UP] = await connect()
                self._pumps.append(asyncio.create_task(self._pump(Way.DOWN, upstream)))
            self._pumps.append(asyncio.create_task(self._pump(Way.UP, reader)))
            await asyncio.wait(self._pumps)
            if self.deaf:
                # The upstream of a half-open connection must not learn that its client is gone.
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
            # One end has closed or reset: do the same to the other end, as a network would.
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
                piece = await reader.read(PIECE)
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
                    # A reset may overtake bytes that the other end has not read yet.
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
            # Count first: the other end may answer before this task runs again.
            self._n_passed[way] += len(part)
            self._tell_passed(way, len(part))
            writer.write(part)
            await writer.drain()
            piece = piece[len(part) :]
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
