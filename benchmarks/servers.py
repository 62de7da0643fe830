"""Compares the servers that the embedded stack can start: those on PATH and the packaged one."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import psutil
from redis import Redis

from batchling_worker.stack import resp
from batchling_worker.stack.layout import Layout
from batchling_worker.stack.recipes import Recipes
from batchling_worker.stack.redis_binary import Server, servers

from .figures import Cell, Report, median, quantile
from .script_times import timed
from .stand import MIB, cpu_s, peak_rss_mib

N_BATCHES: Final = 100
LARGEST: Final = 10_000
RUNS: Final = 3
PATIENCE_S: Final = 120.0
START_S: Final = 0.005
WRITTEN_MS: Final = 10_000


def measure() -> Report:
    """Give each server the same work, kill it, and restart it on the files it wrote; the servers take turns."""
    found = {
        f"{server.family} {server.version[0]}.{server.version[1]}": server
        for server in servers(os.environ["PATH"])
    }
    rounds: dict[str, list[dict[str, float]]] = {name: [] for name in found}
    for _ in range(RUNS):
        for name, server in found.items():
            rounds[name].append(_round(server))
    figures = {
        name: {what: min(one[what] for one in taken) for what in taken[0]} for name, taken in rounds.items()
    }
    columns = ("server", *next(iter(figures.values())))
    rows: list[list[Cell]] = [
        [name, *(f"{value:.3g}" for value in best.values())] for name, best in figures.items()
    ]
    return Report(
        title=f"Servers: {N_BATCHES} batches at once, then one of {LARGEST:,} rows; the best of {RUNS} rounds",
        columns=columns,
        rows=rows,
        raw=dict(rounds),
    )


def _round(server: Server) -> dict[str, float]:
    with tempfile.TemporaryDirectory(prefix="bl-bench-") as directory:
        layout = Layout(Path(directory))
        layout.prepare()
        with _running(server, layout) as process:
            began_s = time.perf_counter()
            calls = asyncio.run(timed(f"unix://{layout.socket()}", process.pid, N_BATCHES, LARGEST))
            work_s = time.perf_counter() - began_s
            script_ms = [call.script_ms for taken in calls.values() for call in taken]
            with Redis.from_url(f"unix://{layout.socket()}") as client:
                used = client.info("memory")["used_memory"]
            found = {
                "work s": work_s,
                "CPU s": cpu_s(process),
                "script median ms": median(script_ms),
                "99 %": quantile(script_ms, 0.99),
                "worst ms": max(script_ms),
                "used MiB": used / MIB,
                "RSS MiB": process.memory_info().rss / MIB,
                "peak MiB": peak_rss_mib(process),
            }
            n_keys = _written(server, layout)
            process.kill()
        files = (layout.redis / "appendonlydir").iterdir()
        found["file MiB"] = sum(file.stat().st_size for file in files) / MIB
        began_s = time.perf_counter()
        with _running(server, layout) as process:
            found["recovery s"] = time.perf_counter() - began_s
            found["RSS after, MiB"] = process.memory_info().rss / MIB
            with Redis.from_url(f"unix://{layout.socket()}") as client:
                # Keys that expire within the minutes of the benchmark would spoil the comparison.
                if client.dbsize() != n_keys:
                    raise RuntimeError(f"{client.dbsize()} of {n_keys} keys are back")
        return found


def _written(server: Server, layout: Layout) -> int:
    """Wait until every write is in the server's file; return the number of keys."""
    with Redis.from_url(f"unix://{layout.socket()}", single_connection_client=True) as client:
        # WAITAOF waits for the writes of its own connection, and so for all earlier writes.
        client.set("last", 1)
        n_files, _ = client.execute_command("WAITAOF", 1, 0, WRITTEN_MS)
        if n_files != 1:
            raise RuntimeError(f"{server} has not written its file within {WRITTEN_MS} ms")
        return int(client.dbsize())


@contextlib.contextmanager
def _running(server: Server, layout: Layout) -> Iterator[psutil.Process]:
    """Run a server with the embedded stack's options, without a worker."""
    recipe = Recipes(layout, layout.socket(), os.environ).redis(str(server.path))
    with layout.log("redis").open("ab") as log:
        process = subprocess.Popen(recipe.argv, env=recipe.environment, stdout=log, stderr=log)
    try:
        deadline_s = time.monotonic() + PATIENCE_S
        while not resp.ready(layout.socket()):
            if process.poll() is not None or time.monotonic() > deadline_s:
                raise RuntimeError(f"{server} does not start: {layout.log('redis').read_text()[-500:]}")
            time.sleep(START_S)
        yield psutil.Process(process.pid)
    finally:
        process.kill()
        process.wait(10)
