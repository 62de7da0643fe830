"""Time and memory of the commands that look, over a store of 100,000 batches of which 1,600 are unfinished."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from redis.asyncio import Redis

from batchling_client.wire.ids import new_run_id
from batchling_client.wire.keys import Keys, RunId
from batchling_client.wire.records.row_and_result import LaneSpec
from batchling_client.wire.states import BatchState

from .figures import Cell, Report, Target
from .stand import MIB, clean_environment
from .workers import connected, redis_server

N_BATCHES: Final = 100_000
N_UNFINISHED: Final = 1_600
N_QUARANTINED: Final = 10
N_LANES: Final = 20
N_RUNS: Final = 200
ROUNDS: Final = 3
LONGEST_S: Final = 0.6
MOST_MIB: Final = 80
KEEP_MS: Final = 3_600_000
DAY_MS: Final = 86_400_000
AT_ONCE: Final = 2_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """What the commands ask about."""

    batch_id: str
    run_id: RunId


def measure() -> Report:
    """Fill a Redis, then run each command three times as a process; keep the best time and the peak memory."""
    with tempfile.TemporaryDirectory(prefix="bl-") as home, redis_server(Path(home)) as url:
        made = asyncio.run(filled(url))
        environment = {**clean_environment(), "BATCHLING_REDIS_URL": url, "BATCHLING_HOME": home}
        commands = (
            ("--version",),
            ("status",),
            ("batches",),
            ("batches", "--stuck"),
            ("batches", "--failed", "--limit", "50"),
            ("batches", "--model", "m3", "--limit", "50"),
            ("lanes",),
            ("runs",),
            ("show", made.batch_id),
            ("show", made.run_id),
        )
        found = [_run(words, environment) for words in commands]
    rows: list[list[Cell]] = [
        [" ".join(words).replace(made.batch_id, "BATCH").replace(made.run_id, "RUN"), seconds, mib]
        for words, (seconds, mib) in zip(commands, found, strict=True)
    ]
    slowest, largest = max(seconds for seconds, _ in found), max(mib for _, mib in found)
    return Report(
        title=f"Commands over {N_BATCHES:,} batches, {N_UNFINISHED:,} of them unfinished, best of {ROUNDS}",
        columns=("batchling", "seconds", "MiB"),
        rows=rows,
        targets=[
            Target(promise=f"at most {LONGEST_S} s", found=f"{slowest:.2f} s", met=slowest <= LONGEST_S),
            Target(promise=f"at most {MOST_MIB} MiB", found=f"{largest:.0f} MiB", met=largest <= MOST_MIB),
        ],
    )


def _run(words: tuple[str, ...], environment: dict[str, str]) -> tuple[float, float]:
    """Return the best time in seconds and the peak memory in MiB of a command."""
    best, most = float("inf"), 0.0
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-c", "from batchling_client.cli.main import main; main()", *words],
            env=environment,
            stdout=subprocess.DEVNULL,
        )
        _, code, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(code)
        if process.returncode not in (0, 1):
            raise RuntimeError(f"batchling {' '.join(words)} ended with {process.returncode}")
        best = min(best, time.perf_counter() - begun)
        most = max(most, usage.ru_maxrss * 1024 / MIB)
    return best, most


async def filled(url: str) -> Made:
    """Write the records of batches, lanes and runs as the scripts leave them behind."""
    keys = Keys("default")
    async with connected(url) as redis:
        seconds, _ = await redis.execute_command("TIME")
        now_ms = int(seconds) * 1000
        specs = [_spec(number) for number in range(N_LANES)]
        runs = [new_run_id() for _ in range(N_RUNS)]
        commands = _commands(keys, specs, runs, now_ms)
        await _send(redis, commands)
    return Made(batch_id=_batch_id(now_ms, N_BATCHES // 2), run_id=runs[N_RUNS // 2])


def _spec(number: int) -> LaneSpec:
    return LaneSpec(
        provider=("openai", "groq", "anthropic", "mistral")[number % 4],
        host="api.example.com",
        endpoint="/v1/chat/completions",
        model=f"m{number}",
        fingerprint=f"{number:020}",
        completion_window="24h",
    )


def _commands(
    keys: Keys, specs: list[LaneSpec], runs: list[RunId], now_ms: int
) -> Iterator[tuple[str | bytes | float, ...]]:
    for spec in specs:
        yield ("HSET", keys.lane(spec.lane_id), "spec", spec.encode())
        yield ("ZADD", keys.lanes, now_ms, spec.lane_id)
    for number, run_id in enumerate(runs):
        started_ms = now_ms - DAY_MS + number * 1000
        yield (
            "HSET",
            keys.run(run_id),
            "name",
            f"nightly-{number}",
            "started_at",
            started_ms,
            "n_requests",
            5_000,
        )
        yield ("ZADD", keys.runs, started_ms, run_id)
    for number in range(N_BATCHES):
        spec, batch_id = specs[number % N_LANES], _batch_id(now_ms, number)
        fields = _fields(number, batch_id, spec, now_ms)
        name = "quarantined" if "quarantined_at" in fields else str(fields["state"])
        if name == BatchState.SETTLED and fields["n_failed"]:
            name = "settled_with_failures"
        flat = [value for pair in fields.items() for value in pair]
        yield ("HSET", keys.batch(batch_id), *flat)
        yield ("ZADD", keys.batches, fields["created_at"], batch_id)
        at = fields.get("settled_at", fields["created_at"])
        yield ("ZADD", keys.lane_batches(spec.lane_id, name), at, batch_id)
        if number < N_UNFINISHED and name != "quarantined":
            yield ("ZADD", keys.schedule, now_ms + 5_000, batch_id)
        yield ("SADD", keys.run_batches(runs[number % N_RUNS]), batch_id)


def _fields(number: int, batch_id: str, spec: LaneSpec, now_ms: int) -> dict[str, Any]:
    created_ms = now_ms - DAY_MS + number * 800
    stored: dict[str, Any] = {
        "id": batch_id,
        "lane": spec.lane_id,
        "spec": spec.encode(),
        "state": "submitted",
        "created_at": created_ms,
        "updated_at": created_ms + 60_000,
        "submitted_at": created_ms + 5_000,
        "n_requests": 100,
        "n_bytes": 50_000,
        "n_succeeded": 0,
        "n_failed": 0,
        "token": created_ms,
        "label": f"batchling-default-{batch_id}",
        "provider_batch_id": f"batch_{number:032}",
        "provider_status": "in_progress",
        "timeline": f"{created_ms} opened\n{created_ms + 2_000} sealed: no more calls came",
    }
    if number >= N_UNFINISHED:
        n_failed = 3 * (number % 50 == 0)
        ended = {"state": "settled", "settled_at": created_ms + 60_000, "ended_at": created_ms + 50_000}
        return stored | ended | {"n_succeeded": 100 - n_failed, "n_failed": n_failed}
    if number < N_QUARANTINED:
        return stored | {
            "quarantined_at": created_ms,
            "error": "quarantined: three workers died on this batch",
        }
    return stored | ({"state": "sealed", "error": "the quota has no room"} if number % 3 == 0 else {})


def _batch_id(now_ms: int, number: int) -> str:
    return f"b{now_ms:09x}{number:010}"


async def _send(redis: Redis, commands: Iterator[tuple[str | bytes | float, ...]]) -> None:
    waiting: list[tuple[str | bytes | float, ...]] = []

    async def flush() -> None:
        async with redis.pipeline(transaction=False) as pipe:
            for command in waiting:
                pipe.execute_command(*command)
            await pipe.execute()
        waiting.clear()

    for command in commands:
        waiting.append(command)
        if len(waiting) == AT_ONCE:
            await flush()
    await flush()
