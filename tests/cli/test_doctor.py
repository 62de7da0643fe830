"""The doctor finds what is wrong with a deployment and says of each finding how to mend it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from batchling_client.operate import doctor
from batchling_client.settings import ClientSettings
from batchling_client.wire import sealing
from batchling_client.wire.deployment import seal_key_files
from batchling_client.wire.records.row_and_result import WorkerPresence
from tests.deployment import Deployment
from tests.waiting import wait_until

from .command import batchling, clean_environment, contents


async def examine(env: dict[str, str], *words: str) -> tuple[int, dict[str, Any]]:
    seen = await batchling("doctor", "--json", *words, env=env)
    report = json.loads(seen.out)
    assert report["ok"] is (seen.code == 0)
    assert all(found["mend"] for found in report["findings"] if found["status"] != "ok")
    return seen.code, {found["check"]: found for found in report["findings"]}


async def test_a_sound_deployment_is_found_sound(deployment: Deployment) -> None:
    deployment.worker()

    async def worker_lives() -> bool:
        return bool(await deployment.redis.execute_command("ZCARD", deployment.keys.workers))

    await wait_until(worker_lives, description="the worker says that it lives", within_s=30)
    code, found = await examine(deployment.env)

    assert code == 0, found
    assert found["httpx"]["status"] == found["httpx2"]["status"] == "ok"
    assert "groq" in found["httpx"]["says"]
    assert found["aiohttp"]["status"] == found["requests"]["status"] == "ok"


async def test_wrong_policies_and_a_missing_worker_are_found(deployment: Deployment) -> None:
    await deployment.redis.execute_command("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    await deployment.redis.execute_command("CONFIG", "SET", "appendonly", "no")

    code, found = await examine(deployment.env)
    text = await batchling("doctor", env=deployment.env)

    assert code == 1
    assert {check for check, finding in found.items() if finding["status"] == "failure"} == {
        "eviction",
        "durability",
        "workers",
    }
    assert "allkeys-lru" in found["eviction"]["says"]
    assert "celery -A batchling_worker worker" in found["workers"]["mend"]
    assert text.code == 1
    assert "maxmemory-policy noeviction" in text.out


async def test_workers_with_another_seal_key_are_found(deployment: Deployment) -> None:
    public, _ = sealing.new_pair()
    stranger = WorkerPresence(
        name="w@elsewhere", pid=1, version="1", pool="threads", seal_public_key=sealing.digest(public)
    )
    await deployment.redis.execute_command("ZADD", deployment.keys.workers, 1, stranger.name)
    await deployment.redis.execute_command("SET", deployment.keys.worker(stranger.name), stranger.encode())
    seal_key_files.stored_pair(deployment.home)

    _, found = await examine(deployment.env)
    _, trusted = await examine({**deployment.env, "BATCHLING_SEAL_PUBLIC_KEY": public})

    assert found["workers"]["status"] == "ok"
    assert found["keys"]["status"] == "failure"
    assert "batchling keys new" in found["keys"]["mend"]
    assert trusted["keys"]["status"] == "ok"


async def test_a_worker_whose_clock_is_off_is_found(deployment: Deployment) -> None:
    now_s = (await deployment.redis.execute_command("TIME"))[0]
    for name, ahead_s in (("w@ahead", 60.0), ("w@right", 0.0)):
        beat = WorkerPresence(
            name=name, pid=1, version="1", pool="threads", seal_public_key="k", said_at=now_s + ahead_s
        )
        await deployment.redis.execute_command("ZADD", deployment.keys.workers, now_s * 1000, name)
        await deployment.redis.execute_command("SET", deployment.keys.worker(name), beat.encode())

    _, found = await examine(deployment.env)

    assert found["clock"]["status"] == "failure"
    assert "the clock of w@ahead is 60.0 s ahead" in found["clock"]["says"]


async def test_no_redis_is_a_finding_and_not_a_crash(short_home: Path) -> None:
    env = {**clean_environment(), "BATCHLING_HOME": str(short_home)}

    code, down = await examine(env)
    _, away = await examine(env, "--redis-url", "redis://127.0.0.1:1/0")
    _, wrong = await examine({**env, "BATCHLING_REDIS_URL": "http://h"})

    assert code == 1
    assert "batchling up" in down["redis"]["mend"]
    assert "127.0.0.1:1" in away["redis"]["says"]
    assert wrong["settings"]["status"] == "failure"
    assert contents(short_home) == []


def test_seal_keys_are_read_and_never_made(tmp_path: Path) -> None:
    used = ClientSettings(home=tmp_path)

    assert doctor.of_keys(used, []).sound
    assert not list(tmp_path.iterdir())

    seal_key_files.stored_pair(tmp_path)
    private = tmp_path / "keys" / seal_key_files.PRIVATE_FILE
    assert doctor.of_keys(used, []).sound

    private.chmod(0o644)
    assert "chmod 600" in doctor.of_keys(used, []).says
    private.chmod(0o600)

    private.write_text("not a key", encoding="ascii")
    assert not doctor.of_keys(used, []).sound


async def test_a_variable_that_nobody_reads_is_named(short_home: Path) -> None:
    env = {
        **clean_environment(),
        "BATCHLING_HOME": str(short_home),
        "BATCHLING_REDISURL": "redis://:CANARY@h",
    }

    code, found = await examine(env)

    assert code == 1
    assert found["settings"]["says"] == "nothing reads BATCHLING_REDISURL"
    assert found["settings"]["mend"] == "Did you mean BATCHLING_REDIS_URL?"
    assert "CANARY" not in json.dumps(found)


async def test_work_that_waits_for_a_person_is_found_with_the_commands_for_it(deployment: Deployment) -> None:
    await deployment.ask(2, linger_ms=60_000)
    [stuck] = await deployment.batches()
    key = deployment.keys.batch(stuck.batch_id)
    _, before = await examine(deployment.env)

    await deployment.redis.execute_command(
        "HSET", key, "quarantined_at", 1, "error", "three workers died on it"
    )
    code, found = await examine(deployment.env)

    assert before["work"]["status"] == "ok"
    assert before["work"]["says"].startswith(
        "nothing needs you; 1 batch unfinished; the oldest request waits for "
    )
    assert before["forecast"]["says"].startswith("the answers to 2 waiting requests may take ")
    assert (code, found["work"]["status"]) == (1, "failure")
    assert "quarantined, 2 requests in 1 batch" in found["work"]["says"]
    assert f"`batchling retry {stuck.batch_id}`" in found["work"]["mend"]
    assert found["schedule"]["status"] == "ok"
