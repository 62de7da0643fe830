"""The memory of a worker for a small batch and for the largest one, which should differ by a constant at most."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any, Final

from redis.asyncio import Redis

from batchling_client.wire.deployment.connection import connect
from batchling_client.wire.keys import BatchId, Keys
from batchling_client.wire.records.batch import Batch
from batchling_client.wire.states import BatchState

from .figures import Cell, Report, Target
from .rows import stored_lane
from .stand import PATIENCE_S, Sandbox, Stack, embedded_stack, peak_rss_mib

SIZES: Final = (500, 50_000)
BODY_BYTES: Final = 1024
MOST_GROWTH_MIB: Final = 16.0
"""MiB that a larger batch may cost: buffers fill up, and the allocator keeps a little."""


def measure(sizes: Sequence[int] = SIZES) -> Report:
    """Measure one batch of each size, each with a fresh worker."""
    found = []
    with Sandbox(0.5) as sandbox:
        for n_rows in sizes:
            sandbox.reset()
            with embedded_stack(sandbox.settings) as stack:
                found.append(asyncio.run(_one_batch(stack, n_rows)))
    rows: list[list[Cell]] = [
        [f"{one['n_rows']:,} rows", one["idle_mib"], one["peak_mib"], one["redis_mib"], one["seconds"]]
        for one in found
    ]
    growth_mib = found[-1]["peak_mib"] - found[0]["peak_mib"]
    target = Target(
        promise=f"worker RSS flat from {sizes[0]:,} to {sizes[-1]:,} rows (within {MOST_GROWTH_MIB:.0f} MiB)",
        found=f"{growth_mib:+.1f} MiB",
        met=growth_mib <= MOST_GROWTH_MIB,
    )
    return Report(
        title=f"Peak memory of the worker for one batch, rows of about {BODY_BYTES} bytes",
        columns=("batch", "worker idle MiB", "worker peak MiB", "Redis peak MiB", "sealed to settled s"),
        rows=rows,
        targets=[target],
        raw=found,
    )


async def _one_batch(stack: Stack, n_rows: int) -> dict[str, Any]:
    redis = connect(stack.redis_url)
    keys = Keys("default")
    try:
        await _worker_up(redis, keys)
        idle_mib = peak_rss_mib(stack.worker)
        lane = await stored_lane(redis, keys, stack.home)
        batch_id = await lane.fill(n_rows, BODY_BYTES)
        started_s = time.perf_counter()
        batch = await _settled(redis, keys, batch_id)
        if batch.n_succeeded != n_rows:
            raise RuntimeError(f"{batch.n_succeeded} of {n_rows} rows were answered: {batch.error}")
        return {
            "n_rows": n_rows,
            "idle_mib": idle_mib,
            "peak_mib": peak_rss_mib(stack.worker),
            "redis_mib": peak_rss_mib(stack.redis),
            "seconds": time.perf_counter() - started_s,
        }
    finally:
        await redis.aclose()


async def _worker_up(redis: Redis, keys: Keys) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not await redis.exists(keys.workers):
            await asyncio.sleep(0.05)


async def _settled(redis: Redis, keys: Keys, batch_id: BatchId) -> Batch:
    async with asyncio.timeout(2 * PATIENCE_S):
        while True:
            fields: Any = await redis.hgetall(keys.batch(batch_id))
            batch = Batch.decode(fields)
            if batch.state.terminal:
                if batch.state is not BatchState.SETTLED:
                    raise RuntimeError(f"the batch ended as {batch.state}: {batch.error}")
                return batch
            await asyncio.sleep(0.05)
