"""Flower killed in the middle: it only displays state, so nothing depends on it."""

from __future__ import annotations

import subprocess
import sys
import urllib.error
import urllib.request

from tests.deployment import Deployment, kill
from tests.redis_server import free_port
from tests.waiting import wait_until


def up(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


async def test_a_killed_flower_changes_nothing(deployment: Deployment) -> None:
    port = free_port()
    words = [sys.executable, "-m", "celery", "-A", "batchling_worker", "flower", f"--port={port}"]
    with (deployment.home / "flower.log").open("wb") as log:
        flower = subprocess.Popen(
            [*words, "--address=127.0.0.1"],
            env=deployment.env,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    deployment.workers.append(flower)
    deployment.worker()
    await wait_until(
        lambda: up(f"http://127.0.0.1:{port}/healthcheck"), description="Flower is up", within_s=40
    )
    before = await deployment.ask(20)
    await deployment.answered(before)

    during = await deployment.ask(20)
    kill(flower)
    after = await deployment.ask(20)

    results = await deployment.answered([*during, *after])
    assert {result.status for result in results} == {200}
    await deployment.settled()
    assert deployment.billed() == dict.fromkeys([*before, *during, *after], 1)
    assert "ERROR" not in deployment.worker_logs()
