"""Responses with status 200 that replace a file: only their content shows that they are not the file."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final

from aiohttp import web

_HTML: Final = b"""<!DOCTYPE html>
<html><head><title>Just a moment...</title></head>
<body><h1>Checking your browser before you go on</h1></body></html>
"""
_ERROR: Final = (
    b'{"error":{"message":"The service is overloaded. Try again.","type":"server_error","code":"overloaded"}}'
)


async def garbled(
    request: web.Request, what: str, path: Path, start: int, n_bytes: int, content_type: str
) -> web.StreamResponse:
    """Answer a download with an HTML page, an error object, zero bytes or half of the file."""
    if what == "html":
        return web.Response(body=_HTML, content_type="text/html")
    if what == "error":
        return web.Response(body=_ERROR, content_type="application/json")
    content = await asyncio.to_thread(_half, path, start, n_bytes, whole_lines=what != "half")
    return web.Response(body=b"" if what == "nothing" else content, content_type=content_type)


def _half(path: Path, start: int, n_bytes: int, *, whole_lines: bool) -> bytes:
    with path.open("rb") as file:
        file.seek(start)
        content = file.read(n_bytes)
    if not whole_lines:
        half = content[: len(content) // 2]
        # Cut inside a line, even if the middle of the file is the end of a line.
        return half[:-2] if half.endswith(b"\n") else half
    lines = content.splitlines(keepends=True)
    return b"".join(lines[: len(lines) // 2])
