"""Reads bodies of answers in bounded memory: unpacked a piece at a time, and no further than their kind may cost."""

from __future__ import annotations

import asyncio
import contextlib
import re
import zlib
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from typing import Final

import httpx

ENCODINGS: Final = "gzip, deflate"
"""What calls accept: what is unpacked here."""
LONGEST_ANSWER: Final = 4 * 1024 * 1024
"""The most bytes that an answer which shows one object may have, unpacked."""
LONGEST_LIST: Final = 16 * 1024 * 1024
"""The same for a page of a list: some providers show all batches of an account in one page."""
LONGEST_ERROR: Final = 64 * 1024
"""So much of an error is read; what follows is left alone."""
PIECE_BYTES: Final = 256 * 1024
MOST_VALUES: Final = 200_000
"""So many values an answer may hold; each of three bytes costs a hundred when it is parsed."""
MOST_IN_ROWS: Final = 1_000_000
"""So many a page of results may, and a row that only Python's parser takes."""
QUOTE: Final = ord('"')

_GZIP: Final = frozenset({"gzip", "x-gzip"})
_TOKEN: Final = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?|[\[{,]', re.DOTALL)
"""A text, or what comes before a value outside of texts."""


class TooLargeError(httpx.TransportError):
    """An answer that is longer, or holds more, than any answer of its kind."""


async def pieces(response: httpx.Response, *, as_sent: bool = False) -> AsyncGenerator[bytes, None]:
    """Yield the body, unpacked unless `as_sent`, in pieces that no encoding makes large.

    Raises httpx's errors: `DecodingError` for a body that is not in the encoding that its headers name.
    """
    names = [] if as_sent else _encodings_of(response)
    if response.is_stream_consumed:
        yield response.content
        return
    raw = response.aiter_raw()
    if not names:
        async for piece in raw:
            yield piece
        return
    if len(names) > 1 or names[0] not in {*_GZIP, "deflate"}:
        raise httpx.DecodingError(f"it is packed in a way that was not asked for ({names[0][:20]})")
    unpacking = _Unpacking(names[0])
    async for piece in raw:
        for n, part in enumerate(unpacking.feed(piece)):
            if n:
                # Many parts may come out of one piece: other steps have their turn in between.
                await asyncio.sleep(0)
            yield part
    if not unpacking.whole:
        raise httpx.ReadError("its packed body ends too soon")


def _encodings_of(response: httpx.Response) -> list[str]:
    said = response.headers.get("content-encoding", "").lower().split(",")
    return [name for one in said if (name := one.strip()) not in ("", "identity")]


class _Unpacking:
    """Unpacks one body; what follows its end is left out."""

    def __init__(self, encoding: str) -> None:
        self._deflate = encoding not in _GZIP
        self._stream = zlib.decompressobj(zlib.MAX_WBITS if self._deflate else zlib.MAX_WBITS | 16)
        self._begun = False

    @property
    def whole(self) -> bool:
        return self._stream.eof or not self._begun

    def feed(self, piece: bytes) -> Iterator[bytes]:
        while piece and not self._stream.eof:
            part = self._part(piece)
            self._begun = True
            piece = self._stream.unconsumed_tail
            if part:
                yield part
        # What a full part has left inside.
        while not self._stream.eof and (part := self._part(b"")):
            yield part

    def _part(self, piece: bytes) -> bytes:
        try:
            return self._stream.decompress(piece, PIECE_BYTES)
        except zlib.error as error:
            if not self._deflate or self._begun:
                raise httpx.DecodingError(str(error)) from None
        # Servers send `deflate` with its header or without.
        self._stream = zlib.decompressobj(-zlib.MAX_WBITS)
        self._begun = True
        return self._part(piece)


async def whole(unpacked: AsyncIterator[bytes], longest: int) -> bytes:
    """Return a body of at most `longest` bytes. Raises `TooLargeError`."""
    body = bytearray()
    async for piece in unpacked:
        if len(body) + len(piece) > longest:
            raise TooLargeError(f"more than {longest >> 10} KiB")
        body += piece
    return bytes(body)


async def beginning(unpacked: AsyncGenerator[bytes, None], longest: int = LONGEST_ERROR) -> bytes:
    """Return the first bytes of a body, and as much of it as can be read where it breaks off."""
    body = bytearray()
    with contextlib.suppress(httpx.DecodingError, httpx.ReadError):
        async with contextlib.aclosing(unpacked):
            async for piece in unpacked:
                body += piece[: longest - len(body)]
                if len(body) >= longest:
                    break
    return bytes(body)


def n_values_at_most(raw: bytes) -> int:
    """Return how many values JSON may hold: its brackets and commas, those inside of texts included."""
    return raw.count(b"{") + raw.count(b"[") + raw.count(b",")


def holds_too_much(raw: bytes, most: int = MOST_VALUES) -> bool:
    """Return whether JSON holds more values than an answer may."""
    if n_values_at_most(raw) <= most:
        return False
    n = 0
    for found in _TOKEN.finditer(raw):
        n += raw[found.start()] != QUOTE
        if n > most:
            return True
    return False
