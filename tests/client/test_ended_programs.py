"""Programs that end with calls in flight: by SIGTERM, or with an event loop that they drop."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import RedisServer

ROOT = Path(__file__).parents[2]
PROGRAM = """
import asyncio, gc, sys
import groq
from batchling import batchify

async def ask():
    client = groq.AsyncGroq(api_key="gsk-x", max_retries=0)
    calls = [
        client.chat.completions.create(model="m", messages=[{"role": "user", "content": f"q {n}"}]) for n in range(3)
    ]
    async with batchify(name="ended", batch_window_seconds=60) as run:
        calling = asyncio.gather(*calls)
        while sum(batch.n_requests for batch in await of(run)) < 3:
            await asyncio.sleep(0.02)
        in_redis.set()
        print("in Redis", flush=True)
        await calling

async def of(run):
    from batchling_client.block.run import handler_of
    return await handler_of(run).batches()

in_redis = asyncio.Event()
"""
WAITS = PROGRAM + "asyncio.run(ask())\n"
DROPS = (
    PROGRAM
    + """
async def main():
    global program
    program = asyncio.create_task(ask())
    program._log_destroy_pending = False  # the program's own
    await in_redis.wait()

loop = asyncio.new_event_loop()
loop.run_until_complete(main())
if sys.argv[1] == "closed":
    loop.close()
del loop, program
gc.collect()
print("dropped", flush=True)
"""
)


@pytest.fixture
def env(redis_server: RedisServer, namespace: str, tmp_path: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("BATCHLING_")}
    return {
        **kept,
        "BATCHLING_REDIS_URL": redis_server.url,
        "BATCHLING_NAMESPACE": namespace,
        "BATCHLING_HOME": str(tmp_path),
    }


def test_a_program_that_is_ended_by_sigterm_says_what_continues(env: dict[str, str]) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", WAITS],
        env=env,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == "in Redis\n"
        program.send_signal(signal.SIGTERM)
        _, said = program.communicate(timeout=30)

    assert program.returncode == -signal.SIGTERM
    assert "was ended by SIGTERM: 3 requests stay queued or run without this program" in said
    assert "Run the program again to get the answers without paying twice" in said
    assert "Traceback" not in said


@pytest.mark.parametrize("loop", ["closed", "left open"])
def test_a_loop_that_a_program_drops_leaves_no_warning_of_ours(loop: str, env: dict[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", DROPS, loop], env=env, cwd=ROOT, capture_output=True, text=True, timeout=40
    )

    assert done.stdout.splitlines() == ["in Redis", "dropped"], done.stderr
    assert done.returncode == 0
    for words in ("Task was destroyed", "Traceback", "Exception ignored", "never awaited"):
        assert words not in done.stderr
    assert "run 'ended'" in done.stderr
