"""Sends claims to the pool as Celery messages, or runs them in this process when messages get lost."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Final, assert_never

from celery import Celery

from batchling_client.wire.scripts import Claim
from batchling_client.wire.states import BatchState

from ..engine.engine import Engine
from ..store import Held
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

    def send(self, claims: Sequence[Claim], version: int) -> None:
        """Send each claim of a wire version to the queue."""
        if not claims:
            return
        with self._app.producer_or_acquire() as producer:
            for name, args in self._letters(claims):
                self._app.send_task(name, args=[*args, version], producer=producer)

    def inline(self, claims: Sequence[Claim], version: int) -> None:
        """Start claims of a wire version on this process' own loop, without waiting for them."""
        polls: list[Held] = []
        for claim in claims:
            held = Held(batch_id=claim.batch_id, token=claim.token)
            if claim.state is BatchState.SUBMITTED:
                polls.append(held)
            else:
                self._runtime.start(partial(_step, claim=claim, held=held), version)
        for first in range(0, len(polls), POLLS_A_MESSAGE):
            self._runtime.start(partial(_poll, helds=polls[first : first + POLLS_A_MESSAGE]), version)

    def delete_files(self, members: Sequence[str], version: int) -> Future[None]:
        """Start to delete files that batches no longer need, on this process' own loop, without waiting for the end."""
        return self._runtime.start(lambda engine: engine.delete_files(members), version)

    def _letters(self, claims: Sequence[Claim]) -> Iterable[tuple[str, list[object]]]:
        polls: list[tuple[str, int]] = []
        for claim in claims:
            if claim.state is BatchState.SUBMITTED:
                polls.append((claim.batch_id, claim.token))
            else:
                yield _task_of(claim), [claim.batch_id, claim.token]
        for first in range(0, len(polls), POLLS_A_MESSAGE):
            yield tasks.POLL, [polls[first : first + POLLS_A_MESSAGE]]


def _task_of(claim: Claim) -> str:
    if claim.state is BatchState.ENDED:
        return tasks.SETTLE if claim.collected else tasks.COLLECT
    return tasks.SUBMIT


async def _poll(engine: Engine, helds: Sequence[Held]) -> None:
    await engine.poll(helds)


async def _step(engine: Engine, claim: Claim, held: Held) -> None:
    match claim.state:
        case BatchState.SEALED | BatchState.SUBMITTING:
            await engine.submit(held)
        case BatchState.SUBMITTED:
            await _poll(engine, [held])
        case BatchState.ENDED:
            await (engine.settle(held) if claim.collected else engine.collect(held))
        case BatchState.OPEN | BatchState.SETTLED | BatchState.FAILED | BatchState.CANCELLED:
            return
        case None:
            await engine.give_up(held)
        case _:
            assert_never(claim.state)
