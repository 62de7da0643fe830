"""Reads multipart/form-data as a stream.

aiohttp's own reader raises and hides deprecation warnings by way of the process-wide warning filters, for every
chunk; from the sandbox's thread that would change the filters of the program that uses the sandbox (aiohttp 3.14,
2026-11-23).
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from email.message import Message
from email.parser import HeaderParser
from typing import NamedTuple

from aiohttp import web

_MAX_HEADER_BYTES = 16_384
_MAX_FIELD_BYTES = 1 << 20


class FormError(Exception):
    """The body cannot be read as multipart/form-data."""


class Part(NamedTuple):
    """The name of a form's part, and its file name if it is a file."""

    name: str
    filename: str | None


class Form:
    """One request's form: iterate `parts`, and read each part by `chunks` or `text`, or skip it."""

    def __init__(self, request: web.Request) -> None:
        header = Message()
        header["Content-Type"] = request.headers.get("Content-Type", "")
        boundary = header.get_boundary()
        if header.get_content_type() != "multipart/form-data" or not boundary:
            raise FormError("The body must be multipart/form-data.")
        self._content = request.content
        self._delimiter = f"\r\n--{boundary}".encode()
        # The first delimiter is at the very start; the others follow a line end.
        self._buffer = bytearray(b"\r\n")
        self._part_read = False

    async def parts(self) -> AsyncIterator[Part]:
        """Yield each part once the part before it is read or skipped; raise FormError if the body is cut."""
        while True:
            async for _ in self.chunks():
                continue
            while len(self._buffer) < 2:
                await self._fill()
            if self._buffer[:2] == b"--":
                return
            yield await self._head()

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the bytes of the current part as they come."""
        keep = len(self._delimiter) - 1
        while not self._part_read:
            end = self._buffer.find(self._delimiter)
            self._part_read = end >= 0
            ready = end if self._part_read else len(self._buffer) - keep
            if ready > 0:
                yield bytes(self._buffer[:ready])
                del self._buffer[:ready]
            if self._part_read:
                del self._buffer[: len(self._delimiter)]
            else:
                await self._fill()

    async def text(self) -> str:
        """Return the current part as text; raise FormError if it is too long for a field."""
        read = bytearray()
        async for chunk in self.chunks():
            read += chunk
            if len(read) > _MAX_FIELD_BYTES:
                raise FormError("A field of the form is too long.")
        return read.decode("utf-8", "replace")

    async def _head(self) -> Part:
        while (end := self._buffer.find(b"\r\n\r\n")) < 0:
            if len(self._buffer) > _MAX_HEADER_BYTES:
                raise FormError("The head of a part is too long.")
            await self._fill()
        head = HeaderParser().parsestr(self._buffer[2:end].decode("utf-8", "replace"))
        del self._buffer[: end + 4]
        self._part_read = False
        name = head.get_param("name", "", "content-disposition")
        return Part(name if isinstance(name, str) else "", head.get_filename())

    async def _fill(self) -> None:
        read = await self._content.readany()
        if not read:
            raise FormError("The body ends before the form does.")
        self._buffer += read
