"""The Procfile starts the same Redis as the embedded stack, with the configuration of `deploy`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psutil

from batchling_worker.stack import resp

from ..waiting import wait_until

CONFIG = Path(__file__).parents[2] / "deploy" / "redis.conf"


async def test_it_runs_with_the_deployed_configuration(tmp_path: Path) -> None:
    config = tmp_path / "redis.conf"
    socket = tmp_path / "redis.sock"
    config.write_text(CONFIG.read_text() + f"\nport 0\nunixsocket {socket}\n")
    words = [
        sys.executable,
        "-P",
        "-m",
        "batchling_worker.stack.redis_server",
        str(config),
        "--dir",
        str(tmp_path / "data"),
    ]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL) as redis:
        try:
            await wait_until(lambda: resp.ready(socket), description="Redis answers")
            told = resp.ask(socket, "INFO", "everything")
            assert f"process_id:{redis.pid}" in told
            assert "aof_enabled:1" in told
            assert "maxmemory_policy:noeviction" in told
            assert psutil.Process(redis.pid).net_connections(kind="tcp") == []
            assert (tmp_path / "data" / "appendonlydir").is_dir()
        finally:
            redis.terminate()


def test_without_a_configuration_it_says_how_it_is_used() -> None:
    answer = subprocess.run(
        [sys.executable, "-P", "-m", "batchling_worker.stack.redis_server"], capture_output=True, text=True
    )
    assert answer.returncode == 2
    assert "--dir" in answer.stderr
