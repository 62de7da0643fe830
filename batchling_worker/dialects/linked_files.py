"""A download that is answered with a link: a JSON object that holds a signed URL of the file in an object store."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from typing import Final

import httpx
import msgspec

LONGEST_LINK: Final = 64 * 1024
NAMES: Final = (
    "url",
    "download_url",
    "signed_url",
    "presigned_url",
    "downloadUrl",
    "signedUrl",
    "presignedUrl",
)
"""How such objects call the URL."""
OF_ROWS: Final = frozenset({"custom_id", "key", "recordId", "response", "result", "error", "body", "choices"})
"""Fields of a result row or of an answer: an object with one of them does not count as a link."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun:
    """The beginning of a body, as far as a link may go; `ended` = this is all of it."""

    pieces: tuple[bytes, ...] = ()
    ended: bool = False
    failure: Exception | None = None
    """What broke the body off behind these pieces."""


def may_be_link(response: httpx.Response) -> bool:
    """Return whether a success is small enough for a link, or does not say how large it is."""
    said = response.headers.get("content-length", "0")
    if response.status_code != httpx.codes.OK or not (said.isascii() and said.isdigit()):
        return False
    return len(said) < len(str(LONGEST_LINK)) or int(said[:20]) <= LONGEST_LINK


async def begun(body: AsyncIterator[bytes]) -> Begun:
    """Read a body until it cannot be a link any more."""
    pieces: list[bytes] = []
    n_bytes = 0
    try:
        async for piece in body:
            pieces.append(piece)
            n_bytes += len(piece)
            first = b"".join(pieces[:8]).lstrip()[:1]
            if n_bytes > LONGEST_LINK or (first and first != b"{") or b"\n{" in piece:
                return Begun(pieces=tuple(pieces))
    except Exception as error:  # noqa: BLE001 - raised by `whole`, behind the pieces that came before it
        return Begun(pieces=tuple(pieces), failure=error)
    return Begun(pieces=tuple(pieces), ended=True)


async def whole(beginning: Begun, rest: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    """Yield the pieces that were read, then those that follow."""
    for piece in beginning.pieces:
        yield piece
    if beginning.failure is not None:
        raise beginning.failure
    if not beginning.ended:
        async for piece in rest:
            yield piece


def link_in(beginning: Begun) -> str:
    """Return the URL if the whole body is an object that holds one and nothing of a result, else ''."""
    if not beginning.ended or not beginning.pieces:
        return ""
    try:
        said = msgspec.json.decode(b"".join(beginning.pieces))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ""
    if not isinstance(said, dict) or OF_ROWS & said.keys():
        return ""
    links = [one for one in map(said.get, NAMES) if isinstance(one, str)]
    return next((one for one in links if one.lower().startswith(("https://", "http://"))), "")


def on_the_same_server(response: httpx.Response, link: str) -> str | None:
    """Return the link if it leads to the server that gave it, which may be called with the key, else None."""
    try:
        target = httpx.URL(link)
    except (httpx.InvalidURL, UnicodeError, ValueError):
        return None
    here = (response.url.scheme, response.url.host, response.url.port)
    there = (target.scheme, target.host, target.port)
    return link if there == here and not target.userinfo and target != response.url else None
