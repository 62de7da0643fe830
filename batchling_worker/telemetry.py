"""What the worker says of itself: named log events, and batches as rows of Flower's Tasks page.

Never a body, never a key. Every event, its level and its fields: docs/log-events.md.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import threading
import time
from collections.abc import Callable
from typing import Final, TypeAlias

from batchling_client.wire.keys import BatchId, ProviderBatchId
from batchling_client.wire.records.batch import Batch
from batchling_client.wire.shown import shown
from batchling_client.wire.states import BatchState, Outcome

from .log_lines import Fields, emit
from .provider import Running

logger = logging.getLogger("batchling.worker")

MOST_NAMES: Final = 200
LONGEST_NAME: Final = 200
OTHER: Final = "other"
"""Models beyond these have one name in Flower's events, so that its metrics do not grow with them."""
QUEUE_LONGEST: Final = 10_000
SendEvents: TypeAlias = Callable[[list[tuple[str, Fields]]], None]


class Telemetry:
    """Logs events by name and mirrors batches as Flower rows; a dashboard that is away costs nothing."""

    def __init__(self, send_events: SendEvents | None = None) -> None:
        self._send_events = send_events
        self._pending: queue.Queue[tuple[str, Fields]] = queue.Queue(QUEUE_LONGEST)
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()
        self._shown: dict[BatchId, tuple[str, int]] = {}
        self._names = set[str]()
        os.register_at_fork(after_in_child=self._born)

    def log(self, event: str, *, batch: Batch | BatchId | None = None, **fields: str | int | float) -> None:
        """Log an event; of a batch with its id, provider and model."""
        emit(logger, logging.INFO, event, {**_named(batch), **fields})

    def debug(self, event: str, *, batch: Batch | BatchId | None = None, **fields: str | int | float) -> None:
        """Log an event that helps only to find the process behind a step."""
        emit(logger, logging.DEBUG, event, {**_named(batch), **fields})

    def warn(self, event: str, *, batch: Batch | BatchId | None = None, **fields: str | int | float) -> None:
        """Log an event that somebody should look at."""
        emit(logger, logging.WARNING, event, {**_named(batch), **fields})

    def submitted(self, batch: Batch, provider_batch_id: ProviderBatchId) -> None:
        """Report that a batch is at the provider."""
        n_requests = batch.n_requests - batch.n_dropped
        self.log(
            "batch_submitted",
            batch=batch,
            provider_batch_id=provider_batch_id,
            n_requests=n_requests,
        )
        at_provider = f"provider_batch_id={provider_batch_id}"
        self._event("task-received", batch, kwargs=at_provider, retries=0)
        self._event("task-started", batch, kwargs=at_provider)
        self._progress(batch, "submitted", 0, n_requests)

    def progress(self, batch: Batch, seen: Running) -> None:
        """Report a look at a running batch, if it shows something new."""
        news = (seen.status, seen.n_done)
        if self._shown.get(batch.batch_id) == news:
            return
        self._shown[batch.batch_id] = news
        self.log("batch_progress", batch=batch, status=seen.status, n_done=seen.n_done)
        self._progress(batch, seen.status, seen.n_done, seen.n_total)

    def ended(self, batch: Batch, outcome: Outcome) -> None:
        """Report that a batch has ended at the provider."""
        self._shown.pop(batch.batch_id, None)
        self.log("batch_ended", batch=batch, outcome=outcome.value)

    def quarantined(self, batch: Batch) -> None:
        """Report that a batch is off the schedule until a person retries or cancels it."""
        self.warn(
            "batch_quarantined",
            batch=batch,
            state=batch.state.value,
            n_unended=batch.n_unended,
            error=batch.error,
        )
        self._event("task-quarantined", batch, result=batch.error)

    def settled(self, batch: Batch, state: BatchState, *, n_requeued: int, n_refused: int) -> None:
        """Report that a batch is settled: nobody waits for it any more."""
        self.log(
            "batch_settled",
            batch=batch,
            state=state.value,
            n_requeued=n_requeued,
            n_refused=n_refused,
        )
        n_failed = batch.n_failed + n_refused
        words = f"{state.value}: {batch.n_succeeded} succeeded, {n_failed} failed, {n_requeued} requeued"
        runtime = (batch.updated_at - batch.created_at).total_seconds()
        if state is BatchState.SETTLED:
            self._event("task-succeeded", batch, result=words, runtime=runtime)
        else:
            self._event("task-failed", batch, exception=words, traceback="")

    def _progress(self, batch: Batch, status: str, n_done: int, n_total: int) -> None:
        self._event(
            "task-in_progress", batch, result=f"{status}: {n_done}/{n_total or batch.n_requests} done"
        )

    def _name_of(self, batch: Batch) -> str:
        """Return the name of a batch in Flower, which makes a time series of each name that it has heard."""
        provider, model = batch.spec.provider, batch.spec.model
        name = f"batch {provider}/{model}"
        if len(name) > LONGEST_NAME or (name not in self._names and len(self._names) >= MOST_NAMES):
            return f"batch {provider}/{OTHER}"
        self._names.add(name)
        return name

    def _event(self, kind: str, batch: Batch, **fields: str | int | float) -> None:
        if self._send_events is None:
            return
        with self._starting:
            if self._thread is None:
                self._thread = threading.Thread(target=self._pump, name="batchling-events", daemon=True)
                self._thread.start()
        # Every event names its batch: a Flower that was started later has missed the first ones.
        named: dict[str, str | int | float] = {
            "uuid": batch.batch_id,
            "timestamp": time.time(),
            "name": self._name_of(batch),
            "args": f"{batch.spec.endpoint} {batch.n_requests - batch.n_dropped} requests",
        }
        if batch.provider_batch_id:
            named["kwargs"] = f"provider_batch_id={batch.provider_batch_id}"
        with contextlib.suppress(queue.Full):
            self._pending.put_nowait((kind, _shown(named | fields)))

    def _born(self) -> None:
        """Replace what a forked pool child has from its parent: locks in an unknown state, and no thread."""
        self._pending = queue.Queue(QUEUE_LONGEST)
        self._starting = threading.Lock()
        self._thread = None

    def _pump(self) -> None:
        """Send events on a thread of its own: an unreachable broker must not hold up a step."""
        while True:
            events = [self._pending.get()]
            while not self._pending.empty():
                events.append(self._pending.get())
            try:
                if self._send_events is not None:
                    self._send_events(events)
            except Exception as error:  # noqa: BLE001 - the dashboard is a mirror: losing it must never hurt a batch
                self.debug("events_not_sent", n=len(events), error=type(error).__name__)


def _shown(fields: Fields) -> dict[str, str | int | float]:
    return {name: shown(value) if isinstance(value, str) else value for name, value in fields.items()}


def _named(batch: Batch | BatchId | None) -> Fields:
    """Return the names of a batch; of a batch whose record was not read its id alone."""
    if batch is None:
        return {}
    if isinstance(batch, str):
        return {"batch_id": batch}
    return {"batch_id": batch.batch_id, "provider": batch.spec.provider, "model": batch.spec.model}
