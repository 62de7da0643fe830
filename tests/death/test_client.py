"""A caller killed while it enqueues or while it waits: its rerun attaches, and nothing is paid for twice."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path

from tests.deployment import MODEL, Deployment
from tests.waiting import wait_until

ROOT = Path(__file__).resolve().parents[2]
N_CALLS = 300
CALLER = """
import asyncio, json, sys
import httpx
from batchling import batchify

URL = "https://api.groq.com/openai/v1/chat/completions"
N, MODEL, PAUSE_S = int(sys.argv[1]), sys.argv[2], float(sys.argv[3])

async def ask(http, i):
    body = {"model": MODEL, "messages": [{"role": "user", "content": f"question {i}"}]}
    return (await http.post(URL, json=body)).status_code

async def main():
    async with batchify(batch_window_seconds=1.0, live_display=False), httpx.AsyncClient(
        headers={"authorization": "Bearer gsk-of-a-test"}, timeout=None
    ) as http:
        asked = []
        for i in range(N):
            asked.append(asyncio.create_task(ask(http, i)))
            await asyncio.sleep(PAUSE_S)
        print(json.dumps(sorted(await asyncio.gather(*asked))))

asyncio.run(main())
"""


def caller(deployment: Deployment, *, pause_s: float = 0.0) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", CALLER, str(N_CALLS), MODEL, str(pause_s)],
        env=deployment.env,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )


async def n_enqueued(deployment: Deployment) -> int:
    return sum(batch.n_requests for batch in await deployment.batches())


async def killed_at(deployment: Deployment, n: int, *, pause_s: float) -> None:
    """Run a caller, and kill it when so many of its requests are in Redis."""
    doomed = caller(deployment, pause_s=pause_s)

    async def reached() -> bool:
        return await n_enqueued(deployment) >= n

    await wait_until(reached, description=f"{n} requests are enqueued", within_s=30)
    doomed.kill()
    doomed.communicate()


async def rerun_gets_everything_once(deployment: Deployment) -> None:
    again = caller(deployment)
    out, _ = await asyncio.to_thread(again.communicate, timeout=50)
    assert json.loads(out) == [200] * N_CALLS
    await deployment.settled()
    billed = deployment.billed()
    assert len(billed) == N_CALLS
    assert set(billed.values()) == {1}
    assert await n_enqueued(deployment) == N_CALLS


async def test_a_caller_killed_while_it_enqueues_attaches_on_rerun(deployment: Deployment) -> None:
    await killed_at(deployment, N_CALLS // 3, pause_s=0.03)
    assert await n_enqueued(deployment) < N_CALLS
    deployment.worker()

    await rerun_gets_everything_once(deployment)


async def test_a_caller_killed_while_it_waits_attaches_on_rerun(deployment: Deployment) -> None:
    deployment.worker()
    await killed_at(deployment, N_CALLS, pause_s=0.0)
    await wait_until(
        lambda: bool(deployment.sandbox.batches()), description="the provider has it", within_s=20
    )

    await rerun_gets_everything_once(deployment)
