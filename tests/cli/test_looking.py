"""Look and steer: what the commands tell of a deployment, and what `cancel` does to it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from batchling_client.wire.states import BatchState
from batchling_worker.sandbox import Limits
from batchling_worker.sandbox.world.faults import StickBatch
from tests.deployment import MODEL, SLOW_MODEL, Deployment
from tests.waiting import wait_until

from .command import batchling

IN_EACH_BATCH = {
    "batch_id",
    "provider",
    "model",
    "endpoint",
    "state",
    "provider_batch_id",
    "n_requests",
    "n_succeeded",
    "n_failed",
    "created_at",
    "updated_at",
    "error",
}


async def look(deployment: Deployment, *words: str) -> Any:
    seen = await batchling(*words, "--json", env=deployment.env)
    assert seen.code == 0, seen.err
    return json.loads(seen.out)


async def test_unfinished_batches_are_listed_oldest_first_with_every_promised_field(
    deployment: Deployment,
) -> None:
    await deployment.ask(2)
    await deployment.ask(3, model=SLOW_MODEL)

    listed = await look(deployment, "batches")
    text = await batchling("batches", "--redis-url", deployment.url, env={})

    assert [(batch["model"], batch["n_requests"], batch["state"]) for batch in listed] == [
        (MODEL, 2, "open"),
        (SLOW_MODEL, 3, "open"),
    ]
    assert all(batch.keys() >= IN_EACH_BATCH for batch in listed)
    assert text.code == 0
    assert text.out.splitlines()[0].startswith("BATCH")
    assert f"groq/{MODEL}" in text.out.splitlines()[1]
    assert len(await look(deployment, "batches", "--limit", "1")) == 1


async def test_runs_and_lanes_are_listed_without_a_key(deployment: Deployment) -> None:
    await deployment.ask(2)

    (run,) = await look(deployment, "runs")
    (lane,) = await look(deployment, "lanes")

    assert (run["n_requests"], run["n_batches"], run["status"], run["n_waiting"]) == (2, 1, "running", 2)
    assert (lane["provider"], lane["model"], lane["n_waiting"]) == ("groq", MODEL, 2)
    assert "CANARY" not in json.dumps([run, lane])


@pytest.mark.parametrize("command", ["batches", "runs", "lanes"])
async def test_json_lines_are_the_objects_of_the_list_one_a_line(
    deployment: Deployment, command: str
) -> None:
    await deployment.ask(2)
    await deployment.ask(3, model=SLOW_MODEL)

    listed = await look(deployment, command)
    lines = await batchling(command, "--jsonl", env=deployment.env)

    names = [one.keys() for one in listed]
    assert [json.loads(line).keys() for line in lines.out.splitlines()] == names
    assert len(names) == 2


async def test_lanes_tell_what_holds_them(deployment: Deployment) -> None:
    deployment.sandbox.limits = Limits(max_enqueued_tokens=700)
    deployment.sandbox.faults.add(StickBatch(model=MODEL, state="in_progress", seconds=3600))
    refused = await deployment.ask(1, model=SLOW_MODEL, headers={"authorization": "Bearer invalid-key"})
    await deployment.ask(1, prompts=["x" * 2000])
    deployment.worker()
    await deployment.answered(refused)
    await deployment.room_is_taken()
    await deployment.ask(1, prompts=["x" * 2000])
    seen: list[dict[str, Any]] = []

    async def one_is_refused_and_waits() -> bool:
        # In this order: the lanes are seen after what makes the batch wait was learned.
        waits = any(
            "token quota" in batch["error"] for batch in await look(deployment, "batches") if batch["error"]
        )
        seen[:] = await look(deployment, "lanes")
        return waits and all(lane["quota"] for lane in seen)

    await wait_until(one_is_refused_and_waits, description="a batch waits for room", within_s=30)
    text = await batchling("lanes", env=deployment.env)
    told = {lane["model"]: lane for lane in seen}

    assert told[MODEL]["quota"]["limit_tokens"] == 700
    assert told[MODEL]["quota"]["n_batches_in_flight"] == 1
    assert 500 < told[MODEL]["quota"]["tokens_in_flight"] < 700
    assert "Limit: 700 enqueued tokens" in told[MODEL]["quota"]["why"]
    assert told[MODEL]["circuit"] is None
    assert told[SLOW_MODEL]["circuit"]["state"] == "parked"
    assert "401" in told[SLOW_MODEL]["circuit"]["why"]
    assert "parked" in text.out
    assert "/700" in text.out
    assert "invalid-key" not in json.dumps(seen) + text.out


async def test_show_tells_a_batch_from_a_run(deployment: Deployment) -> None:
    await deployment.ask(2)
    (listed,) = await look(deployment, "batches")
    (run,) = await look(deployment, "runs")

    batch = await look(deployment, "show", listed["batch_id"])
    shown = await look(deployment, "show", run["run_id"])
    text = await batchling("show", run["run_id"], env=deployment.env)

    assert batch["completion_window"] == "24h"
    assert batch.items() >= listed.items()
    assert [one["batch_id"] for one in shown["batches"]] == [listed["batch_id"]]
    assert listed["batch_id"] in text.out


async def test_an_unknown_id_is_one_sentence(deployment: Deployment) -> None:
    for command in ("show", "cancel"):
        seen = await batchling(command, "b-unknown", env=deployment.env)
        assert seen.code == 2
        assert "no batch and no run 'b-unknown'" in seen.sentence


async def test_a_cancelled_batch_answers_its_callers_and_bills_nothing(deployment: Deployment) -> None:
    ids = await deployment.ask(3, linger_ms=60_000)
    (listed,) = await look(deployment, "batches")

    asked = await look(deployment, "cancel", listed["batch_id"])
    deployment.worker()
    answers = await deployment.answered(ids)
    (batch,) = await deployment.settled()

    assert asked == {"cancelled": [listed["batch_id"]], "too_late": []}
    assert batch.state is BatchState.CANCELLED
    assert all(b"batch_cancelled" in answer.body for answer in answers)
    assert deployment.billed() == {}

    again = await batchling("cancel", listed["batch_id"], env=deployment.env)
    assert again.code == 1
    assert "has ended already" in again.sentence


async def test_cancelling_a_run_answers_its_callers_and_says_what_became_of_it(
    deployment: Deployment,
) -> None:
    ids = await deployment.ask(3, rows=2, linger_ms=60_000)
    others = await deployment.ask(1, linger_ms=60_000)
    (_, run) = await look(deployment, "runs")

    asked = await look(deployment, "cancel", run["run_id"])
    again = await batchling("cancel", run["run_id"], env=deployment.env)

    assert (asked["n_dropped"], asked["n_shared"], len(asked["cancelled"])) == (3, 0, 1)
    assert {answer.status for answer in await deployment.answered(ids)} == {499}
    assert await deployment.results(others) == [None]
    assert {batch.state for batch in await deployment.batches()} == {BatchState.ENDED, BatchState.OPEN}
    assert again.code == 1
    assert "has ended already" in again.sentence


async def test_a_cancelled_run_leaves_at_the_provider_what_it_was_asked_to(deployment: Deployment) -> None:
    ids = await deployment.ask(2, model=SLOW_MODEL)
    deployment.worker()

    async def submitted() -> bool:
        return [batch.state for batch in await deployment.batches()] == [BatchState.SUBMITTED]

    await wait_until(submitted, description="submitted", within_s=30)
    (run,) = await look(deployment, "runs")

    kept = await batchling("cancel", run["run_id"], "--keep-submitted", env=deployment.env)
    [before] = await deployment.batches()
    told = await batchling("cancel", run["run_id"], env=deployment.env)
    wrong = await batchling("cancel", before.batch_id, "--keep-submitted", env=deployment.env)

    assert (kept.code, kept.out) == (1, f"Batch {before.batch_id} keeps running; its answers will be kept.\n")
    assert not before.cancel_requested
    assert (told.code, told.out) == (
        0,
        f"Batch {before.batch_id} is being cancelled at its provider: 2 requests.\n",
    )
    assert {answer.status for answer in await deployment.answered(ids)} == {499}
    assert (wrong.code, "is for runs" in wrong.sentence) == (2, True)


async def test_a_run_is_followed_into_the_batches_its_requests_moved_to(deployment: Deployment) -> None:
    await deployment.ask(1)
    (first,) = await look(deployment, "batches")
    (run,) = await look(deployment, "runs")
    await deployment.ask(1, model=SLOW_MODEL)
    (_, second) = await look(deployment, "batches")
    await deployment.redis.execute_command(
        "HSET", deployment.keys.batch(first["batch_id"]), "moved_to", second["batch_id"]
    )

    shown = await look(deployment, "show", run["run_id"])

    assert [one["batch_id"] for one in shown["batches"]] == [first["batch_id"], second["batch_id"]]


async def test_status_exits_1_while_requests_wait_without_a_worker_and_0_once_they_are_answered(
    deployment: Deployment,
) -> None:
    ids = await deployment.ask(2)

    waiting = await batchling("status", env=deployment.env)
    deployment.worker()
    await deployment.answered(ids)
    await deployment.settled()
    done = await batchling("status", env=deployment.env)
    as_json = await look(deployment, "status")

    assert waiting.code == 1
    assert "No worker is alive" in waiting.out
    assert "2 requests wait" in waiting.out
    assert (done.code, "no request waits" in done.out) == (0, True)
    assert as_json["redis"]["url"] in deployment.url
    assert [worker.keys() for worker in as_json["workers"]] == [{"pid", "hostname"}]
    assert (as_json["n_over"], as_json["needs_you"]) == (1, [])


async def test_status_of_a_redis_that_is_away_exits_3(tmp_path: Path) -> None:
    seen = await batchling("status", env={"BATCHLING_REDIS_URL": f"unix://{tmp_path}/nobody"})

    assert (seen.code, seen.out) == (3, "")
    assert "cannot be reached" in seen.sentence


async def test_batches_are_filtered_by_state_status_and_what_they_are_of(deployment: Deployment) -> None:
    ids = await deployment.ask(2)
    deployment.worker()
    await deployment.answered(ids)
    await deployment.settled()
    await deployment.ask(1, model=SLOW_MODEL, linger_ms=60_000)

    async def models(*words: str) -> list[str]:
        return [one["model"] for one in await look(deployment, "batches", *words)]

    assert await models() == [SLOW_MODEL, MODEL]
    assert await models("--state", "settled") == await models("--state", "done") == [MODEL]
    assert await models("--state", "collecting", "--state", "settled") == []
    assert await models("--model", SLOW_MODEL, "--provider", "groq") == [SLOW_MODEL]
    assert await models("--failed") == await models("--stuck") == []
    assert await models("--since", "1d") == [SLOW_MODEL, MODEL]
    [run, _] = await look(deployment, "runs")
    assert await models("--run", run["run_id"]) == [SLOW_MODEL]
    for wrong in (("--state", "sleepy"), ("--since", "yesterday"), ("--after", "b-unknown")):
        refused = await batchling("batches", *wrong, env=deployment.env)
        assert (refused.code, wrong[1] in refused.sentence) == (2, True)


async def test_a_batch_is_shown_with_what_happened_and_what_comes_next(deployment: Deployment) -> None:
    await deployment.ask(2, linger_ms=60_000)
    (listed,) = await look(deployment, "batches")

    shown = await look(deployment, "show", listed["batch_id"])
    text = await batchling("show", listed["batch_id"], env=deployment.env)
    await batchling("cancel", listed["batch_id"], env=deployment.env)
    cancelled = await look(deployment, "show", listed["batch_id"])

    assert [entry["what"] for entry in shown["timeline"]] == ["opened"]
    assert shown["commands"] == [f"batchling cancel {listed['batch_id']}"]
    assert "Next: it is sealed, unless more calls come before" in text.out
    opened, ended = [entry["what"] for entry in cancelled["timeline"]]
    assert opened == "opened"
    assert ended.startswith("cancelled by ")
    assert ended.endswith("with `batchling cancel`")


async def test_control_characters_of_a_provider_do_not_reach_the_terminal(deployment: Deployment) -> None:
    await deployment.ask(1, model="evil\x1b[2J\x07model", linger_ms=60_000)
    (listed,) = await look(deployment, "batches")
    key = deployment.keys.batch(listed["batch_id"])
    await deployment.redis.execute_command("HSET", key, "error", "no\x1b]0;title\x07 room\u202e")

    for words in (("status",), ("batches",), ("lanes",), ("show", listed["batch_id"])):
        text = await batchling(*words, env=deployment.env)
        assert not {"\x1b", "\x07", "\u202e"} & set(text.out)
        assert "evil" in text.out


async def test_a_schema_is_printed_without_a_deployment() -> None:
    for words in (("batches",), ("status",), ("show",)):
        seen = await batchling(*words, "--schema", env={"BATCHLING_REDIS_URL": "unix:///nobody"})
        assert (seen.code, "properties" in seen.out) == (0, True)


async def test_watch_looks_again_and_goes_on_while_redis_is_away(
    deployment: Deployment, tmp_path: Path
) -> None:
    await deployment.ask(2, linger_ms=60_000)

    seen = await batchling("watch", "--every", "0.2", "--times", "2", env=deployment.env)
    away = await batchling(
        *("watch", "--every", "0.2", "--times", "2"), env={"BATCHLING_REDIS_URL": f"unix://{tmp_path}/nobody"}
    )

    assert (seen.code, seen.out.count("2 requests wait")) == (0, 2)
    assert "\x1b" not in seen.out
    assert (away.code, away.out.count("Trying again")) == (0, 2)


async def test_check_tells_a_monitor_in_one_line(deployment: Deployment) -> None:
    ids = await deployment.ask(2)
    alone = await batchling("check", env=deployment.env)
    deployment.worker()
    await deployment.answered(ids)
    await deployment.settled()
    well = await batchling("check", "--max-wait", "1h", env=deployment.env)
    await deployment.ask(1, model=SLOW_MODEL, linger_ms=60_000)
    late = await batchling("check", "--max-wait", "0s", env=deployment.env)
    wrong = await batchling("check", "--max-wait", "soon", env=deployment.env)

    assert (alone.code, "No worker is alive" in alone.out, "waiting=2" in alone.out) == (1, True, True)
    assert well.code == 0
    assert well.out.startswith("OK - 0 requests without an answer, nothing needs you | waiting=0 ")
    assert (late.code, "a request has waited for" in late.out) == (1, True)
    assert [len(one.out.splitlines()) for one in (alone, well, late)] == [1, 1, 1]
    assert (wrong.code, "soon" in wrong.sentence) == (2, True)
