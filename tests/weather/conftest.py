"""Fixtures of the weather tests: a Redis of their own, reached directly and through a proxy."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from batchling_client.intercept import interceptor
from batchling_worker.sandbox import Sandbox
from tests.client.conftest import RedisServer
from tests.deployment import MODEL, SLOW_MODEL, Deployment
from tests.proxy import Proxy

QUICK = "?socket_timeout=1&health_check_interval=1"
"""Added to a Redis URL: silence is noticed after one second instead of ten."""


@pytest.fixture
def redis_server() -> Iterator[RedisServer]:
    """Run a server for one test, which may freeze it."""
    with tempfile.TemporaryDirectory(prefix="batchling-") as home:
        server = RedisServer(Path(home))
        server.start()
        yield server
        server.stop()


@pytest.fixture
def proxy(redis_server: RedisServer) -> Iterator[Proxy]:
    """Run a proxy in front of that Redis."""
    with Proxy(redis_server.url) as running:
        yield running


@pytest.fixture
def caller(
    proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> Proxy:
    """Set the variables of `batchify`: Redis through the proxy, silence noticed after a second."""
    interceptor.warned.clear()
    caplog.set_level(logging.INFO, logger="batchling_client")
    monkeypatch.setenv("BATCHLING_REDIS_URL", proxy.url + QUICK)
    monkeypatch.setenv("BATCHLING_HOME", str(tmp_path))
    return proxy


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(speeds={MODEL: 0.2, SLOW_MODEL: 0.8, "*": 0.2}) as running:
        yield running


@pytest.fixture
async def deployment(sandbox: Sandbox) -> AsyncIterator[Deployment]:
    with tempfile.TemporaryDirectory(prefix="bl-") as home:
        async with Deployment(home=Path(home), sandbox=sandbox) as running:
            yield running
