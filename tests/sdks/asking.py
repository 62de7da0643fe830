"""Sends concurrent prompts through an SDK in a block: as tasks in `async with`, as threads in `with`."""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from batchling_client import batchify

from .caller import Ask, Caller

UNSEALED_S = 30.0
"""Seconds. The last request seals a batch; a batch that lacks a request would stay open past the test's timeout."""


class Way(enum.StrEnum):
    """The two kinds of block, each with its kind of client."""

    TASKS = "tasks"
    THREADS = "threads"


def block(n: int, caller: Caller) -> Any:
    """Return a block whose batches hold n requests."""
    return batchify(
        batch_size=n,
        batch_window_seconds=UNSEALED_S,
        batch_poll_interval_seconds=0.1,
        live_display=False,
        **caller.terms,
    )


async def answers(caller: Caller, way: Way, key: str, prompts: Sequence[str]) -> list[Any]:
    """Return the outcome of each prompt, exceptions included."""
    return await answers_to(caller.ask, caller.async_ask, caller, way, key, prompts)


async def answers_to(
    ask: Ask, async_ask: Ask | None, caller: Caller, way: Way, key: str, prompts: Sequence[str]
) -> list[Any]:
    """Return the outcome of each prompt, sent by other functions than the caller's own."""
    if way is Way.THREADS:
        return await asyncio.to_thread(_in_threads, ask, caller, key, prompts)
    ask = async_ask or ask
    async with block(len(prompts), caller), caller.async_client(key) as client:
        return await asyncio.gather(*(ask(client, prompt) for prompt in prompts), return_exceptions=True)


def _in_threads(ask: Ask, caller: Caller, key: str, prompts: Sequence[str]) -> list[Any]:
    with block(len(prompts), caller), caller.client(key) as client, ThreadPoolExecutor(len(prompts)) as pool:
        asked = [pool.submit(ask, client, prompt) for prompt in prompts]
        return [one.exception() or one.result() for one in asked]
