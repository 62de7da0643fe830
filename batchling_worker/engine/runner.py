"""Begins steps of claimed batches, and hands the batches back when the worker shuts down."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from batchling_client.wire.deployment.cancellation import end
from batchling_client.wire.deployment.connection import UNREACHABLE
from batchling_client.wire.records.batch import Batch
from batchling_client.wire.records.row_and_result import CorruptRecord
from batchling_client.wire.states import BatchState, Verdict

from ..claim import Claim
from ..dialects.poll_many import chunks
from ..errors import StaleClaim
from ..pipeline.step import Step
from ..telemetry import Telemetry
from .guard import Guard
from .isolation import SharedExclusive
from .lease import lease

TOGETHER: Final = 16
"""How many steps begin at once: on a busy machine Redis' answers take time."""

Work: TypeAlias = Callable[[Sequence[Step]], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Suspect:
    """A claim whose step may start only while no other step runs in this process."""

    claim: Claim


class Runner:
    """Runs the work of steps that may begin; lives on one event loop."""

    def __init__(self, make_step: Callable[[Claim, Batch], Step], guard: Guard, telemetry: Telemetry) -> None:
        self._make_step = make_step
        self._guard = guard
        self._telemetry = telemetry
        self._isolation = SharedExclusive()
        self.leaving = False
        """Whether every step hands its batch back from now on instead of beginning."""

    async def run(self, claims: Sequence[Claim], states: Sequence[BatchState], work: Work) -> None:
        """Begin a step on each claim, and run the work on the steps that may begin in these states."""
        await self._handing_back(claims, self._isolated(claims, states, work))

    async def _isolated(self, claims: Sequence[Claim], states: Sequence[BatchState], work: Work) -> None:
        begun: list[Step | Suspect | None] = []
        async with self._isolation.shared():
            for some in chunks(claims, TOGETHER):
                begun += await asyncio.gather(*(self._begin(claim, states) for claim in some))
            steps = [one for one in begun if isinstance(one, Step)]
            if steps:
                await work(steps)
        for one in begun:
            if isinstance(one, Suspect):
                await self._alone(one.claim, states, work)

    async def _alone(self, claim: Claim, states: Sequence[BatchState], work: Work) -> None:
        """Run the last step that is allowed for a batch whose steps never ended, while no other step runs here."""
        async with contextlib.AsyncExitStack() as quiet:
            try:
                async with lease([claim]):
                    await quiet.enter_async_context(self._isolation.alone())
            except StaleClaim:
                self._telemetry.log("step_stale", batch=claim.batch_id, token=claim.token)
                return
            begun = await self._begin(claim, states, alone=True)
            if isinstance(begun, Step):
                await work([begun])

    async def _begin(
        self, claim: Claim, states: Sequence[BatchState], *, alone: bool = False
    ) -> Step | Suspect | None:
        """Return the step if it may start; None for a doubled or late message."""
        if self.leaving:
            await self._hand_back([claim])
            return None
        try:
            verdict, batch = await claim.begin(states, alone=alone)
        except CorruptRecord:
            await self._guard.give_up(claim)
            return None
        except UNREACHABLE:
            self._guard.store_away(claim)
            return None
        if verdict is Verdict.OK and batch is not None:
            self._telemetry.debug("step_begun", batch=batch, token=claim.token, pid=os.getpid())
            return self._make_step(claim, batch)
        if verdict is Verdict.ALONE and not alone:
            return Suspect(claim)
        if verdict is Verdict.QUARANTINED and batch is not None:
            self._telemetry.quarantined(batch)
        else:
            self._telemetry.log("step_stale", batch=batch or claim.batch_id, token=claim.token)
        return None

    async def _handing_back(self, claims: Sequence[Claim], work: Coroutine[Any, Any, None]) -> None:
        """Run the work and hold no batch afterwards: a worker that shuts down hands its batches back at once."""
        # A task of its own: a cancellation that reaches it as it sends to Redis may be forgotten, as `end` tells.
        step = asyncio.ensure_future(work)
        try:
            await asyncio.wait({step})
            step.result()
        except asyncio.CancelledError:
            await end([step])
            await self._hand_back(claims)
            raise
        except Exception as error:  # noqa: BLE001 - Celery would log its text, and the batch wait for its lease
            for claim in claims:
                await self._guard.failed(claim, error)

    async def _hand_back(self, claims: Sequence[Claim]) -> None:
        self._telemetry.log("worker_leaving", n_batches=len(claims))
        with contextlib.suppress(*UNREACHABLE):
            for claim in claims:
                await claim.release(0.0)
