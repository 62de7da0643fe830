"""Files that an object store keeps in gzip, and sends so, without naming the encoding or by another name."""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import AsyncGenerator, Iterator
from typing import Final

MAGIC: Final = b"\x1f\x8b\x08"
"""Begins every gzip file; no JSON begins like this."""
WITH_HEADER: Final = zlib.MAX_WBITS | 16
PIECE_BYTES: Final = 1024 * 1024


class NotWholeError(Exception):
    """A gzip file that is damaged, or ends before its end."""


async def unpacked(pieces: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    """Yield the pieces, unpacked where they are a gzip file. Raises `NotWholeError`."""
    begun: bytes = b""
    file: _Plain | _Members | None = None
    async with contextlib.aclosing(pieces):
        async for piece in pieces:
            begun += piece
            if file is None and len(begun) < len(MAGIC):
                continue
            file = file or (_Members() if begun.startswith(MAGIC) else _Plain())
            for part in file.feed(begun):
                yield part
            begun = b""
    if begun:
        yield begun
    if file is not None and not file.whole:
        raise NotWholeError("it ends too soon")


class _Plain:
    whole: Final = True

    def feed(self, piece: bytes) -> Iterator[bytes]:
        yield piece


class _Members:
    """The members of a gzip file, one after the other; memory is that of a piece."""

    def __init__(self) -> None:
        self._member = zlib.decompressobj(WITH_HEADER)

    @property
    def whole(self) -> bool:
        return self._member.eof

    def feed(self, piece: bytes) -> Iterator[bytes]:
        part = b""
        while piece or len(part) == PIECE_BYTES:
            if self._member.eof:
                self._member = zlib.decompressobj(WITH_HEADER)
            try:
                part = self._member.decompress(piece, PIECE_BYTES)
            except zlib.error as error:
                raise NotWholeError(str(error)) from None
            piece = self._member.unconsumed_tail or self._member.unused_data
            if part:
                yield part
