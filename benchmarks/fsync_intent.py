"""The cost of `fsync_intent` for a create, and of the check of Redis for the first call of a block."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final

from redis.asyncio import Redis

from batchling_client.wire.deployment.connection import ask, connect
from batchling_client.wire.ids import new_batch_id
from batchling_client.wire.keys import Keys
from batchling_client.wire.scripts import Scripts
from batchling_client.wire.states import Verdict
from batchling_client.wire.stubs import Fsync

from .figures import Cell, Report, median, quantile
from .rows import Lane, chat_lane
from .stand import embedded_stack

N_ARMS: Final = 20
N_LOOKS: Final = 200
FSYNC: Final = Fsync(replicas=0, within_ms=5_000)


def measure() -> Report:
    """Arm one batch repeatedly with each way to sync, on a stack whose worker serves another namespace."""
    with embedded_stack({}) as stack:
        times = asyncio.run(_measure(stack.redis_url))
    rows: list[list[Cell]] = [
        [name, len(taken), *(f"{ms:.2f}" for ms in (median(taken), quantile(taken, 0.99), max(taken)))]
        for name, taken in times.items()
    ]
    return Report(
        title="Milliseconds until a create may be sent, and of the look at Redis at the start of a block",
        columns=("what", "times", "median ms", "99 %", "worst"),
        rows=rows,
        raw=times,
    )


async def _measure(redis_url: str) -> dict[str, list[float]]:
    redis = connect(redis_url)
    try:
        arm = await _armed(redis)
        found = {"arm": await _timed(lambda: arm(None), N_ARMS)}
        for policy in ("everysec", "always"):
            await redis.config_set("appendfsync", policy)
            found[f"arm, on disk, appendfsync {policy}"] = await _timed(lambda: arm(FSYNC), N_ARMS)
        await redis.config_set("appendfsync", "everysec")
        found["PING at the start of a block"] = await _timed(redis.ping, N_LOOKS)
        found["judging Redis instead"] = await _timed(lambda: ask(redis), N_LOOKS)
        return found
    finally:
        await redis.aclose()


async def _armed(redis: Redis) -> Callable[[Fsync | None], Awaitable[None]]:
    """Return a function that arms a batch which is ready for it."""
    scripts = Scripts(redis, Keys("benchmark"))
    lane, batch_id = Lane(scripts=scripts, spec=chat_lane("f" * 20)), new_batch_id()
    for rows in lane.rows(1, 100):
        await lane.put(batch_id, rows, lane.cap(1))
    [claim] = await scripts.claim(batch_ids=[batch_id], lease_ms=600_000)
    await scripts.intend(batch_id=batch_id, token=claim.token, label="benchmark")

    async def arm(fsync: Fsync | None) -> None:
        verdict = await scripts.arm(batch_id=batch_id, token=claim.token, fsync=fsync)
        if verdict is not Verdict.OK:
            raise RuntimeError(f"the batch was not armed: {verdict}")

    return arm


async def _timed(work: Callable[[], Awaitable[object]], n_times: int) -> list[float]:
    taken = []
    await work()
    for _ in range(n_times):
        began_at = time.perf_counter()
        await work()
        taken.append((time.perf_counter() - began_at) * 1000)
    return taken
