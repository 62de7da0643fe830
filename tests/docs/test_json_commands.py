"""docs/json.md describes what the commands print: each is run once, and its fields are compared with the page's."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from batchling_client.cli.main import main
from batchling_client.wire.states import BatchState
from batchling_worker.sandbox import Sandbox
from batchling_worker.stack import control
from tests.cli.command import batchling, clean_environment
from tests.deployment import CANARY, MODEL, SLOW_MODEL, Deployment
from tests.forks import Forks
from tests.waiting import wait_until

from .json_page import ABSENT, Section, fields, fits, sections

CHAT = "/v1/chat/completions"


def line(name: str) -> dict[str, Any]:
    body = {"model": MODEL, "messages": [{"role": "user", "content": name}]}
    return {"custom_id": name, "method": "POST", "url": CHAT, "body": body}


@pytest.fixture
async def deployment() -> AsyncIterator[Deployment]:
    with (
        Forks() as forks,
        Sandbox(speeds={MODEL: 0.3, SLOW_MODEL: 3600.0}) as sandbox,
        tempfile.TemporaryDirectory(prefix="bl-") as home,
    ):
        async with Deployment(home=Path(home), sandbox=sandbox, forks=forks) as running:
            running.env["GROQ_API_KEY"] = CANARY
            yield running


async def printed(env: Mapping[str, str], *words: str) -> Any:
    """Run a command with --json in this process and return what it prints; it exits with 1 if nothing was to do."""
    ended = await asyncio.to_thread(CliRunner().invoke, main, [*words, "--json"], env=dict(env))
    assert ended.exit_code in (0, 1), ended.output
    return json.loads(ended.stdout)


async def printed_by_process(env: Mapping[str, str], *words: str) -> Any:
    ended = await batchling(*words, "--json", env=env)
    assert ended.code in (0, 1), ended.err
    return json.loads(ended.out)


def compare(command: str, section: Section, value: object, types: Mapping[str, str]) -> None:
    known = {**types, **section.types}
    found = list(fields(value, known))

    assert {path for path, _ in found} - known.keys() == set(), command
    required = {path for path, kind in known.items() if not kind.endswith(ABSENT)}
    of_nothing = tuple(f"{path}[]." for path, inner in found if inner == [])
    missing = required - {path for path, _ in found}
    assert {path for path in missing if not path.startswith(of_nothing)} == set(), command
    for path, inner in found:
        assert fits(inner, known[path]), f"{command}: {path} is {inner!r}, not {known[path]}"


async def all_printed(deployment: Deployment, folder: Path) -> dict[str, Any]:
    """Run every command once; the keys are the headings of the page."""
    source, out = folder / "requests.jsonl", folder / "answers.jsonl"
    source.write_text(
        "".join(f"{json.dumps(line(name))}\n" for name in ("first", "second")), encoding="utf-8"
    )
    submit = ("submit", str(source), "--provider", "groq", "--name", "nightly")
    env, seen = deployment.env, {}

    seen["submit FILE.jsonl --dry-run"] = await printed(env, *submit, "--dry-run")
    seen["submit FILE.jsonl"] = await printed(env, *submit)
    refused = await deployment.ask(1, model=SLOW_MODEL, headers={"authorization": "Bearer invalid-key"})
    await deployment.ask(2, model=SLOW_MODEL)
    deployment.fork()
    seen["results RUN -o OUT.jsonl"] = await printed(env, "results", "nightly", "-o", str(out), "--wait")
    seen["OUT.jsonl"] = [json.loads(text) for text in out.read_text(encoding="utf-8").splitlines()]
    await deployment.answered(refused)

    async def running() -> list[str]:
        batches = await deployment.batches()
        slow = [one for one in batches if one.spec.model == SLOW_MODEL]
        return [one.batch_id for one in slow if one.state is BatchState.SUBMITTED]

    async def one_runs() -> bool:
        return bool(await running())

    await wait_until(one_runs, description="a batch is submitted", within_s=60)
    [batch_id] = await running()
    await deployment.ask(3, linger_ms=60_000)
    for command in ("batches", "runs", "lanes"):
        seen[command] = await printed(env, command)
    seen["show BATCH"] = await printed(env, "show", batch_id)
    seen["show RUN"] = await printed(env, "show", "nightly")
    seen["failures ID"] = await printed(env, "failures", "nightly")
    seen["pause NAME"] = await printed(env, "pause", "groq", "--reason", "budget")
    seen["resume NAME"] = await printed(env, "resume", "groq")
    seen["retry ID"] = await printed(env, "retry", batch_id)
    seen["cancel BATCH"] = await printed(env, "cancel", batch_id)
    seen["cancel RUN"] = await printed(env, "cancel", seen["runs"][0]["run_id"])
    seen["keys whose"] = await printed(env, "keys", "whose")
    await deployment.settled()
    seen["forget NAME"] = await printed(env, "forget", "nightly", "--dry-run")
    seen["keys rotate"] = await printed(env, "keys", "rotate")
    seen["keys retire"] = await printed(env, "keys", "retire", "--reseal")
    return seen


async def test_the_page_has_every_field_that_a_command_prints(deployment: Deployment, tmp_path: Path) -> None:
    page = sections()

    seen = await all_printed(deployment, tmp_path)

    assert CANARY not in json.dumps(seen)
    assert seen.keys() == page.keys() - {"up", "status", "doctor"}
    for command, value in seen.items():
        shown_too = page["batches"].types if command == "show BATCH" else {}
        compare(command, page[command], value, shown_too)
    in_run = seen["show RUN"]["batches"]
    assert in_run[0].keys() == page["batches"].required


async def test_the_page_has_every_field_of_the_doctor(deployment: Deployment) -> None:
    compare("doctor", sections()["doctor"], await printed_by_process(deployment.env, "doctor"), {})


async def test_the_page_has_every_field_of_the_stack(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="bl-") as home:
        env = {**clean_environment(), "BATCHLING_HOME": home}
        try:
            up = await printed_by_process(env, "up")
            status = await printed_by_process(env, "status")
        finally:
            await asyncio.to_thread(control.down, Path(home))

    page = sections()
    compare("up", page["up"], up, {})
    compare("status", page["status"], status, page["up"].types)


async def test_the_page_has_every_field_of_the_status(deployment: Deployment) -> None:
    """A deployment that is not embedded, with requests and no worker."""
    await deployment.ask(2)

    status = await printed(deployment.env, "status")

    page = sections()
    compare("status", page["status"], status, page["up"].types)
    assert status["running"][0].keys() == {
        path.removeprefix("running[].") for path in page["status"].types if path.startswith("running[].")
    }
