"""Refuses pages of a browser that ask the sandbox under a name of their own, or from another site."""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

from aiohttp import web
from aiohttp.typedefs import Handler

LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})
WRONG_HOST: Final = "The sandbox answers under localhost and 127.0.0.1 only.\n"
WRONG_ORIGIN: Final = "The sandbox takes nothing from pages of other sites.\n"


@web.middleware
async def local_only(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer a call only if it names this machine, and was not sent by a page of another one.

    Somebody may let a name of theirs lead to this machine, so that a browser takes the sandbox for a part of their
    site; and every site may have a browser send it a POST.
    """
    if _name_in(f"//{request.host}") not in LOOPBACK:
        return web.Response(status=421, text=WRONG_HOST)
    origin = request.headers.get("Origin")
    if origin is not None and _name_in(origin) not in LOOPBACK:
        return web.Response(status=403, text=WRONG_ORIGIN)
    return await handler(request)


def _name_in(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""
