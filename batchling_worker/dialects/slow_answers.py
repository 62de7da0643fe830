"""Ends answers that would never end: a timeout of silence never fires if an answer comes a byte at a time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import Final, TypeVar

import httpx

T = TypeVar("T")

SILENCES: Final = 2.5
"""So many times the longest silence, an answer may take from the moment its call was sent in full."""
LEAST_BYTES: Final = 64 * 1024
"""A download brings so many bytes, or its end, in each such time."""
LONGEST_TRANSFER_S: Final = 6 * 3600.0
"""An upload or a download that brings enough to be waited for ends after this time all the same."""
SENT: Final = ".receive_response_headers.started"

Trace = Callable[[str, object], Awaitable[None]]


class TooSlowError(httpx.ReadTimeout):
    """A download that brings next to nothing."""


def longest_s(timeout: httpx.Timeout) -> float | None:
    """Return how long an answer may take; None = for ever."""
    return None if timeout.read is None else timeout.read * SILENCES


async def in_time(ask: Callable[[Trace], Awaitable[T]], trace: Trace, longest_s: float | None) -> T:
    """Return what `ask` returns, which hands the trace on to its call; raises `TimeoutError` once it took too long.

    What is sent may take hours: an input file can be large. The timeout for each piece is a least pace.
    """
    async with asyncio.timeout(LONGEST_TRANSFER_S) as bound:

        async def seen(event: str, more: object) -> None:
            await trace(event, more)
            if event.endswith(SENT) and longest_s is not None:
                bound.reschedule(asyncio.get_running_loop().time() + longest_s)

        return await ask(seen)


async def paced(pieces: AsyncIterator[bytes], longest_s: float | None) -> AsyncGenerator[bytes, None]:
    """Yield the pieces as they come.

    Raises `TooSlowError` where they bring less than `LEAST_BYTES` in that time, or come without end.
    """
    n_bytes, waited_s, all_s, asked_at = 0, 0.0, 0.0, time.monotonic()
    async for piece in pieces:
        took_s = time.monotonic() - asked_at
        waited_s, all_s = waited_s + took_s, all_s + took_s
        n_bytes += len(piece)
        if all_s > LONGEST_TRANSFER_S:
            raise TooSlowError(f"not at its end after {all_s / 3600:.0f} hours")
        if n_bytes >= LEAST_BYTES:
            n_bytes, waited_s = 0, 0.0
        elif longest_s is not None and waited_s >= longest_s:
            raise TooSlowError(f"{n_bytes} bytes in {waited_s:.0f} s")
        yield piece
        asked_at = time.monotonic()
