"""The Celery tasks: a name and one call each. A message carries batch ids and tokens, nothing else."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from celery import Celery

from batchling_client.wire.keys import BatchId

from .runtime import Runtime
from .store import Held

SUBMIT: Final = "batchling.submit"
POLL: Final = "batchling.poll"
COLLECT: Final = "batchling.collect"
SETTLE: Final = "batchling.settle"


def register(app: Celery, runtime: Runtime) -> None:
    """Makes the pipeline's tasks known to the app."""

    def submit(batch_id: str, token: int) -> None:
        runtime.run(lambda engine: engine.submit(_held(batch_id, token)))

    def poll(claims: Sequence[tuple[str, int]]) -> None:
        runtime.run(lambda engine: engine.poll([_held(batch_id, token) for batch_id, token in claims]))

    def collect(batch_id: str, token: int) -> None:
        runtime.run(lambda engine: engine.collect(_held(batch_id, token)))

    def settle(batch_id: str, token: int) -> None:
        runtime.run(lambda engine: engine.settle(_held(batch_id, token)))

    by_name: Mapping[str, Callable[..., None]] = {
        SUBMIT: submit,
        POLL: poll,
        COLLECT: collect,
        SETTLE: settle,
    }
    for name, work in by_name.items():
        app.task(name=name)(work)


def _held(batch_id: str, token: int) -> Held:
    return Held(batch_id=BatchId(batch_id), token=int(token))
