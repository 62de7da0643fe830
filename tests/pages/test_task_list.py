"""Flower's list of tasks has batches only, and names each of them whenever it hears of it."""

from __future__ import annotations

import queue
from typing import Any

from celery import Celery

from batchling_client.wire.states import BatchState
from batchling_worker.log_lines import Fields
from batchling_worker.runtime import tasks
from batchling_worker.runtime.step_loop import Runtime
from batchling_worker.telemetry import Telemetry
from tests.scripts.byhand import ByHand, ids


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
