"""A real redis-server, configured by a test and stopped by pid."""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final

import pytest
from redis import Redis
from redis.backoff import ConstantBackoff
from redis.exceptions import ConnectionError
from redis.retry import Retry

from batchling_worker.stack import redis_binary
from batchling_worker.stack.redis_binary import find

PORTS: Final = range(20_000, 30_000)
"""Below the kernel's ephemeral ports: a free port here stays free until somebody binds it by number."""


def skip_without_waitaof() -> None:
    """Skip the test if the best server here is older than WAITAOF: only where the package has no wheel."""
    best = redis_binary.choose(os.environ["PATH"])
    if best.version < redis_binary.PREFERRED:
        pytest.skip(f"{best} has no WAITAOF: put Redis or Valkey 7.2 or newer on PATH")


def skip_without_package() -> None:
    """Skip the test if this machine has no packaged server."""
    if not redis_binary.servers(""):
        pytest.skip(f"{redis_binary.PACKAGE} is not installed: it may have no wheel for this machine")


def free_port() -> int:
    """Return a loopback port without a listener, which others are unlikely to bind before the test does."""
    while True:
        # Not from `random`, which has the same seed in each process of a test run.
        port = secrets.choice(PORTS)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


@contextmanager
def kept_port() -> Iterator[int]:
    """Keep a loopback port without a listener: only servers can bind it, and no connection gets it as its own port."""
    with socket.socket() as keeper:
        # Two sockets may share a port if both allow it, as servers do, and only one of them listens.
        keeper.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        keeper.bind(("127.0.0.1", 0))
        yield int(keeper.getsockname()[1])


@contextmanager
def redis_server(*words: str, port: int | None = None, sentinel: str = "") -> Iterator[str]:
    """Run Redis (or a Sentinel, from its configuration) and yield its URL; without a port, on a unix socket."""
    with ExitStack() as stack:
        # A socket's path is limited to about a hundred characters, so it cannot be below a long tmp_path.
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bl-")))
        log = stack.enter_context((home / "redis.log").open("wb"))
        command = [str(find(os.environ["PATH"]))]
        if sentinel:
            (home / "sentinel.conf").write_text(sentinel, encoding="ascii")
            command += [f"{home}/sentinel.conf", "--sentinel"]
        command += ["--dir", str(home), "--bind", "127.0.0.1"]
        command += ["--port", str(port)] if port is not None else ["--port", "0", "--unixsocket", f"{home}/s"]
        process = subprocess.Popen([*command, *words], stdout=log, stderr=log)
        stack.callback(process.wait, 10)
        stack.callback(process.kill)
        url = f"redis://127.0.0.1:{port}" if port is not None else f"unix://{home}/s"
        patience = Retry(ConstantBackoff(0.02), 500)
        with Redis.from_url(url, retry=patience, retry_on_error=[ConnectionError]) as client:
            client.ping()
        yield url
