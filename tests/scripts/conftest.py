"""Fixtures of the script tests: one real Redis a session, a namespace a test, nothing left without a lifetime."""

from __future__ import annotations

import os
import secrets
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from redis import Redis
from redis.backoff import ConstantBackoff
from redis.exceptions import ConnectionError
from redis.retry import Retry

from batchling_client.wire.deployment.connection import connect
from batchling_client.wire.keys import Keys
from batchling_worker.stack.redis_binary import find

from .byhand import ByHand
from .keyspace import strays


@contextmanager
def _redis_server() -> Iterator[str]:
    """A real redis-server on a unix socket, as its URL; stopped by pid."""
    with ExitStack() as stack:
        # A socket's path has room for about a hundred characters: not below a long tmp_path.
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bl-")))
        log = stack.enter_context((home / "redis.log").open("wb"))
        words = [
            str(find(os.environ["PATH"])),
            "--port",
            "0",
            "--unixsocket",
            f"{home}/s",
            "--dir",
            str(home),
        ]
        words += ["--save", "", "--appendonly", "no", "--maxmemory-policy", "noeviction"]
        process = subprocess.Popen(words, stdout=log, stderr=log)
        stack.callback(process.wait, 10)
        stack.callback(process.kill)
        url = f"unix://{home}/s"
        patience = Retry(ConstantBackoff(0.02), 500)
        with Redis.from_url(url, retry=patience, retry_on_error=[ConnectionError]) as client:
            client.ping()
        yield url


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    with _redis_server() as url:
        yield url


@pytest.fixture
def own_redis_url() -> Iterator[str]:
    """A server for one test, which bends it."""
    with _redis_server() as url:
        yield url


@pytest.fixture
async def byhand(redis_url: str) -> AsyncIterator[ByHand]:
    """The scripts of a namespace of their own; whatever they leave behind is declared and expires."""
    redis = connect(redis_url)
    keys = Keys(f"t-{secrets.token_hex(6)}")
    yield ByHand(redis, keys)
    left = await strays(redis, keys)
    await redis.aclose()
    assert left == []


@pytest.fixture
async def alone(own_redis_url: str) -> AsyncIterator[ByHand]:
    """The scripts on a server of their own."""
    redis = connect(own_redis_url)
    yield ByHand(redis, Keys("alone"))
    await redis.aclose()
