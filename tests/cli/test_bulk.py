"""`batchling submit` and `results`: files in, files out, in order, paid for once, whatever is killed in between."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from batchling_client import BatchlingError
from batchling_client.bulk import submission
from batchling_client.bulk.submission import Wish, WrongFile
from batchling_client.settings import ClientSettings
from batchling_worker.sandbox import Sandbox
from batchling_worker.sandbox.world.faults import RefusePoll
from tests.deployment import CANARY, MODEL, Deployment

from .command import batchling, clean_environment, contents, ended, start

OTHER_MODEL = "llama-3.3-70b-versatile"
CHAT = "/v1/chat/completions"
AWAY = "redis://127.0.0.1:1"
NOWHERE = ClientSettings(redis_url=AWAY)
KEY = {"GROQ_API_KEY": CANARY}


def body(prompt: str, model: str = MODEL) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": prompt}]}


def line(custom_id: str, prompt: str, model: str = MODEL, **change: Any) -> dict[str, Any]:
    return {"custom_id": custom_id, "method": "POST", "url": CHAT, "body": body(prompt, model), **change}


def written(path: Path, lines: Sequence[object]) -> Path:
    path.write_text("".join(f"{one if isinstance(one, str) else json.dumps(one)}\n" for one in lines))
    return path


def wish(path: Path) -> Wish:
    return Wish(path=path, provider="groq", endpoint=None, name="", completion_window="24h")


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(text) for text in path.read_text().splitlines()]


@pytest.fixture
def env(deployment: Deployment) -> dict[str, str]:
    return {**deployment.env, **KEY}


async def test_answers_come_in_the_order_of_the_file_under_its_own_ids(
    deployment: Deployment, env: dict[str, str], tmp_path: Path
) -> None:
    """Two models, equal prompts, a row that fails, and more lines than are remembered together."""
    lines = [line(f"id {n}", f"question {n % 400}", (MODEL, OTHER_MODEL)[n % 2]) for n in range(500)]
    lines[7]["body"] = body("fault:400")
    source, target = written(tmp_path / "in.jsonl", lines), tmp_path / "out.jsonl"

    submitted = await batchling("submit", str(source), "--provider", "groq", "--name", "bulk", env=env)
    early = await batchling("results", submitted.out.strip(), env=env)
    deployment.worker()
    done = await batchling("results", submitted.out.strip(), "-o", str(target), "--wait", "--json", env=env)
    by_name = await batchling("results", "bulk", env=env)

    assert submitted.code == 0, submitted.err
    assert "500 requests" in submitted.sentence
    assert early.code == 1
    assert {json.loads(text)["error"]["code"] for text in early.out.splitlines()} == {"batch_pending"}
    assert early.sentence == "batchling: 0 of 500 requests succeeded, 500 still wait."
    assert f"`batchling results {submitted.out.strip()} -o OUT.jsonl --wait`" in submitted.sentence
    assert (by_name.code, by_name.out) == (1, target.read_text())
    counted, reason = by_name.err.splitlines()
    assert counted == "batchling: 499 of 500 requests succeeded, 1 failed."
    assert reason.startswith("batchling: 1 failed: 400 ")
    assert done.code == 1, done.err
    tally = json.loads(done.out)
    assert (tally["n_requests"], tally["n_succeeded"], tally["n_failed"]) == (500, 499, 1)
    answers = read(target)
    assert [answer["custom_id"] for answer in answers] == [f"id {n}" for n in range(500)]
    assert answers[7]["response"]["status_code"] == 400
    assert answers[7]["response"]["body"]["error"]
    for n, answer in enumerate(answers):
        assert answer["error"] is None
        if n != 7:
            assert answer["response"]["status_code"] == 200
            assert answer["response"]["body"]["model"] == (MODEL, OTHER_MODEL)[n % 2]
    assert set(deployment.billed().values()) == {1}
    assert len(deployment.billed()) == 500
    assert {batch.spec.model for batch in await deployment.batches()} == {MODEL, OTHER_MODEL}
    assert CANARY.encode() not in b"".join(
        path.read_bytes() for path in (deployment.home / "redis").rglob("*") if path.is_file()
    )
    assert target.stat().st_mode & 0o777 == source.stat().st_mode & 0o777


KILLED_IN_THE_MIDDLE = """
import os, signal
from batchling_client.wire.scripts import Scripts
remember = Scripts.remember

async def die(self, *, number, **how):
    if number == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return await remember(self, number=number, **how)

Scripts.remember = die
"""


async def test_a_submission_killed_in_the_middle_is_done_again_and_pays_nothing_twice(
    deployment: Deployment, env: dict[str, str], tmp_path: Path
) -> None:
    source = written(tmp_path / "in.jsonl", [body(f"question {n % 300}") for n in range(700)])
    words = ("submit", str(source), "--provider", "groq", "--endpoint", CHAT)
    deployment.worker()

    killed = await start(*words, env=env, prelude=KILLED_IN_THE_MIDDLE)
    assert (await ended(killed)).code == -signal.SIGKILL
    torn = await deployment.redis.execute_command("ZRANGE", deployment.keys.runs, 0, -1)
    again = await batchling(*words, env=env)
    done = await batchling("results", again.out.strip(), "--wait", env=env)
    rest = await batchling("results", torn[0].decode(), "--wait", env=env)

    assert done.code == 0, done.err
    assert [json.loads(text)["custom_id"] for text in done.out.splitlines()] == [
        str(n) for n in range(1, 701)
    ]
    assert set(deployment.billed().values()) == {1}
    assert len(deployment.billed()) == 700
    assert rest.code == 1
    assert len(rest.out.splitlines()) == 256
    assert "444 were not queued" in rest.sentence


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        (["{"], "line 2: it is not a JSON object"),
        ([body("bare")], "line 2: it has no `url` and `body`; give --endpoint"),
        ([line("a", "x", method="GET")], "line 2: its `method` is not POST"),
        ([line("", "x")], "line 2: its `custom_id`"),
        ([line("first", "x")], "line 2: an earlier line has the same `custom_id`"),
        ([line("a", "x", url="/v1/other")], "line 2: groq takes no batches of /v1/other, but /v1/"),
        ([line("a", "x", body={"messages": []})], "line 2: The request names no model"),
        ([line("a", "x", body={**body("x"), "stream": True})], "line 2: it asks for a streamed answer"),
        ([line("a", "x", body=[1])], "line 2: its body is not a JSON object"),
        (
            ["", *["{"] * 12, line("", "x")],
            "line 3: it is not a JSON object (so in 12 lines); line 15: its `",
        ),
        (
            [line(f"a{n}", "x", method="N" * n) for n in range(2)] + [[n] for n in range(12)],
            "line 4: it is not a JSON object (so in 12 lines).",
        ),
    ],
)
async def test_a_bad_line_is_named_by_its_number_and_nothing_is_queued(
    wrong: list[object], why: str, tmp_path: Path
) -> None:
    """Before Redis is even looked for."""
    source = written(tmp_path / "in.jsonl", [line("first", "good"), *wrong, line("last", "good")])

    with pytest.raises(WrongFile) as caught:
        await submission.submit(wish(source), NOWHERE, KEY)

    assert str(caught.value).startswith(f"Nothing of {source} was queued")
    assert why in str(caught.value)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"provider": "nobody"}, "There is no provider 'nobody': use one of anthropic"),
        ({"endpoint": "/v1/other"}, CHAT),
        ({"completion_window": "1y"}, "24h"),
        ({"path": Path("none.jsonl")}, "none.jsonl cannot be read: No such file"),
        ({"path": Path("/dev/null")}, "/dev/null holds no request"),
    ],
)
async def test_each_mistake_is_one_sentence(change: dict[str, Any], why: str, tmp_path: Path) -> None:
    good = wish(written(tmp_path / "in.jsonl", [line("a", "good")]))

    with pytest.raises(BatchlingError) as caught:
        await submission.submit(dataclasses.replace(good, **change), NOWHERE, KEY)

    assert why in str(caught.value)
    assert CANARY not in str(caught.value)


async def test_exit_codes_distinguish_a_missing_key_from_an_unreachable_redis(tmp_path: Path) -> None:
    source = written(tmp_path / "in.jsonl", [line("a", "good")])
    env = {**clean_environment(), "BATCHLING_REDIS_URL": AWAY}

    without = await batchling("submit", str(source), "--provider", "groq", env=env)
    away = await batchling("submit", str(source), "--provider", "groq", env={**env, **KEY})

    assert (without.code, "set GROQ_API_KEY" in without.sentence) == (2, True)
    assert (away.code, "127.0.0.1:1 cannot be reached" in away.sentence) == (3, True)


async def test_results_of_no_such_run_are_one_sentence(deployment: Deployment, env: dict[str, str]) -> None:
    done = await batchling("results", "r-none", env=env)
    assert (done.code, "no run 'r-none'" in done.sentence) == (2, True)
    away = await batchling("results", "r-none", "--redis-url", AWAY, env=env)
    assert away.code == 3


async def test_of_two_runs_of_a_name_each_command_takes_the_newest_and_says_so(
    deployment: Deployment, env: dict[str, str], tmp_path: Path
) -> None:
    run_ids = []
    for name in ("older", "newer"):
        source = written(tmp_path / f"{name}.jsonl", [line(name, "good")])
        done = await batchling("submit", str(source), "--provider", "groq", "--name", "bulk", env=env)
        run_ids.append(done.out.strip())
    newest = await batchling("results", "bulk", env=env)
    assert [json.loads(one)["custom_id"] for one in newest.out.splitlines()] == ["newer"]
    for command in ("show", "cancel"):
        done = await batchling(command, "bulk", env=env)
        assert run_ids[1] in done.out or f"{run_ids[1]} has ended already" in done.err
        assert f"{run_ids[1]} is the newest and is used" in done.err
        assert f"To choose another, give its id: {run_ids[0]}." in done.err


async def test_waiting_for_results_prints_the_reason_and_leaves_no_half_file(
    deployment: Deployment, sandbox: Sandbox, env: dict[str, str], tmp_path: Path
) -> None:
    sandbox.faults.add(RefusePoll(status=401, times=None))
    source = written(tmp_path / "in.jsonl", [line("a", "good")])
    deployment.worker()
    submitted = await batchling("submit", str(source), "--provider", "groq", env=env)
    waiting = await start(
        *("results", submitted.out.strip(), "-o", str(tmp_path / "out.jsonl"), "--wait"), env=env
    )
    assert waiting.stderr is not None
    told = await waiting.stderr.readline()
    if b"No worker is alive" in told:
        told = await waiting.stderr.readline()  # it takes its time on a busy machine
    waiting.send_signal(signal.SIGINT)
    done = await ended(waiting)

    assert b"groq answered 401" in told
    assert done.code == 130
    assert contents(tmp_path) == ["in.jsonl"]


async def test_waiting_for_results_warns_once_that_no_worker_is_alive(
    deployment: Deployment, env: dict[str, str], tmp_path: Path
) -> None:
    source = written(tmp_path / "in.jsonl", [line("a", "good")])
    submitted = await batchling("submit", str(source), "--provider", "groq", env=env)
    waiting = await start("results", submitted.out.strip(), "--wait", env=env)
    assert waiting.stderr is not None
    told = await asyncio.wait_for(waiting.stderr.readline(), 30)
    deployment.worker()
    done = await ended(waiting)

    assert b"No worker is alive" in told
    assert done.code == 0
    assert "No worker is alive" not in done.err


@pytest.fixture
async def submitted(env: dict[str, str], tmp_path: Path) -> str:
    """A run whose results are more than a buffer holds."""
    source = written(tmp_path / "in.jsonl", [line(f"{n} " + 400 * "x", f"question {n}") for n in range(400)])
    done = await batchling("submit", str(source), "--provider", "groq", env=env)
    assert done.code == 0, done.err
    return done.out.strip()


UNREAD = """
import os
unread, output = os.pipe()
os.dup2(output, 1)
os.close(unread)
"""

FULL_DISK = """
import os, tempfile
made = tempfile.mkstemp

def on_a_full_disk(**where):
    handle, name = made(**where)
    os.dup2(os.open("/dev/full", os.O_WRONLY), handle)
    return handle, name

tempfile.mkstemp = on_a_full_disk
"""


async def test_an_unwritable_output_is_not_reported_as_an_unreachable_redis(
    submitted: str, env: dict[str, str], tmp_path: Path
) -> None:
    before = contents(tmp_path)

    for target, prelude, why in (
        (str(tmp_path), "", "Is a directory"),
        ("", "", "Is a directory"),
        (str(tmp_path / "none" / "out.jsonl"), "", "No such file or directory"),
        (str(tmp_path / "out.jsonl"), FULL_DISK, "No space left on device"),
    ):
        done = await batchling("results", submitted, "-o", target, env=env, prelude=prelude)
        assert (done.code, done.out) == (2, ""), done.err
        assert done.sentence == f"batchling: {target or '.'} cannot be written: {why}."
    assert contents(tmp_path) == before


async def test_devices_pipes_and_links_stay_what_they_are(
    submitted: str, env: dict[str, str], tmp_path: Path
) -> None:
    target, link, dangling = tmp_path / "answers.jsonl", tmp_path / "link", tmp_path / "dangling"
    device, full, pipe = tmp_path / "device", tmp_path / "full", tmp_path / "pipe"
    target.write_text("of yesterday")
    link.symlink_to(target.name)
    dangling.symlink_to("absent.jsonl")
    device.symlink_to("/dev/null")
    full.symlink_to("/dev/full")
    os.mkfifo(pipe)

    for output in (link, dangling, device):
        done = await batchling("results", submitted, "-o", str(output), env=env)
        assert (done.code, output.is_symlink()) == (1, True), done.err
    filling = await batchling("results", submitted, "-o", str(full), env=env)
    writing = await start("results", submitted, "-o", str(pipe), env=env)
    piped = await asyncio.to_thread(pipe.read_text)
    out = await batchling("results", submitted, "-o", "/dev/stdout", env=env)

    assert (await ended(writing)).code == 1
    assert pipe.is_fifo()
    assert device.is_char_device()
    assert filling.sentence == f"batchling: {full} cannot be written: No space left on device."
    texts = [target.read_text(), (tmp_path / "absent.jsonl").read_text(), piped, out.out]
    assert [len(text.splitlines()) for text in texts] == [400] * 4


@pytest.mark.parametrize("words", [["results"], ["show"]])
async def test_a_full_stdout_is_one_sentence(submitted: str, env: dict[str, str], words: list[str]) -> None:
    onto_a_full_disk = "import os; os.dup2(os.open('/dev/full', os.O_WRONLY), 1)\n"

    done = await batchling(*words, submitted, env=env, prelude=onto_a_full_disk)

    assert done.code == 2
    assert done.sentence == "batchling: The output cannot be written: No space left on device."


async def test_a_closed_pipe_ends_the_results_silently(submitted: str, env: dict[str, str]) -> None:
    done = await batchling("results", submitted, env=env, prelude=UNREAD)

    assert (done.code, done.err) == (1, "")


async def test_answers_are_read_with_the_seal_key_or_the_key_of_the_calls_and_with_nothing_else(
    submitted: str, deployment: Deployment, env: dict[str, str], tmp_path: Path
) -> None:
    """From another machine, which has neither the home nor its keys."""
    deployment.worker()
    here = await batchling("results", submitted, "--wait", env=env)
    private = (deployment.home / "keys" / "seal.key").read_text().strip()
    elsewhere = {name: value for name, value in env.items() if name not in KEY} | {
        "BATCHLING_HOME": str(tmp_path / "another-home"),
        "BATCHLING_REDIS_URL": deployment.url,
    }

    with_key = await batchling("results", submitted, env={**elsewhere, **KEY})
    with_seal_key = await batchling(
        "results", submitted, env={**elsewhere, "BATCHLING_SEAL_PRIVATE_KEY": private}
    )
    with_others = await batchling("results", submitted, env={**elsewhere, "GROQ_API_KEY": "gsk-another"})

    assert with_key.out == with_seal_key.out == here.out
    assert here.out
    codes = {json.loads(text)["error"]["code"] for text in with_others.out.splitlines()}
    assert codes == {"answer_encrypted"}
    assert "BATCHLING_SEAL_PRIVATE_KEY" in with_others.err
