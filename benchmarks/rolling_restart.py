"""Requests lost, doubled or late when two workers are restarted in turn under a thousand requests a second."""

from __future__ import annotations

import asyncio
import tempfile
import time
from pathlib import Path
from typing import Any, Final

from redis.asyncio import Redis

from batchling_client.wire.ids import new_batch_id
from batchling_client.wire.keys import Keys, RequestId
from batchling_client.wire.scripts import RowIn
from batchling_client.wire.states import Verdict

from .figures import Cell, Report, Target, median, quantile
from .rows import Lane, stored_lane
from .stand import PATIENCE_S, Sandbox, clean_environment
from .workers import Workers, alive, connected, redis_server

RATE: Final = 1000
"""Requests a second."""
PORTIONS_A_SECOND: Final = 20
SECONDS: Final = 15.0
ROWS_A_BATCH: Final = 500
LINGER_MS: Final = 500
BODY_BYTES: Final = 256
LEASE_S: Final = 60
"""Seconds; long enough to see a batch that waits for a lease to expire."""
MOST_ADDED_S: Final = 2.0
POOLS: Final = ("threads", "prefork")


def measure(seconds: float = SECONDS) -> Report:
    """Measure each pool, first without a restart and then with a restart of both workers."""
    found = []
    with Sandbox(0.2) as sandbox:
        for pool in POOLS:
            for restarts in (False, True):
                sandbox.reset()
                found.append(asyncio.run(_round(sandbox, pool, seconds, restarts=restarts)))
    rows: list[list[Cell]] = [
        [
            f"{one['pool']}, {'both restarted' if one['restarts'] else 'left alone'}",
            *(
                one[name]
                for name in ("n_requests", "rate", "n_lost", "n_doubled", "p50_s", "p99_s", "worst_s")
            ),
            max(one["stops_s"], default=0.0),
        ]
        for one in found
    ]
    added_s = max(
        restarted["worst_s"] - calm["worst_s"]
        for calm, restarted in zip(found[::2], found[1::2], strict=True)
    )
    n_wrong = sum(one["n_lost"] + one["n_doubled"] for one in found)
    return Report(
        title=f"Rolling restart of two workers, lease {LEASE_S} s; seconds from sealed to settled, by batch",
        columns=(
            "workers",
            "requests",
            "a second",
            "lost",
            "doubled",
            "median",
            "99 %",
            "worst",
            "stopped in s",
        ),
        rows=rows,
        targets=[
            Target(promise="nothing lost, nothing doubled", found=f"{n_wrong}", met=n_wrong == 0),
            Target(
                promise=f"a restart adds less than {MOST_ADDED_S:g} s to the slowest batch",
                found=f"{added_s:+.2f} s",
                met=added_s < MOST_ADDED_S,
            ),
        ],
        raw=found,
    )


async def _round(sandbox: Sandbox, pool: str, seconds: float, *, restarts: bool) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="bl-") as directory, redis_server(Path(directory)) as url:
        home, keys = Path(directory), Keys("default")
        environment = {**clean_environment(), **sandbox.settings, "BATCHLING_HOME": directory}
        environment |= {"BATCHLING_REDIS_URL": url, "BATCHLING_LEASE_SECONDS": str(LEASE_S)}
        environment["BATCHLING_POLL_INTERVAL_SECONDS"] = "0.2"
        workers = Workers(home=home, pool=pool, environment=environment)
        async with connected(url) as redis:
            lane = await stored_lane(redis, keys, home)
            try:
                for _ in range(2):
                    workers.start()
                await alive(redis, keys, 2)
                asking = asyncio.create_task(_ask(lane, seconds))
                stops_s = []
                for n in (3, 4) if restarts else ():
                    await asyncio.sleep(seconds / 6)
                    stops_s.append(await workers.replace_oldest())
                    await alive(redis, keys, 2, named=f"w{n - 1}@bench")
                asked, took_s = await asking
                waited_s = await _settled(redis, keys)
                lost = await _unanswered(redis, keys, asked)
            finally:
                workers.kill()
    return {
        "pool": pool,
        "restarts": restarts,
        "n_requests": len(asked),
        "rate": round(len(asked) / took_s),
        "n_lost": lost,
        "n_doubled": sandbox.n_billed_twice(),
        "p50_s": median(waited_s),
        "p99_s": quantile(waited_s, 0.99),
        "worst_s": max(waited_s),
        "stops_s": stops_s,
    }


async def _ask(lane: Lane, seconds: float) -> tuple[list[RequestId], float]:
    """Enqueue prepared portions at the rate; return the ids and the seconds it took."""
    portions = [
        [lane.row(BODY_BYTES) for _ in range(RATE // PORTIONS_A_SECOND)]
        for _ in range(int(seconds * PORTIONS_A_SECOND))
    ]
    cap = lane.cap(ROWS_A_BATCH, linger_ms=LINGER_MS)
    guess, started_s = new_batch_id(), time.perf_counter()
    for n, portion in enumerate(portions):
        await asyncio.sleep(started_s + n / PORTIONS_A_SECOND - time.perf_counter())
        rest: list[RowIn] = portion
        while rest:
            reply = await lane.enqueue(guess, rest, cap)
            rest = rest[len(reply.placements) :]
            if rest or reply.verdict is not Verdict.OK:
                guess = reply.open_batch or new_batch_id()
    took_s = time.perf_counter() - started_s
    return [row.request_id for portion in portions for row in portion], took_s


async def _settled(redis: Redis, keys: Keys) -> list[float]:
    """Wait until every batch is terminal; return the seconds of each from its seal."""
    async with asyncio.timeout(3 * PATIENCE_S):
        while await redis.zcard(keys.schedule):
            await asyncio.sleep(0.1)
    waited_s = []
    batch_ids: Any = await redis.zrange(keys.batches, 0, -1)
    for batch_id in batch_ids:
        times: Any = await redis.hmget(keys.batch(batch_id.decode()), ["sealed_at", "settled_at"])
        sealed_ms, settled_ms = times
        if sealed_ms is None or settled_ms is None:
            raise RuntimeError(f"batch {batch_id.decode()} did not settle")
        waited_s.append((int(settled_ms) - int(sealed_ms)) / 1000)
    return waited_s


async def _unanswered(redis: Redis, keys: Keys, asked: list[RequestId]) -> int:
    n = 0
    for first in range(0, len(asked), 1000):
        found = await redis.mget([keys.result(one) for one in asked[first : first + 1000]])
        n += sum(result is None for result in found)
    return n
