"""Shows on held batches which call their provider leaves unanswered, long before the call times out."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Final

from redis.exceptions import RedisError

from batchling_client.wire.deployment.cancellation import end
from batchling_client.wire.deployment.connection import UNREACHABLE

from ..call_outcome import CallOutcomes, Underway
from ..store import Held, Store

SHOWN_AFTER_S: Final = 5.0
"""A silence is shown after so long; one of a call that may take long, such as an upload, after as many times longer."""
WATCHED_EVERY_S: Final = 0.5


@contextlib.asynccontextmanager
async def shown(store: Store, helds: Sequence[Held], calls: CallOutcomes) -> AsyncIterator[None]:
    """Calls of a step: while one of them is stalled, the batches say so."""
    watch = asyncio.create_task(_watch(store, helds, calls))
    try:
        yield
    finally:
        await end([watch])


async def _watch(store: Store, helds: Sequence[Held], calls: CallOutcomes) -> None:
    """Note a silence, once more each time that it has lasted twice as long, and delete the note after it."""
    noted_s = 0.0
    while True:
        await asyncio.sleep(WATCHED_EVERY_S)
        call = calls.slowest
        stalled_s = 0.0 if call is None else call.stalled_s
        if call is None or stalled_s < SHOWN_AFTER_S * call.patience:
            if noted_s:
                await _note(store, helds, "")
            noted_s = 0.0
        elif stalled_s >= 2 * noted_s:
            noted_s = stalled_s
            await _note(store, helds, sentence(call, stalled_s))


def sentence(call: Underway, stalled_s: float) -> str:
    """Return what a batch says of a call that its provider leaves unanswered."""
    return f"{call.provider} has not answered for {stalled_s:.0f} s when asked to {call.does}"


async def _note(store: Store, helds: Sequence[Held], why: str) -> None:
    """Note it on each batch; a Redis that is away or full has no room for what only explains a wait."""
    with contextlib.suppress(RedisError, *UNREACHABLE):
        for held in helds:
            await store.note(held, why)
