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
from ..claim import Claim

SHOWN_AFTER_S: Final = 5.0
"""How long a silence lasts until it is shown, in seconds; longer for a slow call such as an upload."""
WATCHED_EVERY_S: Final = 0.5


@contextlib.asynccontextmanager
async def shown(claims: Sequence[Claim], calls: CallOutcomes) -> AsyncIterator[None]:
    """Enclose the calls of a step: while a call is stalled, the batches say so."""
    watch = asyncio.create_task(_watch(claims, calls))
    try:
        yield
    finally:
        await end([watch])


async def _watch(claims: Sequence[Claim], calls: CallOutcomes) -> None:
    """Note a silence, again each time that its length has doubled, and delete the note afterwards."""
    noted_s = 0.0
    while True:
        await asyncio.sleep(WATCHED_EVERY_S)
        call = calls.slowest
        stalled_s = 0.0 if call is None else call.stalled_s
        if call is None or stalled_s < SHOWN_AFTER_S * call.patience:
            if noted_s:
                await _note(claims, "")
            noted_s = 0.0
        elif stalled_s >= 2 * noted_s:
            noted_s = stalled_s
            await _note(claims, sentence(call, stalled_s))


def sentence(call: Underway, stalled_s: float) -> str:
    """Return the sentence on a call that the provider leaves unanswered."""
    return f"{call.provider} has not answered for {stalled_s:.0f} s when asked to {call.does}"


async def _note(claims: Sequence[Claim], why: str) -> None:
    """Note it on each batch; ignore an unreachable or full Redis, because the note only explains a wait."""
    with contextlib.suppress(RedisError, *UNREACHABLE):
        for claim in claims:
            await claim.note(why)
