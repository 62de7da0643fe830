"""Waiting for a condition, instead of sleeping."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable


async def wait_until(
    condition: Callable[[], Awaitable[bool] | bool], *, description: str, within_s: float = 30.0
) -> None:
    """Return once the condition holds; fail with its description if it does not hold in time."""
    deadline = time.monotonic() + within_s
    pause_s = 0.005
    while True:
        held = condition()
        if isinstance(held, Awaitable):
            held = await held
        if held:
            return
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within_s:g} s: {description}")
        await asyncio.sleep(pause_s)
        pause_s = min(pause_s * 1.5, 0.1)
