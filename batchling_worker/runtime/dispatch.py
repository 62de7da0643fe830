"""Sends claims to the pool as Celery messages, or runs them in this process when messages get lost."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Final, assert_never

from celery import Celery

from batchling_client.wire.scripts import DueBatch
from batchling_client.wire.states import BatchState

from ..engine.engine import Engine
from . import tasks
from .step_loop import Runtime

POLLS_A_MESSAGE: Final = 500
"""How many polls go into one message: batches of an account that are polled together share one sweep of its list."""


class Dispatch:
    """Sends one message per step, polls by the hundred; the lease makes up for a message that is not sent."""

    def __init__(self, app: Celery, runtime: Runtime) -> None:
        self._app = app
        self._runtime = runtime

    def open(self) -> None:
        """Open the connection for messages; if the broker is unreachable, the first message opens it."""
        with contextlib.suppress(Exception), self._app.producer_or_acquire() as producer:
            for queue in self._app.amqp.queues.values():
                producer.maybe_declare(queue)

    def send(self, claims: Sequence[DueBatch], version: int) -> None:
        """Send each claim of a wire version to the queue."""
        if not claims:
            return
        with self._app.producer_or_acquire() as producer:
            for name, args in self._letters(claims):
                self._app.send_task(name, args=[*args, version], producer=producer)

    def inline(self, claims: Sequence[DueBatch], version: int) -> None:
        """Start claims of a wire version on this process' own loop, without waiting for them."""
        polls: list[DueBatch] = []
        for due in claims:
            if due.state is BatchState.SUBMITTED:
                polls.append(due)
            else:
                self._runtime.start(partial(_step, due=due), version)
        for first in range(0, len(polls), POLLS_A_MESSAGE):
            self._runtime.start(partial(_poll, dues=polls[first : first + POLLS_A_MESSAGE]), version)

    def delete_files(self, members: Sequence[str], version: int) -> Future[None]:
        """Start to delete files that batches no longer need, on this process' own loop, without waiting for the end."""
        return self._runtime.start(lambda engine: engine.delete_files(members), version)

    def _letters(self, claims: Sequence[DueBatch]) -> Iterable[tuple[str, list[object]]]:
        polls: list[tuple[str, int]] = []
        for due in claims:
            if due.state is BatchState.SUBMITTED:
                polls.append((due.batch_id, due.token))
            else:
                yield _task_of(due), [due.batch_id, due.token]
        for first in range(0, len(polls), POLLS_A_MESSAGE):
            yield tasks.POLL, [polls[first : first + POLLS_A_MESSAGE]]


def _task_of(due: DueBatch) -> str:
    if due.state is BatchState.ENDED:
        return tasks.SETTLE if due.collected else tasks.COLLECT
    return tasks.SUBMIT


async def _poll(engine: Engine, dues: Sequence[DueBatch]) -> None:
    await engine.poll([engine.claim(due.batch_id, due.token) for due in dues])


async def _step(engine: Engine, due: DueBatch) -> None:
    claim = engine.claim(due.batch_id, due.token)
    match due.state:
        case BatchState.SEALED | BatchState.SUBMITTING:
            await engine.submit(claim)
        case BatchState.SUBMITTED:
            await engine.poll([claim])
        case BatchState.ENDED:
            await (engine.settle(claim) if due.collected else engine.collect(claim))
        case BatchState.OPEN | BatchState.SETTLED | BatchState.FAILED | BatchState.CANCELLED:
            return
        case None:
            await engine.give_up(claim)
        case _:
            assert_never(due.state)
