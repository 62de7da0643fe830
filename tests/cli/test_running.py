"""`batchling run` and its short form: the function runs under batchify, and the exit code says how it went."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from batchling_worker.sandbox import Sandbox
from batchling_worker.sandbox.world.faults import FailRows
from tests.deployment import SLOW_MODEL, Deployment
from tests.waiting import wait_until

from .command import batchling, clean_environment, contents, ended, start

QUICK = ("--batch-window-seconds", "0.1", "--batch-poll-interval-seconds", "0.1")


@pytest.mark.parametrize("spelling", [["run"], []])
async def test_both_spellings_answer_from_a_batch(
    deployment: Deployment, script: Path, spelling: list[str]
) -> None:
    deployment.worker()

    done = await batchling(
        *spelling, *QUICK, "--name", "by hand", f"{script}:answers", "3", env=deployment.env
    )

    assert done.code == 0, done.err
    assert done.out == "statuses 200 200 200\n"
    assert "3 of 3 requests answered (run 'by hand'" in done.err
    assert "settled" not in done.out
    ledger = deployment.sandbox.ledger()
    assert (ledger.totals.n_rows, ledger.totals.n_realtime) == (3, 0)


async def test_options_may_stand_before_the_short_form(deployment: Deployment, script: Path) -> None:
    done = await batchling(
        "--name", "x", f"{script}:words", "a", "--b-c", "d", "--", "--e=f", env=deployment.env
    )

    assert done.code == 0, done.err
    assert done.out == "('a',) [('b_c', 'd'), ('e', 'f')]\n"


async def test_the_users_own_error_has_its_traceback_and_exits_1(
    deployment: Deployment, script: Path
) -> None:
    done = await batchling("run", f"{script}:breaks", env=deployment.env)

    assert done.code == 1
    assert "ValueError: a mistake of the user" in done.err
    assert "batchling_client" not in done.err


async def test_requests_that_fail_exit_1(deployment: Deployment, sandbox: Sandbox, script: Path) -> None:
    sandbox.faults.add(FailRows(n=1, status=400))
    deployment.worker()

    done = await batchling("run", f"{script}:answers", "3", *QUICK, env=deployment.env)

    assert done.code == 1
    assert "statuses" in done.out
    assert "batchling: 1 of 3 requests failed." in done.err


async def test_a_dry_run_sends_nothing_and_needs_no_redis(script: Path, short_home: Path) -> None:
    env = {**clean_environment(), "BATCHLING_HOME": str(short_home)}

    done = await batchling("run", f"{script}:answers", "3", "--dry-run", env=env)

    assert done.code == 0, done.err
    assert "3 requests in 1 batch" in done.err


async def test_ctrl_c_says_how_many_go_on_and_exits_130(deployment: Deployment, script: Path) -> None:
    deployment.worker()
    running = await start("run", f"{script}:answers", "2", "--model", SLOW_MODEL, *QUICK, env=deployment.env)

    async def submitted() -> bool:
        return any(batch.provider_batch_id for batch in await deployment.batches())

    await wait_until(submitted, description="the batch is submitted", within_s=30)
    running.send_signal(signal.SIGINT)
    done = await ended(running)

    assert done.code == 130
    assert "2 requests of run" in done.err
    assert "keep running without this program" in done.err
    assert "Traceback" not in done.err


async def test_a_rehearsal_needs_no_account_and_leaves_nothing(script: Path, short_home: Path) -> None:
    env = {**clean_environment(), "BATCHLING_HOME": str(short_home)}

    done = await batchling("run", "--sandbox", f"{script}:answers", "3", env=env)

    assert done.code == 0, done.err
    assert done.out == "statuses 200 200 200\n"
    assert "a local sandbox makes up every answer" in done.err
    assert contents(short_home) == []


DIES_BESIDE_CALLS = """
import asyncio, threading, time
import openai

async def ask():
    prompt = {"role": "user", "content": "hi"}
    await openai.AsyncOpenAI().chat.completions.create(model="gpt-4o-mini", messages=[prompt])

threading.Thread(target=lambda: asyncio.run(ask()), daemon=True).start()
time.sleep(2)
raise SystemExit(3)
"""


async def test_a_program_that_dies_beside_its_calls_reports_no_outage(
    tmp_path: Path, short_home: Path
) -> None:
    (tmp_path / "dies.py").write_text(DIES_BESIDE_CALLS)
    env = {**clean_environment(), "BATCHLING_HOME": str(short_home)}

    done = await batchling("run", "--sandbox", str(tmp_path / "dies.py"), env=env, within_s=55)

    assert done.code == 3, done.err
    assert "0 of 1 requests answered" in done.err
    assert "Redis is away" not in done.err
    assert contents(short_home) == []


async def test_a_killed_rehearsal_is_cleared_away(script: Path, short_home: Path) -> None:
    env = {**clean_environment(), "BATCHLING_HOME": str(short_home)}
    running = await start("run", "--sandbox", f"{script}:answers", "1", "--model", SLOW_MODEL, env=env)

    await wait_until(
        lambda: any(short_home.glob("sandbox/*/run/redis.sock")), description="the stack is up", within_s=20
    )
    running.kill()
    await ended(running)

    await wait_until(lambda: contents(short_home) == [], description="the stage is cleared", within_s=40)


async def test_the_demo_answers_everything_once_and_leaves_nothing(short_home: Path) -> None:
    env = {**clean_environment(), "BATCHLING_HOME": str(short_home)}

    done = await batchling("demo", env=env, within_s=55)

    assert done.code == 0, done.err
    first, second = (
        done.out.index("8b-instant: all 150 answered"),
        done.out.index("gpt-oss-20b: all 150 answered"),
    )
    assert first < second
    assert "300 rows in 2 batches, none twice; 0 calls at full price" in done.out
    assert all(len(line) < 80 for line in done.out.splitlines())
    assert contents(short_home) == []


async def test_the_stack_commands_tell_programs_what_runs(short_home: Path) -> None:
    env = {**clean_environment(), "BATCHLING_HOME": str(short_home)}
    try:
        up = await batchling("up", env=env)
        seen = await batchling("status", "--json", env=env)
        listed = await batchling("batches", "--json", env=env)
    finally:
        down = await batchling("down", env=env)

    assert (up.code, seen.code, down.code) == (0, 0, 0), (up, seen, down)
    status = json.loads(seen.out)
    assert status["redis"]["url"].startswith("unix://")
    assert status["redis"]["pid"]
    assert status["workers"][0]["hostname"]
    assert status["flower"] is None
    assert status["home"] == str(short_home)
    assert json.loads(listed.out) == []


@pytest.mark.parametrize("code", [0, 2])
async def test_a_function_of_a_file_in_a_package_may_import_relatively(
    tmp_path: Path, short_home: Path, code: int
) -> None:
    package = tmp_path / "package_of_tests"
    (package / "inner").mkdir(parents=True)
    for folder in (package, package / "inner"):
        (folder / "__init__.py").touch()
    (package / "words.py").write_text("WORD = 'found'\n")
    file = package / "inner" / "work.py"
    file.write_text(
        f"from ..words import WORD{'' if code == 0 else ', NONE'}\ndef main(n): print(WORD, n, __package__)\n"
    )
    env = {**clean_environment(), "BATCHLING_HOME": str(short_home)}

    done = await batchling("run", "--dry-run", f"{file}:main", "3", env=env)

    assert done.code == code, done.err
    if code:
        assert (
            "package_of_tests.inner.work cannot be imported: ImportError in line 1, cannot import name"
            in done.err
        )
    else:
        assert done.out == "found 3 package_of_tests.inner\n"
