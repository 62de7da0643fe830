"""The log of real workers, read by programs."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from tests.deployment import MODEL, Deployment, kill
from tests.waiting import wait_until
from tests.worker.test_log_lines import parsed

COMMAND = ("-m", "celery", "-q", "-A", "batchling_worker", "worker", "--pool", "threads", "-l", "INFO")


async def test_every_line_of_real_workers_is_read_and_names_what_commands_accept(
    deployment: Deployment,
) -> None:
    logs, workers = {}, []
    for log_format in ("text", "json"):
        logs[log_format] = deployment.home / f"{log_format}.log"
        env = {**deployment.env, "BATCHLING_LOG_FORMAT": log_format}
        with logs[log_format].open("wb") as log:
            argv = [sys.executable, *COMMAND, "-n", f"{log_format}@test"]
            workers.append(subprocess.Popen(argv, env=env, stdout=log, stderr=log, start_new_session=True))
    try:
        await wait_until(
            lambda: all(" ready" in one.read_text() for one in logs.values()), description="both are ready"
        )
        await deployment.answered([*await deployment.ask(3, rows=1), *await deployment.ask(3)])
        batches = {one.batch_id: one for one in await deployment.settled()}
    finally:
        for worker in workers:
            kill(worker)

    lines: list[dict[str, Any]] = [parsed(line) for line in logs["text"].read_text().splitlines()]
    lines += [json.loads(line) for line in logs["json"].read_text().splitlines()]
    events = [line for line in lines if line.get("event", "").startswith("batch_")]
    assert {line["batch_id"] for line in events} == set(batches)
    assert {(line["provider"], line["model"]) for line in events} == {("groq", MODEL)}
    assert {line["lane_id"] for line in events if line["event"] == "batch_sealed"} == {
        one.lane_id for one in batches.values()
    }
    assert all(line.keys() >= {"at", "level", "logger", "process"} for line in lines)
