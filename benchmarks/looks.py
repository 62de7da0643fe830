"""Calls and CPU for polling thousands of running batches of one account, each every thirty seconds."""

from __future__ import annotations

import asyncio
import random
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import httpx
import psutil
from redis.asyncio import Redis

from batchling_client.wire.ids import new_batch_id
from batchling_client.wire.keys import Keys, ProviderBatchId
from batchling_client.wire.records.row_and_result import LaneSpec

from .figures import Cell, Report, Target
from .rows import KEY, Lane, stored_lane
from .stand import PATIENCE_S, Sandbox, clean_environment, cpu_s
from .workers import Workers, alive, connected, redis_server

SIZES: Final = (2_000, 10_000)
INTERVAL_S: Final = 30.0
SETTLING_S: Final = 2 * INTERVAL_S
"""Seconds of warm-up, in which batches fall due at scattered times, as if created one by one."""
MEASURED_S: Final = 2 * INTERVAL_S
PAGE: Final = 100
CREATES_TOGETHER: Final = 20
LIST: Final = "openai GET /batches"
ONE: Final = "openai GET /batches/{batch_id}"
MOST_SHARE: Final = 0.3
SPEC: Final = LaneSpec(
    provider="openai",
    host="api.openai.com",
    endpoint="/v1/chat/completions",
    model="gpt-4o-mini",
    fingerprint="",
    completion_window="24h",
)
ONE_SWEEP: Final = 1.1
"""Tolerance: the measured time may cut off a sweep, or include part of a third."""
ALL_PERCENT: Final = 99.9


def measure(sizes: tuple[int, ...] = SIZES) -> Report:
    """Measure, for each number of batches, the calls within two intervals and the CPU of the one worker."""
    found = []
    for n_batches in sizes:
        with Sandbox(1e6) as sandbox:
            sandbox.limit(max_creates_per_hour=n_batches)
            found.append(asyncio.run(_round(sandbox, n_batches)))
    rows: list[list[Cell]] = [
        [
            f"{one['n_batches']:,}",
            *(one[name] for name in ("seen_percent", "lists_a_s", "looks_a_s", "worker", "redis")),
        ]
        for one in found
    ]
    sweeps = max(one["lists_a_s"] * INTERVAL_S * PAGE / one["n_batches"] for one in found)
    worker, seen = max(one["worker"] for one in found), min(one["seen_percent"] for one in found)
    return Report(
        title=f"Running batches of one row of one account, each looked at every {INTERVAL_S:g} s, pages of {PAGE}",
        columns=(
            "batches",
            "looked at, %",
            "lists a second",
            "single looks a second",
            "worker, cores",
            "Redis, cores",
        ),
        rows=rows,
        targets=[
            Target(
                promise="every batch is looked at within two intervals",
                found=f"{seen:.0f} %",
                met=seen >= ALL_PERCENT,
            ),
            Target(
                promise="at most one sweep of the list an interval",
                found=f"{sweeps:.2f} sweeps",
                met=sweeps <= ONE_SWEEP,
            ),
            Target(
                promise=f"the worker takes less than {MOST_SHARE:g} of a core",
                found=f"{worker:.2f}",
                met=worker < MOST_SHARE,
            ),
        ],
        raw=found,
    )


async def _round(sandbox: Sandbox, n_batches: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="bl-") as directory, redis_server(Path(directory)) as url:
        home, keys = Path(directory), Keys("default")
        environment = {**clean_environment(), **sandbox.settings, "BATCHLING_HOME": directory}
        environment |= {
            "BATCHLING_REDIS_URL": url,
            "BATCHLING_POLL_INTERVAL_SECONDS": str(INTERVAL_S),
        }
        workers = Workers(home=home, pool="threads", environment=environment)
        async with connected(url) as redis:
            lane = await stored_lane(redis, keys, home, spec=SPEC, poll_ms=int(INTERVAL_S * 1000))
            await _store(lane, await _created(sandbox, n_batches))
            try:
                workers.start()
                await alive(redis, keys, 1)
                await asyncio.sleep(SETTLING_S)
                before, started_s, started_at = sandbox.n_calls(), time.monotonic(), time.time()
                worker = psutil.Process(workers.running[0].pid)
                redis_process = psutil.Process(int((await redis.info("server"))["process_id"]))
                cpu_before = cpu_s(worker), cpu_s(redis_process)
                await asyncio.sleep(MEASURED_S)
                took_s, after = time.monotonic() - started_s, sandbox.n_calls()
                cpu_after = cpu_s(worker), cpu_s(redis_process)
                n_running = await redis.zcard(keys.schedule)
                n_seen = await _seen_since(redis, keys, started_at)
            finally:
                workers.kill()
    if n_running != n_batches:
        raise RuntimeError(f"{n_batches - n_running} batches ended, but all of them should still run")
    return {
        "n_batches": n_batches,
        "seconds": took_s,
        "seen_percent": 100 * n_seen / n_batches,
        "calls": {name: n - before.get(name, 0) for name, n in after.items()},
        "lists_a_s": (after.get(LIST, 0) - before.get(LIST, 0)) / took_s,
        "looks_a_s": (after.get(ONE, 0) - before.get(ONE, 0)) / took_s,
        "worker": (cpu_after[0] - cpu_before[0]) / took_s,
        "redis": (cpu_after[1] - cpu_before[1]) / took_s,
    }


async def _seen_since(redis: Redis, keys: Keys, moment: float) -> int:
    """Return how many batches were polled since then."""
    batch_ids: Any = await redis.zrange(keys.batches, 0, -1)
    n = 0
    for first in range(0, len(batch_ids), 1000):
        async with redis.pipeline(transaction=False) as pipe:
            for batch_id in batch_ids[first : first + 1000]:
                pipe.hget(keys.batch(batch_id.decode()), "updated_at")
            n += sum(int(updated_at) > moment * 1000 for updated_at in await pipe.execute())
    return n


async def _created(sandbox: Sandbox, n_batches: int) -> list[ProviderBatchId]:
    """Create batches of one row at the provider, all of one input file."""
    base_url = f"{sandbox.settings['BATCHLING_PROVIDERS__OPENAI__BASE_URL']}/v1"
    async with httpx.AsyncClient(base_url=base_url, headers=KEY, timeout=PATIENCE_S) as http:
        body = '{"model":"gpt-4o-mini","messages":[{"role":"user","content":"Hello?"}]}'
        line = f'{{"custom_id":"r0","method":"POST","url":"/v1/chat/completions","body":{body}}}\n'
        stored = await http.post(
            "/files", data={"purpose": "batch"}, files={"file": ("rows.jsonl", line.encode())}
        )
        wish = {
            "input_file_id": stored.raise_for_status().json()["id"],
            "endpoint": "/v1/chat/completions",
            "completion_window": "24h",
        }
        room = asyncio.Semaphore(CREATES_TOGETHER)

        async def create() -> ProviderBatchId:
            async with room:
                made = await http.post("/batches", json=wish)
            return ProviderBatchId(made.raise_for_status().json()["id"])

        return list(await asyncio.gather(*(create() for _ in range(n_batches))))


async def _store(lane: Lane, created: list[ProviderBatchId]) -> None:
    """Put each into Redis as a submitted batch; scatter their first polls over one interval."""
    scripts = lane.scripts
    for provider_batch_id in created:
        batch_id = new_batch_id()
        await lane.put(batch_id, [lane.row(64)], lane.cap(1))
        claims = await scripts.claim(batch_ids=[batch_id], lease_ms=60_000)
        token = claims[0].token
        await scripts.intend(batch_id=batch_id, token=token, label=f"bench-{batch_id}")
        await scripts.uploaded(batch_id=batch_id, token=token, input_file_id="file-1", n_lines=1)
        await scripts.arm(batch_id=batch_id, token=token)
        delay_s = random.uniform(0.0, INTERVAL_S)
        await scripts.submitted(
            batch_id=batch_id, token=token, provider_batch_id=provider_batch_id, delay_s=delay_s
        )
