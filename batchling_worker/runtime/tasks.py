"""The Celery tasks: a name and one call each. A message carries batch ids, tokens and their wire version, no more."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final

from celery import Celery

from batchling_client.wire.keys import BatchId

from ..claim import Claim
from ..engine.engine import Engine
from . import wire_versions
from .step_loop import Runtime

SUBMIT: Final = "batchling.submit"
POLL: Final = "batchling.poll"
COLLECT: Final = "batchling.collect"
SETTLE: Final = "batchling.settle"


def register(app: Celery, runtime: Runtime) -> None:
    """Register the pipeline's tasks with the app; a message of a version that is not served changes nothing."""

    def run(step: Callable[[Engine], Awaitable[None]], version: int) -> None:
        if version in wire_versions.SERVED:
            runtime.run(step, version)

    def submit(batch_id: str, token: int, version: int = wire_versions.FIRST) -> None:
        run(lambda engine: engine.submit(_claim(engine, batch_id, token)), version)

    def poll(claims: Sequence[tuple[str, int]], version: int = wire_versions.FIRST) -> None:
        run(
            lambda engine: engine.poll([_claim(engine, batch_id, token) for batch_id, token in claims]),
            version,
        )

    def collect(batch_id: str, token: int, version: int = wire_versions.FIRST) -> None:
        run(lambda engine: engine.collect(_claim(engine, batch_id, token)), version)

    def settle(batch_id: str, token: int, version: int = wire_versions.FIRST) -> None:
        run(lambda engine: engine.settle(_claim(engine, batch_id, token)), version)

    by_name: Mapping[str, Callable[..., None]] = {
        SUBMIT: submit,
        POLL: poll,
        COLLECT: collect,
        SETTLE: settle,
    }
    for name, work in by_name.items():
        # Flower's rows are batches: the tasks of their steps would bury them. Other apps of the process get none.
        app.task(name=name, send_events=False, shared=False)(work)


def _claim(engine: Engine, batch_id: str, token: int) -> Claim:
    return engine.claim(BatchId(batch_id), int(token))
