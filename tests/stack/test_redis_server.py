"""The Procfile starts the same Redis as the embedded stack, with the configuration of `deploy`."""

from __future__ import annotations

import os
import re
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
import pytest

from batchling_worker.stack import resp

from ..waiting import wait_until

PROJECT = Path(__file__).parents[2]
NOBODY = 65534


@contextmanager
def procfile_redis(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run the Redis of the Procfile as `honcho start` does in a checkout; stopped by pid."""
    folder.chmod(0o755)
    (folder / "deploy").symlink_to(PROJECT / "deploy")
    (line,) = [line for line in (PROJECT / "Procfile").read_text().splitlines() if line.startswith("redis:")]
    binaries = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    words = ["/bin/sh", "-c", line.removeprefix("redis:")]
    with subprocess.Popen(
        words, cwd=folder, env=os.environ | {"PATH": binaries}, stdout=subprocess.DEVNULL
    ) as redis:
        try:
            yield redis
        finally:
            redis.terminate()


async def test_it_runs_with_the_deployed_configuration() -> None:
    with TemporaryDirectory(prefix="bl-") as folder, procfile_redis(Path(folder)) as redis:
        data = Path(folder) / ".batchling" / "redis"
        path = data / "redis.sock"
        await wait_until(lambda: resp.ready(path), description="Redis answers")
        told = resp.ask(path, "INFO", "everything")
        assert f"process_id:{redis.pid}" in told
        assert "aof_enabled:1" in told
        assert "maxmemory_policy:noeviction" in told
        assert psutil.Process(redis.pid).net_connections(kind="tcp") == []
        assert (data / "appendonlydir").is_dir()
        assert [stat.S_IMODE(one.stat().st_mode) for one in (data, path)] == [0o700, 0o700]


@pytest.mark.skipif(os.getuid() != 0, reason="only root may connect as another user")
async def test_another_user_cannot_connect_to_it() -> None:
    with TemporaryDirectory(prefix="bl-") as folder, procfile_redis(Path(folder)):
        path = Path(folder) / ".batchling" / "redis" / "redis.sock"
        await wait_until(lambda: resp.ready(path), description="Redis answers")
        for data_mode in (0o700, 0o755):
            path.parent.chmod(data_mode)
            assert not connects(path, user=NOBODY)
        assert connects(path, user=0)


def connects(path: Path, *, user: int) -> bool:
    """Return whether a user may connect."""
    os.seteuid(user)
    try:
        with socket.socket(socket.AF_UNIX) as probe:
            probe.connect(str(path))
    except PermissionError:
        return False
    finally:
        os.seteuid(0)
    return True


def test_the_other_processes_of_the_procfile_use_its_socket() -> None:
    lines = (PROJECT / "Procfile").read_text().splitlines()
    (named,) = re.findall(r"--socket (\S+)", "\n".join(lines))

    for line in lines:
        name = line.partition(":")[0]
        assert name == "redis" or f":-unix://$PWD/{named}}}" in line, name


def test_without_a_configuration_it_says_how_it_is_used() -> None:
    answer = subprocess.run(
        [sys.executable, "-P", "-m", "batchling_worker.stack.redis_server"], capture_output=True, text=True
    )
    assert answer.returncode == 2
    assert "--dir" in answer.stderr
