"""An OpenAI-compatible endpoint is added by settings alone: environment variables, and no code."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from batchling_worker.sandbox import Sandbox
from batchling_worker.stack import control

from .command import batchling, clean_environment

MODEL = "gpt-4o-mini"
PROGRAM = f"""
import asyncio

from openai import AsyncOpenAI

client = AsyncOpenAI(max_retries=0)


async def ask(n):
    answer = await client.chat.completions.create(
        model="{MODEL}", messages=[{{"role": "user", "content": f"question {{n}}"}}]
    )
    return answer.choices[0].message.content


async def main():
    for answer in await asyncio.gather(*map(ask, range(5))):
        print(answer)
"""

PATIENT = "from batchling_client.block import dry_run; dry_run.QUIET_S = 2.0; "


@pytest.fixture
def home(short_home: Path) -> Iterator[Path]:
    yield short_home
    control.down(short_home)


@pytest.fixture
def env(home: Path, sandbox: Sandbox) -> dict[str, str]:
    """The sandbox's OpenAI is somebody's own server, of which batchling knows what stands here."""
    base_url = f"{sandbox.base_url('openai')}/v1"
    return {
        **clean_environment(),
        "BATCHLING_HOME": str(home),
        "BATCHLING_POLL_INTERVAL_SECONDS": "0.2",
        "BATCHLING_PROVIDERS__ACME__BASE_URL": base_url,
        "OPENAI_BASE_URL": base_url,
        "OPENAI_API_KEY": "sk-own",
        "ACME_API_KEY": "sk-own",
    }


async def test_an_endpoint_of_ones_own_is_batched_by_settings_alone(
    env: dict[str, str], sandbox: Sandbox, tmp_path: Path
) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM, encoding="utf-8")

    one_batch = ("--batch-size", "5", "--batch-window-seconds", "60")
    ran = await batchling("run", f"{program}:main", *one_batch, env=env)
    assert ran.code == 0, ran.err
    assert [f"question {n}" in line for n, line in enumerate(ran.out.splitlines())] == [True] * 5
    assert f"acme/{MODEL}" in ran.err

    lines = [
        {
            "custom_id": f"id-{n}",
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": {"model": MODEL, "messages": [{"role": "user", "content": f"question {n}"}]},
        }
        for n in range(5)
    ]
    path = tmp_path / "lines.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    submitted = await batchling("submit", str(path), "--provider", "acme", env=env)
    assert submitted.code == 0, submitted.err

    ledger = sandbox.ledger()
    assert (ledger.totals.n_batches, ledger.totals.n_rows, ledger.realtime) == (1, 5, [])


async def test_a_dry_run_knows_it(env: dict[str, str], sandbox: Sandbox, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM, encoding="utf-8")
    dry = await batchling("run", f"{program}:main", "--dry-run", env=env, prelude=PATIENT)
    assert f"acme/{MODEL} /v1/chat/completions: 5 requests, 1 batch" in dry.err, dry.err
    assert sandbox.ledger().calls == {}


@pytest.mark.parametrize("name", ["ACME", "OPENAI"])
async def test_a_rehearsal_plays_an_endpoint_that_only_settings_know(
    env: dict[str, str], sandbox: Sandbox, tmp_path: Path, name: str
) -> None:
    """The server of the settings is there, and hears nothing."""
    del env["BATCHLING_PROVIDERS__ACME__BASE_URL"]
    base_url = env["OPENAI_BASE_URL"]
    env[f"BATCHLING_PROVIDERS__{name}__BASE_URL"] = (
        base_url if name == "ACME" else base_url.removesuffix("/v1")
    )
    program = tmp_path / "program.py"
    program.write_text(PROGRAM, encoding="utf-8")

    played = await batchling("run", "--sandbox", "--batch-window-seconds", "0.3", f"{program}:main", env=env)

    assert played.code == 0, played.err
    assert [f"question {n}" in line for n, line in enumerate(played.out.splitlines())] == [True] * 5
    assert sandbox.ledger().calls == {}


async def test_a_file_for_an_endpoint_that_is_in_no_setting_is_refused(
    env: dict[str, str], tmp_path: Path
) -> None:
    del env["BATCHLING_PROVIDERS__ACME__BASE_URL"]
    seen = await batchling("submit", str(tmp_path / "none.jsonl"), "--provider", "acme", env=env)
    assert seen.code == 2
    assert "There is no provider 'acme'" in seen.sentence
