"""Results of 50,000 rows with cut downloads and killed workers: each caller is notified exactly once."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from typing import Any, Final

import psutil
from redis.asyncio import Redis

from batchling_client.wire.deployment.connection import connect
from batchling_client.wire.keys import BatchId, Keys, RequestId
from batchling_client.wire.records.batch import Batch
from batchling_client.wire.records.row_and_result import Result
from batchling_worker.stack import control

from .figures import Report, Target
from .rows import stored_lane
from .stand import PATIENCE_S, Sandbox, Stack, embedded_stack

N_ROWS: Final = 50_000
BODY_BYTES: Final = 1024
CUTS: Final = (0.3, 0.6, 0.9)
"""Shares of the file after which a download is cut."""
KILLS: Final = (0.1, 0.4)
"""Shares of the rows after whose delivery the worker is killed."""


def measure(n_rows: int = N_ROWS) -> Report:
    """Measure one batch whose results are read in many pieces."""
    with Sandbox(0.5) as sandbox:
        sandbox.arm([{"fault": "truncate-download", "sent": sent, "provider": "groq"} for sent in CUTS])
        settings = {**sandbox.settings, "BATCHLING_LEASE_SECONDS": "2"}
        with embedded_stack(settings) as stack:
            found = asyncio.run(_torn(stack, n_rows))
        found["paid twice"] = sandbox.n_billed_twice()
    gap, double = found["gap"], found["told twice"]
    return Report(
        title=f"{n_rows:,} results, {len(CUTS)} downloads cut and {len(KILLS)} workers killed on the way",
        columns=tuple(found),
        rows=[tuple(found.values())],
        targets=[
            Target(promise="no answer is missing", found=f"{gap:,}", met=gap == 0),
            Target(promise="no caller is notified twice", found=f"{double:,}", met=double == 0),
            Target(
                promise="no row is paid for twice",
                found=f"{found['paid twice']:,}",
                met=found["paid twice"] == 0,
            ),
        ],
        raw=found,
    )


async def _torn(stack: Stack, n_rows: int) -> dict[str, Any]:
    redis, keys = connect(stack.redis_url), Keys("default")
    try:
        lane = await stored_lane(redis, keys, stack.home)
        asked: list[RequestId] = []
        batch_id = await lane.fill(n_rows, BODY_BYTES, taken=asked)
        started_s = time.perf_counter()
        n_killed = 0
        async with asyncio.timeout(4 * PATIENCE_S):
            while not (batch := await _batch(redis, keys, batch_id)).state.terminal:
                if n_killed < len(KILLS) and batch.n_succeeded >= KILLS[n_killed] * n_rows:
                    n_killed += _kill_worker(stack)
                await asyncio.sleep(0.02)
        seconds = time.perf_counter() - started_s
        told = await _told(redis, keys.mailbox(lane.mailbox))
        gap = 0
        for start in range(0, n_rows, 1000):
            names = [keys.result(one) for one in asked[start : start + 1000]]
            values: list[bytes | None] = await redis.execute_command("MGET", *names)
            gap += sum(
                1
                for one, value in zip(asked[start:], values, strict=False)
                if value is None or Result.decode(value, one, lane.cipher).status != 200
            )
        return {
            "rows": n_rows,
            "gap": gap,
            "told twice": sum(1 for n in told.values() if n > 1),
            "told": len(told),
            "sent again": batch.n_requeued,
            "workers killed": n_killed,
            "sealed to settled s": seconds,
        }
    finally:
        await redis.aclose()


async def _batch(redis: Redis, keys: Keys, batch_id: BatchId) -> Batch:
    fields: Any = await redis.hgetall(keys.batch(batch_id))
    return Batch.decode(fields)


async def _told(redis: Redis, mailbox: str) -> Counter[str]:
    times: Counter[str] = Counter()
    entries: Any = await redis.xrange(mailbox)
    for _, fields in entries:
        times.update(fields[b"ids"].decode().split())
    return times


def _kill_worker(stack: Stack) -> int:
    """Send kill -9 to the worker and its children once it is up; return the number of workers killed."""
    worker = control.status(stack.home).worker
    if worker is None:
        return 0
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(worker.pid)
        for one in (*process.children(recursive=True), process):
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
        return 1
    return 0
