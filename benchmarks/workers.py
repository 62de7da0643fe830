"""Worker processes and a Redis, for measurements that start and stop them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from redis.asyncio import Redis

from batchling_client.wire.deployment.connection import UNREACHABLE, connect
from batchling_client.wire.keys import Keys
from batchling_worker.stack.redis_binary import find

from .stand import PATIENCE_S


@dataclass(slots=True)
class Workers:
    """Worker processes of one deployment; those that still run at the end are killed by pid."""

    home: Path
    pool: str
    environment: dict[str, str]
    running: list[subprocess.Popen[bytes]] = field(default_factory=list)
    n_started: int = 0

    def start(self) -> None:
        """Start one more worker."""
        name = f"w{self.n_started}@bench"
        self.n_started += 1
        words = [sys.executable, "-m", "celery", "-A", "batchling_worker", "worker", "--pool", self.pool]
        words += ["--concurrency", "2", "--without-mingle", "--without-gossip", "-n", name]
        with (self.home / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                words, env=self.environment, stdout=log, stderr=log, start_new_session=True
            )
        self.running.append(process)

    async def replace_oldest(self) -> float:
        """Stop the oldest worker and start another; return the seconds that stopping took."""
        leaving = self.running.pop(0)
        self.start()
        started_s = time.perf_counter()
        leaving.send_signal(signal.SIGTERM)
        await asyncio.to_thread(leaving.wait, PATIENCE_S)
        return time.perf_counter() - started_s

    def kill(self) -> None:
        """Kill the workers that still run."""
        for process in self.running:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(10)


@contextlib.contextmanager
def redis_server(home: Path) -> Iterator[str]:
    """Run a Redis with the embedded stack's durability, and yield its URL."""
    words = [str(find(os.environ["PATH"])), "--port", "0", "--unixsocket", f"{home}/s", "--dir", str(home)]
    words += ["--appendonly", "yes", "--save", "", "--maxmemory-policy", "noeviction"]
    with (home / "redis.log").open("wb") as log:
        process = subprocess.Popen(words, stdout=log, stderr=log)
    try:
        yield f"unix://{home}/s"
    finally:
        process.terminate()
        process.wait(30)


@contextlib.asynccontextmanager
async def connected(url: str) -> AsyncIterator[Redis]:
    """Return a connection, once Redis answers."""
    redis = connect(url)
    try:
        async with asyncio.timeout(PATIENCE_S):
            while True:
                with contextlib.suppress(*UNREACHABLE):
                    await redis.execute_command("PING")
                    break
                await asyncio.sleep(0.05)
        yield redis
    finally:
        await redis.aclose()


async def alive(redis: Redis, keys: Keys, n: int, *, named: str = "") -> None:
    """Wait until so many workers, including the named one, report that they are alive."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            listed: Any = await redis.zrange(keys.workers, 0, -1)
            if len(listed) >= n and (not named or named.encode() in listed):
                return
            await asyncio.sleep(0.05)
