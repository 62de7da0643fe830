"""A server of bare bytes: a test says what goes over the wire, and where it is cut."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Self, TypeAlias


@dataclass(frozen=True, slots=True)
class Seen:
    """A request as it came: `head` is the request line and headers."""

    head: str
    body: bytes

    @property
    def target(self) -> str:
        return self.head.split(" ", 2)[1]

    def header(self, name: str) -> str | None:
        for line in self.head.split("\r\n")[1:]:
            if line.lower().startswith(f"{name}:"):
                return line.partition(":")[2].strip()
        return None


Reply: TypeAlias = bytes | AsyncIterator[bytes] | None
"""What is written before the connection is closed; None waits for the client to hang up."""


def answer(body: bytes, *, status: int = 200, headers: str = "", length: int | None = None) -> bytes:
    size = len(body) if length is None else length
    return b"HTTP/1.1 %d Said\r\nContent-Length: %d\r\n%b\r\n%b" % (status, size, headers.encode(), body)


class Wire:
    """Answers each request with what `reply` makes of it, and closes."""

    def __init__(self) -> None:
        self.seen: list[Seen] = []
        self.asked = asyncio.Event()
        self.reply: Callable[[Seen], Reply] = lambda seen: answer(b"{}")
        self._server: asyncio.Server | None = None

    @property
    def url(self) -> str:
        assert self._server is not None
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            seen = Seen(head, b"")
            size = int(seen.header("content-length") or 0)
            self.seen.append(seen := Seen(head, await reader.readexactly(size)))
            self.asked.set()
            reply = self.reply(seen)
            if reply is None:
                await reader.read()
            elif isinstance(reply, bytes):
                writer.write(reply)
            else:
                async for piece in reply:
                    writer.write(piece)
                    await writer.drain()
            await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()
