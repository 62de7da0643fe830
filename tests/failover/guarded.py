"""A deployment whose Redis is a master with a replica, watched by three Sentinels: real processes on loopback ports."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from dataclasses import dataclass, field
from typing import Self

from redis import Redis
from redis.exceptions import ConnectionError, RedisError

from batchling_worker.stack.redis_binary import find
from tests.deployment import Deployment, stop
from tests.redis_server import free_port
from tests.waiting import wait_until

SERVICE = "ours"
N_SENTINELS = 3
DURABLE = ("--appendonly", "yes", "--save", "", "--maxmemory-policy", "noeviction")


@dataclass(slots=True)
class Guarded(Deployment):
    """A master, a replica and Sentinels; `kill_master` starts a fail-over, which takes a second and a half."""

    ports: list[int] = field(default_factory=lambda: [free_port() for _ in range(2 + N_SENTINELS)])
    servers: dict[int, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"sentinel://{','.join(f'127.0.0.1:{port}' for port in self.ports[2:])}/{SERVICE}/0"

    async def start_redis(self) -> None:
        """Start all five, and return once each knows the others."""
        master, replica, *sentinels = self.ports
        self._start(master, *DURABLE)
        self._start(
            replica, *DURABLE, "--replicaof", f"127.0.0.1 {master}", "--repl-diskless-sync-delay", "0"
        )
        await wait_until(lambda: self._linked(replica), description="the replica follows", within_s=30)
        for port in sentinels:
            words = (
                f"sentinel monitor {SERVICE} 127.0.0.1 {master} 2\n"
                f"sentinel down-after-milliseconds {SERVICE} 1000\n"
                f"sentinel failover-timeout {SERVICE} 10000\n"
            )
            conf = self.home / f"sentinel-{port}.conf"
            conf.write_text(words, encoding="ascii")
            self._start(port, str(conf), sentinel=True)
        await wait_until(self._acquainted, description="the Sentinels know each other", within_s=30)

    async def __aenter__(self) -> Self:
        try:
            return await super(Guarded, self).__aenter__()
        except BaseException:
            self._stop()
            raise

    async def __aexit__(self, *args: object) -> None:
        try:
            await super(Guarded, self).__aexit__(*args)
        finally:
            self._stop()

    def kill(self, port: int) -> None:
        """Send kill -9 to one server."""
        self.servers[port].send_signal(signal.SIGKILL)
        self.servers[port].wait(10)

    async def failed_over(self) -> bool:
        """Return whether the replica is the master now."""
        with Redis(port=self.ports[1]) as client:
            return str(client.info("replication")["role"]) == "master"

    def _start(self, port: int, *words: str, sentinel: bool = False) -> None:
        folder = self.home / str(port)
        folder.mkdir()
        command = [str(find(os.environ["PATH"])), *words[: 1 if sentinel else 0]]
        command += ["--sentinel"] if sentinel else []
        command += ["--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder)]
        command += words[1 if sentinel else 0 :]
        with (self.home / f"redis-{port}.log").open("wb") as log:
            self.servers[port] = subprocess.Popen(command, stdout=log, stderr=log)

    def _stop(self) -> None:
        for process in self.servers.values():
            stop(process)

    def _linked(self, port: int) -> bool:
        with contextlib.suppress(RedisError), Redis(port=port) as client:
            return str(client.info("replication").get("master_link_status")) == "up"
        return False

    def _acquainted(self) -> bool:
        known = []
        for port in self.ports[2:]:
            with contextlib.suppress(ConnectionError), Redis(port=port) as client:
                state = client.sentinel_master(SERVICE)
                known.append((int(state["num-other-sentinels"]), int(state["num-slaves"])))
        return known == [(N_SENTINELS - 1, 1)] * N_SENTINELS
