"""The examples run as their pages say, before the sandbox."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from pathlib import Path

from batchling_worker.sandbox import Sandbox
from tests.deployment import Deployment

ROOT = Path(__file__).resolve().parents[2]
WITHIN_S = 50.0


async def run(*words: str, home: Path, **settings: str) -> str:
    """What a Python process that ended well has printed."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("BATCHLING_")}
    program = await asyncio.create_subprocess_exec(
        sys.executable,
        *words,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=ROOT,
        env={**kept, "BATCHLING_HOME": str(home), "GROQ_API_KEY": "gsk-test", **settings},
    )
    out, err = await asyncio.wait_for(program.communicate(), WITHIN_S)
    assert program.returncode == 0, err.decode()
    return out.decode()


async def rehearsed(example: str, **settings: str) -> str:
    """The output of `batchling run --sandbox`."""
    main = "from batchling_client.cli.main import main; main()"
    with tempfile.TemporaryDirectory(prefix="bl-") as home:
        return await run("-c", main, "run", "--sandbox", f"examples/{example}", home=Path(home), **settings)


async def test_the_quickstart_prints_an_answer_for_each_word() -> None:
    printed = await rehearsed("quickstart.py", OPENAI_API_KEY="sk-test")

    for word in ("batch", "queue", "lease"):
        assert f"Explain the word '{word}'" in printed


async def test_streaming_batches_prints_the_faster_model_first() -> None:
    printed = await rehearsed("streaming_batches.py:compare")

    models = [line.partition(":")[0] for line in printed.splitlines() if line]
    assert models == ["llama-3.1-8b-instant", "openai/gpt-oss-20b"]


async def test_gather_labels_every_review_in_order() -> None:
    printed = await rehearsed("gather.py:label")

    asked = [printed.index(review) for review in ("Arrived a day early", "The second one", "It is a kettle")]
    assert asked == sorted(asked)
    assert printed.count("\n  -> ") == 3
    assert "no label" not in printed


async def test_sync_threads_answers_every_thread_from_one_batch() -> None:
    with Sandbox(speeds={"*": 0.2}) as sandbox, tempfile.TemporaryDirectory(prefix="bl-") as home:
        async with Deployment(home=Path(home), sandbox=sandbox) as deployment:
            deployment.worker()
            printed = await run(
                "examples/sync_threads.py", home=Path(home), BATCHLING_REDIS_URL=deployment.url
            )
            [batch] = await deployment.settled()

    words = [line.partition(":")[0] for line in printed.splitlines() if ": " in line]
    assert batch.n_succeeded == 6
    assert {"batch", "queue", "lease", "token", "lane", "seal"} <= set(words)
