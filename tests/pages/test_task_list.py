"""Flower's list of tasks has batches only, and names each of them whenever it hears of it."""

from __future__ import annotations

import dataclasses
import json
import queue
from pathlib import Path
from typing import Any

import msgspec
import pytest
from celery import Celery

from batchling_client.wire.states import BatchState
from batchling_worker.log_lines import Fields
from batchling_worker.runtime import tasks
from batchling_worker.runtime.step_loop import Runtime
from batchling_worker.telemetry import MOST_NAMES, Telemetry
from tests.deployment import Deployment
from tests.scripts.byhand import ByHand, ids

from .browser import Browser, running_flower


def test_steps_send_no_events_to_the_list_of_tasks() -> None:
    app = Celery("steps")
    no_engine: Any = None
    tasks.register(app, Runtime(no_engine))

    steps = [app.tasks[name] for name in (tasks.SUBMIT, tasks.POLL, tasks.COLLECT, tasks.SETTLE)]
    assert [step.send_events for step in steps] == [False] * 4


async def test_every_event_of_a_batch_names_it(there: ByHand) -> None:
    batch = await there.batch(await there.in_state(BatchState.SETTLED, ids(2)))
    sent: queue.Queue[tuple[str, Fields]] = queue.Queue()

    def send(events: list[tuple[str, Fields]]) -> None:
        for one in events:
            sent.put(one)

    telemetry = Telemetry(send)

    telemetry.quarantined(batch)
    telemetry.settled(batch, BatchState.SETTLED, n_requeued=0, n_refused=0)

    for _ in range(2):
        _, fields = sent.get(timeout=20)
        assert (fields["uuid"], fields["name"]) == (batch.batch_id, f"batch groq/{there.spec.model}")
        assert "2 requests" in str(fields["args"])


@pytest.mark.long
async def test_the_list_of_tasks_has_batches_only(deployment: Deployment, tmp_path: Path) -> None:
    open_api = {**deployment.env, "FLOWER_UNAUTHENTICATED_API": "true"}
    with running_flower(deployment.url, "default", tmp_path, **open_api) as port:
        deployment.worker()
        browser = Browser(port)
        names = set[str]()
        # Workers send no events before Flower has asked them to.
        while not any(name.startswith("batch ") for name in names):
            await deployment.answered(await deployment.ask(3))
            names = {str(task["name"]) for task in json.loads(browser.get("/api/tasks").body).values()}

    assert {name.partition(" ")[0] for name in names} == {"batch"}


async def test_the_names_of_batches_are_bounded_however_many_models_there_are(there: ByHand) -> None:
    """Flower's metrics keep a time series for each name."""
    sent: queue.Queue[tuple[str, Fields]] = queue.Queue()

    def send(events: list[tuple[str, Fields]]) -> None:
        for one in events:
            sent.put(one)

    telemetry = Telemetry(send)
    batch = await there.batch(await there.in_state(BatchState.SETTLED, ids(1)))
    models = [f"m{n}" for n in range(MOST_NAMES + 50)]
    for model in [*models, models[0], "m" * 1000]:
        spec = msgspec.structs.replace(batch.spec, model=model)
        telemetry.quarantined(dataclasses.replace(batch, spec=spec))

    heard = [str(sent.get(timeout=20)[1]["name"]) for _ in range(len(models) + 2)]
    assert len(set(heard)) == MOST_NAMES + 1
    assert heard[0] == heard[-2] == "batch groq/m0"
    assert heard[-1] == "batch groq/other"
