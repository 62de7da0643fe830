"""Each role does all its work as its Redis user, without a command that Redis refuses."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from batchling_client.operate.redis_roles import Role
from tests.cli.command import Finished, batchling, ended
from tests.deployment import CANARY, MODEL, SLOW_MODEL
from tests.pages.browser import Browser, running_flower
from tests.waiting import wait_until

from .ruled import Ruled, denials

CALLER: Final = """
import asyncio, sys, httpx
from batchling import batchify

URL = "https://api.groq.com/openai/v1/chat/completions"

async def ask(http, model, i):
    body = {"model": model, "messages": [{"role": "user", "content": f"question {i}"}]}
    return (await http.post(URL, json=body, headers={"authorization": "Bearer " + sys.argv[4]})).status_code

async def main(name, model, deadline):
    async with batchify(name=name, live_display=False, batch_window_seconds=0.2, deadline=deadline):
        async with httpx.AsyncClient() as http:
            print(*await asyncio.gather(*(ask(http, model, i) for i in range(3))))

asyncio.run(main(sys.argv[1], sys.argv[2], float(sys.argv[3])))
"""
LOOKS: Final = (
    ("batches",),
    ("runs",),
    ("lanes",),
    ("status",),
    ("show", "quick"),
    ("failures", "slow"),
    ("check",),
    ("pause",),
)
PAGES: Final = (
    "/",
    "/workers",
    "/broker",
    "/tasks",
    "/batchling",
    "/batches",
    "/lanes",
    "/runs",
)


async def called(env: Mapping[str, str], *words: str) -> Finished:
    """Run the program of a caller to its end."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", CALLER, *words, CANARY),
        env=dict(env),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    return await ended(process, within_s=90)


async def worker_starts(ruled: Ruled) -> None:
    """Start a worker, and wait until it has set the deployment up, which a client may not do."""
    ruled.worker(redis_url=ruled.at(Role.WORKER))

    async def is_set_up() -> bool:
        return bool(await ruled.redis.exists(ruled.keys.salt))

    await wait_until(is_set_up, description="the worker has made the salt", within_s=60)


async def nothing_was_refused(ruled: Ruled) -> None:
    found = await denials(ruled.redis)
    assert not found, (found, ruled.worker_logs()[-3000:])


async def test_callers_and_operators_do_their_work(ruled: Ruled, tmp_path: Path) -> None:
    await worker_starts(ruled)
    client = {**ruled.env, "BATCHLING_REDIS_URL": ruled.at(Role.CLIENT), "GROQ_API_KEY": CANARY}
    operator = {**ruled.env, "BATCHLING_REDIS_URL": ruled.at(Role.OPERATOR)}

    for name, model, deadline, answers in (
        ("quick", MODEL, "60", "200 200 200"),
        ("quick", MODEL, "60", "200 200 200"),
        ("slow", SLOW_MODEL, "3", "504 504 504"),
    ):
        done = await called(client, name, model, deadline)
        assert done.out.strip() == answers, done
    await nothing_was_refused(ruled)

    file = tmp_path / "in.jsonl"
    other = tmp_path / "other.jsonl"
    for path in (file, other):
        line = {"model": MODEL, "messages": [{"role": "user", "content": path.name}]}
        path.write_text(json.dumps(line) + "\n")
    filed = ("--provider", "groq", "--endpoint", "/v1/chat/completions", "--name", "file")
    bulk: list[tuple[str, ...]] = [
        ("submit", str(file), *filed),
        ("results", "file", "--wait", "-o", str(tmp_path / "file.jsonl")),
        ("results", "quick", "-o", str(tmp_path / "quick.jsonl")),
    ]
    for words in bulk:
        done = await batchling(*words, env=client)
        assert done.code == 0, done
    for env in (client, operator):
        for look in LOOKS:
            done = await batchling(*look, env=env)
            assert done.code == 0, (look, done)
    await nothing_was_refused(ruled)

    steers: list[tuple[tuple[str, ...], int]] = [
        (("pause", "groq"), 0),
        (("submit", str(other), *filed[:-1], "held"), 0),
        (("cancel", "held"), 0),
        (("resume", "--all"), 0),
        (("retry", "slow"), 0),
        (("cancel", "slow"), 0),
        # It has ended well: there is nothing to retry.
        (("retry", "file"), 1),
    ]
    for words, code in steers:
        env = client if words[0] == "submit" else operator
        done = await batchling(*words, env=env)
        assert done.code == code, (words, done)
    doctor = await batchling("doctor", "--json", env=operator)
    assert "not permitted" not in doctor.out
    await nothing_was_refused(ruled)


async def test_flower_shows_and_steers_as_a_dashboard_and_only_shows_as_a_viewer(
    ruled: Ruled, tmp_path: Path
) -> None:
    await worker_starts(ruled)
    client = {**ruled.env, "BATCHLING_REDIS_URL": ruled.at(Role.CLIENT)}
    assert (await called(client, "slow", SLOW_MODEL, "3")).out.strip() == "504 504 504"
    [batch] = await ruled.batches()

    for role, words in ((Role.DASHBOARD, ()), (Role.VIEWER, ("--read-only",))):
        with running_flower(ruled.at(role), "default", tmp_path, *words) as port:
            browser = Browser(port)
            for path in (*PAGES, f"/batch/{batch.batch_id}", f"/failures/{batch.batch_id}"):
                assert browser.get(path).status == 200, path
            await wait_until(
                lambda browser=browser: "w0@test" in browser.get("/workers").text,  # type: ignore[misc]
                description="Flower sees the worker",
            )
            page = browser.get(f"/batch/{batch.batch_id}/cancel")
            assert (page.status == 200) is (role is Role.DASHBOARD), page.text
            if role is Role.DASHBOARD:
                for path in ("/lanes/pause", "/lanes/resume"):
                    given = browser.get(f"/lanes/pause?lane={batch.lane_id}").fields
                    done = browser.post(path, {**given, "name": batch.lane_id})
                    assert done.status == 303, done.text
                for path in (f"/batch/{batch.batch_id}/retry", f"/batch/{batch.batch_id}/cancel"):
                    done = browser.post(path, browser.get(path).fields)
                    assert done.status < 400, done.text
        await nothing_was_refused(ruled)
    [batch] = await ruled.batches()
    assert batch.cancel_requested
