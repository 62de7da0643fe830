"""What is left of a run when its program is gone: its answers, why requests failed, and who cancelled what."""

from __future__ import annotations

import json
from typing import Any

from batchling_client.wire.states import BatchState
from tests.deployment import SLOW_MODEL, Deployment
from tests.waiting import wait_until

from .command import batchling

PROMPTS = ("first", "fault:400", "third")


async def printed(deployment: Deployment, *words: str) -> Any:
    seen = await batchling(*words, "--json", env=deployment.env)
    assert seen.code in (0, 1), seen.err
    return json.loads(seen.out)


async def answered(deployment: Deployment) -> str:
    """Answer a run of three calls, of which the second fails; return its id."""
    deployment.worker()
    await deployment.answered(await deployment.ask(len(PROMPTS), prompts=PROMPTS))
    (run,) = await printed(deployment, "runs")
    return str(run["run_id"])


async def test_the_answers_of_a_program_that_is_gone_are_written_in_the_order_of_its_calls(
    deployment: Deployment,
) -> None:
    run_id = await answered(deployment)

    whole = await batchling("results", run_id, env=deployment.env)
    latest = await batchling("results", "--latest", "--failed", env=deployment.env)
    neither = await batchling("results", env=deployment.env)

    lines = [json.loads(text) for text in whole.out.splitlines()]
    assert [one["custom_id"] for one in lines] == ["1", "2", "3"]
    assert [one["response"]["status_code"] for one in lines] == [200, 400, 200]
    assert [json.loads(text)["custom_id"] for text in latest.out.splitlines()] == ["2"]
    assert f"The run that began last is {run_id}" in latest.err
    assert (whole.code, latest.code, neither.code) == (1, 1, 2)
    assert set(deployment.billed().values()) == {1}


async def test_failures_are_told_by_their_reasons_for_the_run_and_its_batch(deployment: Deployment) -> None:
    run_id = await answered(deployment)
    (run,) = await printed(deployment, "runs")
    (batch,) = await printed(deployment, "batches")

    assert (run["status"], run["n_succeeded"], run["n_failed"]) == ("done with failures", 2, 1)
    assert run["n_waiting"] == 0
    assert run["n_input"] > 0
    assert run["n_output"] > 0
    for name in (run_id, batch["batch_id"]):
        found = await printed(deployment, "failures", name)
        assert (found["n_failed"], [one["status"] for one in found["reasons"]]) == (1, [400])
        assert found["reasons"][0]["examples"] == [found["requests"][0]["request_id"]]
        assert "message" not in found["reasons"][0]
    text = await batchling("failures", run_id, "--rows", env=deployment.env)
    assert found["requests"][0]["request_id"] in text.out
    assert f"batchling failures {run_id}" in (await batchling("show", run_id, env=deployment.env)).out


async def test_retry_says_what_it_did_and_a_timeline_who_cancelled(deployment: Deployment) -> None:
    await deployment.ask(2, model=SLOW_MODEL)
    deployment.worker()

    async def runs() -> bool:
        return [one.state for one in await deployment.batches()] == [BatchState.SUBMITTED]

    await wait_until(runs, description="the batch runs")
    (batch,) = await deployment.batches()
    said: list[str] = []

    async def retried() -> bool:
        # While a worker looks at the batch there is nothing to retry.
        again = await batchling("retry", batch.batch_id, env=deployment.env)
        said[:] = [again.out]
        return again.code == 0

    await wait_until(retried, description="the batch is retried between two looks", within_s=60)
    assert said == [f"Batch {batch.batch_id} is due now: its provider is asked about it.\n"]
    env = {**deployment.env, "LOGNAME": "ada", "USER": "ada"}
    assert (await batchling("cancel", batch.batch_id, env=env)).code == 0

    shown = await printed(deployment, "show", batch.batch_id)
    (line,) = [one["what"] for one in shown["timeline"] if "cancellation requested" in one["what"]]
    assert line.startswith("cancellation requested by ada@")
    assert line.endswith("with `batchling cancel`")


async def test_status_tells_what_came_in_during_the_last_hour(deployment: Deployment) -> None:
    await answered(deployment)

    status = await batchling("status", env=deployment.env)

    assert "last hour: 3 answers, 1 of them failed" in status.out
