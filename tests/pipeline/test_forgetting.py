"""`batchling forget` erases: afterwards nothing of a prompt, an answer or a key is in Redis or in its files."""

from __future__ import annotations

import datetime as dt
import json

import pytest

from batchling_client.operate.erasing import Eraser, NothingToErase
from batchling_client.views.inspection import Inspection
from batchling_client.wire.keys import RequestId
from batchling_client.wire.states import BatchState

from ..cli.command import batchling
from ..deployment import CANARY, SLOW_MODEL, Deployment
from ..sealed import root_of

PROMPT = "canary-prompt-7c1d90"
OTHERS = {"authorization": "Bearer gsk-CANARY-of-somebody-else"}


def on_disk(deployment: Deployment) -> bytes:
    """Return everything that Redis has written to its files."""
    files = (deployment.home / "redis").rglob("*")
    return b"".join(path.read_bytes() for path in sorted(files) if path.is_file())


async def dataset(deployment: Deployment) -> bytes:
    """Return every value that Redis holds."""
    return b"".join(
        [(await deployment.redis.dump(key) or b"") + key async for key in deployment.redis.scan_iter()]
    )


async def stored(deployment: Deployment, ids: list[RequestId]) -> list[bytes]:
    """Return the bytes under which rows, answers and the credential of these requests are stored."""
    keys, found = deployment.keys, []
    for batch in await deployment.batches():
        found += await deployment.redis.execute_command("LRANGE", keys.rows(batch.batch_id), 0, -1)
    async for place in deployment.redis.scan_iter(match=keys.credential("*")):
        found.append(await deployment.redis.execute_command("GET", place))
    found += [one for one in await deployment.redis.mget(map(keys.result, ids)) if one]
    return [bytes(one) for one in found]


def eraser(deployment: Deployment) -> Eraser:
    return Eraser(Inspection(deployment.redis, deployment.keys), deployment.scripts)


@pytest.mark.long
async def test_after_forget_and_a_rewrite_no_file_of_redis_holds_prompt_answer_or_key(
    deployment: Deployment,
) -> None:
    ids = await deployment.ask(2, prompts=[PROMPT, "another"])
    canaries = await stored(deployment, ids)
    deployment.worker()
    await deployment.answered(ids)
    await deployment.settled()
    canaries += await stored(deployment, ids)
    [batch] = await deployment.batches()
    others = await deployment.ask(1, headers=OTHERS, prompts=["somebody else's"])
    await deployment.answered(others)
    [run] = [
        one for one in await Inspection(deployment.redis, deployment.keys).runs(9) if one.n_requests == 2
    ]
    assert all(one in on_disk(deployment) for one in canaries)

    dry = await batchling("forget", run.run_id, "--dry-run", "--json", env=deployment.env)
    assert (dry.code, json.loads(dry.out)[0]["erased"]) == (0, False)
    assert await deployment.results(ids) != [None, None]
    unasked = await batchling("forget", run.run_id, env=deployment.env)
    assert "--yes" in unasked.err
    assert await deployment.results(ids) != [None, None]
    done = await batchling("forget", run.run_id, "--yes", "--rewrite-aof", "--json", env=deployment.env)

    assert done.code == 0, done.err
    [said] = json.loads(done.out)
    assert (said["batches"], said["n_answers"], said["files_left"]) == ([batch.batch_id], 2, [])
    assert said["credentials"] == [batch.spec.fingerprint]
    assert "was rewritten" in done.err
    held, files = await dataset(deployment), on_disk(deployment)
    for canary in (
        *canaries,
        PROMPT.encode(),
        CANARY.encode(),
        *(one.encode() for one in ids),
        run.run_id.encode(),
    ):
        assert canary not in held
        assert canary not in files
    assert (await deployment.answered(others))[0].status == 200


@pytest.mark.long
async def test_a_key_is_forgotten_with_every_run_that_used_it_and_old_runs_with_their_age(
    deployment: Deployment,
) -> None:
    ids = await deployment.ask(2, prompts=[PROMPT, "another"])
    others = await deployment.ask(1, headers=OTHERS, prompts=["somebody else's"])
    deployment.worker()
    await deployment.answered([*ids, *others])
    await deployment.settled()
    fingerprint = (await root_of(deployment.redis, deployment.keys, OTHERS)).fingerprint

    done = await batchling("forget", fingerprint[:8], "--yes", "--json", env=deployment.env)

    assert json.loads(done.out)[0]["credentials"] == [fingerprint]
    assert await deployment.results(others) == [None]
    assert all(await deployment.results(ids))
    young = await batchling("forget", "--older-than", "1h", "--yes", env=deployment.env)
    assert "nothing to erase" in young.err
    old = await eraser(deployment).plan_older(dt.timedelta(0))
    assert (await eraser(deployment).erase(old)).n_answers == 2
    assert await deployment.results(ids) == [None, None]


async def test_what_is_under_way_is_not_erased(deployment: Deployment) -> None:
    await deployment.ask(1, model=SLOW_MODEL, linger_ms=60_000)
    [run] = await Inspection(deployment.redis, deployment.keys).runs(9)

    with pytest.raises(NothingToErase, match="under way"):
        await eraser(deployment).plan(run.run_id)
    old = await eraser(deployment).plan_older(dt.timedelta(0))

    assert (old.runs, old.skipped, old.batches, old.credentials) == ([], [run.run_id], [], [])


async def test_an_answer_that_a_younger_run_asked_for_outlives_the_older_run(deployment: Deployment) -> None:
    ids = await deployment.ask(2)
    [batch] = await deployment.batches()
    await deployment.redis.hset(deployment.keys.batch(batch.batch_id), "state", BatchState.SETTLED.value)
    await deployment.redis.zrem(deployment.keys.schedule, batch.batch_id)
    await deployment.redis.mset({deployment.keys.result(one): b"+answer" for one in ids})
    await deployment.redis.unlink(*map(deployment.keys.request, ids))
    [run] = await Inspection(deployment.redis, deployment.keys).runs(9)
    await deployment.redis.hset(deployment.keys.run(run.run_id), "started_at", 1_000)
    await deployment.ask(1, again=ids[:1])

    plan = await eraser(deployment).plan_older(dt.timedelta(hours=1))
    done = await eraser(deployment).erase(plan, files_s=0)

    assert (plan.runs, done.n_answers, plan.credentials) == ([run.run_id], 1, [])
    assert await deployment.redis.get(deployment.keys.result(ids[0])) == b"+answer"
    assert await deployment.redis.get(deployment.keys.result(ids[1])) is None
    asked = await eraser(deployment).plan(
        (await Inspection(deployment.redis, deployment.keys).runs(9))[0].run_id
    )
    assert asked is not None
    assert asked.n_answers == 1
