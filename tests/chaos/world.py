"""The processes of one run: Redis, the sandbox, workers and clients, each started, killed and started again by pid."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

import httpx
import msgspec
import psutil
from redis.asyncio import Redis

from batchling_client.wire.deployment.connection import UNREACHABLE, connect
from batchling_client.wire.keys import Keys
from batchling_worker.sandbox.world.faults import AnyFault
from batchling_worker.stack.redis_binary import find
from tests.redis_server import free_port
from tests.waiting import wait_until

from .client import KEYS
from .network import Network
from .power import Disk
from .schedule import WRONG_CLOCKS

LEASE_S: Final = 2.0
TICK_S: Final = 0.1
POLL_S: Final = 0.3
PATIENCE_S: Final = 8.0
RESULTS_PATIENCE_S: Final = 24.0
"""Seconds for which results are read again: longer than any false answer, and a third of the calm."""
MAX_ATTEMPTS: Final = 8
READY: Final = b' ready."\n'


@dataclass(slots=True)
class Slot:
    """A place for one process, which is replaced when it dies."""

    name: str
    command: list[str]
    env: Mapping[str, str]
    home: Path
    pool: str = ""
    process: subprocess.Popen[bytes] | None = None
    log: Path | None = None
    n_lives: int = 0
    stopped_until: float = 0.0
    """While it is stopped by SIGSTOP: when it is woken."""
    leaving_since: float = 0.0
    said_ready: bool = False
    finished: bool = False
    """Whether it has ended by itself, so that it is not replaced."""

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    @property
    def ready(self) -> bool:
        """Return whether its worker has logged that it is ready."""
        if self.said_ready or not self.alive or self.log is None:
            return self.said_ready and self.alive
        self.said_ready = READY in self.log.read_bytes()
        return self.said_ready

    def start(self) -> None:
        """Start its process as the leader of its own process group."""
        self.log = self.home / f"{self.name}-{self.n_lives}.log"
        self.n_lives += 1
        self.stopped_until = self.leaving_since = 0.0
        self.said_ready = False
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                self.command, env=dict(self.env), stdout=log, stderr=log, start_new_session=True
            )

    def pids(self) -> list[int]:
        """Return the pids of the process and its children."""
        if self.process is None:
            return []
        with contextlib.suppress(psutil.NoSuchProcess):
            return [self.process.pid, *self.children()]
        return [self.process.pid]

    def children(self) -> list[int]:
        """Return the pids of a worker's pool children."""
        if self.process is None:
            return []
        with contextlib.suppress(psutil.NoSuchProcess):
            return [child.pid for child in psutil.Process(self.process.pid).children(recursive=True)]
        return []

    def signal_group(self, number: signal.Signals) -> None:
        """Send a signal to the process and its children."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, number)


@dataclass(slots=True)
class World:
    """All processes of a run, in one folder; none is left running at the end."""

    home: Path
    seed: int
    n_workers: int
    n_clients: int
    n_questions: int
    secrets: Sequence[str]
    cuts: bool = True
    """Whether workers and clients reach Redis and the provider through proxies that may cut connections."""
    disk: Disk | None = None
    """If given, a killed Redis loses all data that is not on disk yet."""
    workers: list[Slot] = field(init=False, default_factory=list)
    clients: list[Slot] = field(init=False, default_factory=list)
    redis: Redis = field(init=False)
    keys: Keys = field(init=False)
    http: httpx.AsyncClient = field(init=False)
    sandbox_url: str = field(init=False)
    network: Network | None = field(init=False, default=None)
    redis_process: subprocess.Popen[bytes] | None = field(init=False, default=None)
    redis_away: list[tuple[float, float]] = field(init=False, default_factory=list)
    _redis_kill: asyncio.Lock = field(init=False, default_factory=asyncio.Lock)
    _sandbox: subprocess.Popen[bytes] | None = field(init=False, default=None)
    _orphans: list[psutil.Process] = field(init=False, default_factory=list)

    @property
    def url(self) -> str:
        return f"unix://{self.home}/redis.sock"

    async def __aenter__(self) -> Self:
        port = free_port()
        self.sandbox_url = f"http://127.0.0.1:{port}"
        self.http = httpx.AsyncClient(base_url=self.sandbox_url, timeout=60, trust_env=False)
        self.keys = Keys("default")
        self.redis = connect(self.url)
        self._start_sandbox(port)
        await self.start_redis()
        await wait_until(self._sandbox_answers, description="the sandbox answers", within_s=60)
        await self.arm(*WRONG_CLOCKS)
        if self.cuts:
            self.network = Network(self.url, self.sandbox_url).__enter__()
        env = self._env()
        for i in range(self.n_workers):
            self.workers.append(self._worker(i, env))
        for i in range(self.n_clients):
            self.clients.append(self._client(i, env))
        for slot in self.workers:
            slot.start()
        await wait_until(lambda: all(slot.ready for slot in self.workers), description="ready", within_s=120)
        for slot in self.clients:
            slot.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        for slot in (*self.workers, *self.clients):
            self.bury(slot.children())
            slot.signal_group(signal.SIGKILL)
            if slot.process is not None:
                slot.process.wait(10)
        for orphan in self._orphans:
            with contextlib.suppress(psutil.NoSuchProcess):
                orphan.kill()
        if self.network is not None:
            self.network.__exit__()
        await self.redis.aclose()
        await self.http.aclose()
        for process in (self.redis_process, self._sandbox):
            if process is not None and process.poll() is None:
                process.terminate()
                try:
                    process.wait(20)
                except subprocess.TimeoutExpired:
                    process.kill()

    async def arm(self, *faults: AnyFault) -> None:
        """Arm faults at the provider."""
        reply = await self.http.post("/_sandbox/faults", content=msgspec.json.encode(faults))
        reply.raise_for_status()

    async def calm(self) -> list[AnyFault]:
        """Disarm every fault but the wrong clocks, and return those that have not struck."""
        left = msgspec.json.decode((await self.http.get("/_sandbox/faults")).content, type=list[AnyFault])
        await self.http.delete("/_sandbox/faults")
        await self.arm(*WRONG_CLOCKS)
        if self.network is not None:
            await asyncio.to_thread(self.network.heal)
        return left

    def bury(self, pids: Sequence[int]) -> None:
        """Record children whose parent dies, so that none outlives the world."""
        for pid in pids:
            with contextlib.suppress(psutil.NoSuchProcess):
                self._orphans.append(psutil.Process(pid))

    async def start_redis(self) -> None:
        """Start Redis as the embedded stack does, and wait until it answers."""
        (self.home / "redis").mkdir(exist_ok=True)
        command = [str(find(os.environ["PATH"])), "--port", "0", "--unixsocket", f"{self.home}/redis.sock"]
        command += ["--unixsocketperm", "700", "--dir", f"{self.home}/redis", "--save", ""]
        command += ["--appendonly", "yes", "--appendfsync", "everysec", "--maxmemory-policy", "noeviction"]
        # Without compression, a key in clear is found in a rewritten file, too.
        command += ["--rdbcompression", "no"]
        with (self.home / "redis.log").open("ab") as log:
            self.redis_process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        await wait_until(self.redis_answers, description="Redis answers", within_s=60)

    async def redis_answers(self) -> bool:
        """Return whether Redis answers and has loaded its file."""
        try:
            return bool(await self.redis.execute_command("PING"))
        except UNREACHABLE:
            return False

    async def kill_redis(self, away_s: float) -> None:
        """Kill Redis (-9) and later start a new one on the same file; if Redis is down, wait until it is back first."""
        async with self._redis_kill:
            if self.redis_process is None:
                return
            since = time.time()
            self.redis_process.kill()
            self.redis_process.wait(10)
            if self.disk is not None:
                self.disk.cut()
            await asyncio.sleep(away_s)
            await self.start_redis()
            self.redis_away.append((since, time.time()))

    def _start_sandbox(self, port: int) -> None:
        command = [sys.executable, "-m", "batchling_worker.sandbox", "--port", str(port)]
        with (self.home / "sandbox.log").open("wb") as log:
            self._sandbox = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)

    async def _sandbox_answers(self) -> bool:
        try:
            return (await self.http.get("/_sandbox/clock")).is_success
        except httpx.TransportError:
            return False

    def _env(self) -> dict[str, str]:
        redis_url = self.url if self.network is None else self.network.queue.url
        provider_url = self.sandbox_url if self.network is None else self.network.provider.url
        return {
            **{
                name: value
                for name, value in os.environ.items()
                if not name.startswith(("BATCHLING_", "OPENAI_"))
            },
            "BATCHLING_REDIS_URL": redis_url,
            "BATCHLING_HOME": str(self.home),
            "BATCHLING_LEASE_SECONDS": str(LEASE_S),
            "BATCHLING_TICK_SECONDS": str(TICK_S),
            "BATCHLING_POLL_INTERVAL_SECONDS": str(POLL_S),
            "BATCHLING_RECONCILE_PATIENCE_SECONDS": str(PATIENCE_S),
            "BATCHLING_RESULTS_PATIENCE_SECONDS": str(RESULTS_PATIENCE_S),
            "BATCHLING_MAX_ATTEMPTS": str(MAX_ATTEMPTS),
            # The evidence reads the requests by custom_id from the input files.
            "BATCHLING_KEEP_FILES": "true",
            "BATCHLING_PROVIDERS__GROQ__BASE_URL": f"{provider_url}/groq",
            "BATCHLING_PROVIDERS__OPENAI__BASE_URL": f"{provider_url}/openai",
        }

    def _worker(self, i: int, env: Mapping[str, str]) -> Slot:
        pool = "threads" if i % 2 else "prefork"
        command = [sys.executable, "-m", "celery", "-A", "batchling_worker", "worker", "--pool", pool]
        command += [
            "--concurrency",
            "2" if pool == "prefork" else "4",
            "--without-mingle",
            "--without-gossip",
            "-n",
            f"w{i}@chaos",
        ]
        # At this level the log says which process began which step.
        command += ["-l", "DEBUG"]
        return Slot(name=f"w{i}", command=command, env=env, home=self.home, pool=pool)

    def _client(self, i: int, env: Mapping[str, str]) -> Slot:
        words = (str(self.seed), str(i), str(self.n_questions), str(self.home))
        command = [sys.executable, "-m", "tests.chaos.client", *words]
        return Slot(name=f"c{i}", command=command, env={**env, KEYS: ",".join(self.secrets)}, home=self.home)
