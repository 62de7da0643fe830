import asyncio
import contextlib
import logging
import os
import secrets
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from redis import Redis

from batchling_client.intercept import interceptor
from batchling_client.wire.deployment.cancellation import end
from batchling_client.wire.keys import KEYSPACE, Keys
from batchling_worker.stack.redis_binary import find

from .answerer import Answerer
from .gateway import Site, serving


class RedisServer:
    """A real redis-server on a unix socket; it keeps what it holds over a restart."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.url = f"unix://{home}/redis.sock"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        binary = str(find(os.environ["PATH"]))
        command = [binary, "--port", "0", "--unixsocket", f"{self.home}/redis.sock", "--dir", str(self.home)]
        command += ["--save", "", "--appendonly", "yes", "--appendfsync", "always"]
        with (self.home / "redis.log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        with self.client() as client:
            for _ in range(500):
                with contextlib.suppress(Exception):
                    client.ping()
                    return
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self.process.wait(0.02)
        raise AssertionError((self.home / "redis.log").read_text())

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait(10)
            self.process = None

    def client(self) -> Redis:
        return Redis.from_url(self.url)


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    # Unix socket paths have room for about a hundred characters: not below a long tmp_path.
    with tempfile.TemporaryDirectory(prefix="batchling-") as home:
        server = RedisServer(Path(home))
        server.start()
        yield server
        server.stop()


@pytest.fixture
def own_redis() -> Iterator[RedisServer]:
    """A server for one test, which may stop it, fill it or bend it."""
    with tempfile.TemporaryDirectory(prefix="batchling-") as home:
        server = RedisServer(Path(home))
        server.start()
        yield server
        server.stop()


@pytest.fixture
def namespace(redis_server: RedisServer) -> Iterator[str]:
    """A fresh namespace; whatever is left in it afterwards expires, unless it is declared permanent."""
    name = f"test-{secrets.token_hex(6)}"
    yield name
    prefix = Keys(name).prefix
    expiring = {kind.word for kind in KEYSPACE if kind.lifetime.ms}
    words = {kind.word for kind in KEYSPACE}
    with redis_server.client() as client:
        for key in client.scan_iter(match=f"batchling:*{name}*", count=1000):
            word = key.decode().removeprefix(prefix).partition(":")[0]
            assert word in words, f"{key!r} is not in the keyspace"
            assert word not in expiring or client.pttl(key) > 0, f"{key!r} has no TTL"


@pytest.fixture(autouse=True)
def environment(
    redis_server: RedisServer, namespace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The settings that `batchify` finds."""
    monkeypatch.setenv("BATCHLING_REDIS_URL", redis_server.url)
    monkeypatch.setenv("BATCHLING_NAMESPACE", namespace)
    monkeypatch.setenv("BATCHLING_HOME", str(tmp_path))
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    monkeypatch.setenv("GROQ_API_KEY", "gsk-test")


@pytest.fixture(autouse=True)
def fresh_warnings() -> None:
    interceptor.warned.clear()


@pytest.fixture(autouse=True)
def logs(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="batchling_client")


@pytest.fixture
async def answerer(redis_server: RedisServer, namespace: str) -> AsyncIterator[Answerer]:
    worker = Answerer(redis_server.url, namespace)
    task = asyncio.create_task(worker.work())
    yield worker
    await end([task])
    await worker.redis.aclose()


@pytest.fixture
async def redis(redis_server: RedisServer, namespace: str) -> AsyncIterator[Answerer]:
    """A worker's view of Redis, which does nothing by itself."""
    worker = Answerer(redis_server.url, namespace)
    yield worker
    await worker.redis.aclose()


@pytest.fixture
def site() -> Iterator[Site]:
    """An unknown host that answers LLM calls."""
    with serving() as there:
        yield there
