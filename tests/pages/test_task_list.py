"""Flower's list of tasks names each batch whenever it hears of it."""

from __future__ import annotations

import queue

from batchling_client.wire.states import BatchState
from batchling_worker.log_lines import Fields
from batchling_worker.telemetry import Telemetry
from tests.scripts.byhand import ByHand, ids


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
