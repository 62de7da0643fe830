"""The steps of a worker process: each begins on a claimed batch, under its lease, with its account if it needs one."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final

from batchling_client.wire.keys import BatchId
from batchling_client.wire.records.batch import Batch
from batchling_client.wire.states import BatchState

from ..claim import Claim
from ..pipeline.collect import collect, collect_nothing, needs_account
from ..pipeline.settle import settle
from ..pipeline.step import Step, StepSettings
from ..pipeline.submit import submit
from ..providers import Providers
from ..store import Store
from ..telemetry import Telemetry
from .access import Access
from .accounts import Accounts
from .circuit import Circuits
from .guard import Guard
from .polls import Polls
from .runner import Runner
from .spent_files import Deletion
from .survivors import Survivors

SUBMIT_STATES: Final = (BatchState.SEALED, BatchState.SUBMITTING)
POLL_STATES: Final = (BatchState.SUBMITTED,)
END_STATES: Final = (BatchState.ENDED,)


def _passed(point: str, batch: Batch) -> None:
    """Do nothing at a point at which a crash test kills the process."""


class Engine:
    """Everything a worker process needs to run steps; lives on one event loop."""

    def __init__(
        self,
        *,
        store: Store,
        accounts: Accounts,
        providers: Providers,
        step_settings: StepSettings,
        telemetry: Telemetry,
        reach: Callable[[str, Batch], None] = _passed,
    ) -> None:
        self._store = store
        self._providers = providers
        self._step_settings = step_settings
        self._telemetry = telemetry
        self._reach = reach
        self._access = Access(
            accounts, Circuits(store.accounts, telemetry), providers, step_settings.longest_answer_bytes
        )
        self._guard = Guard(store, Survivors(), telemetry)
        self._polls = Polls(self._access, self._guard)
        self._runner = Runner(self._step, self._guard, telemetry)
        self._spent_files = Deletion(store, accounts, providers, telemetry)

    def claim(self, batch_id: BatchId, token: int) -> Claim:
        """Return the claim of a batch under a token, for the steps below."""
        return self._store.claim(batch_id, token)

    async def submit(self, claim: Claim) -> None:
        """Submit a sealed batch."""
        await self._one(claim, SUBMIT_STATES, lambda step: self._access.run(step, submit))

    async def poll(self, claims: Sequence[Claim]) -> None:
        """Look at submitted batches, with shared calls for batches of one account."""
        await self._runner.run(claims, POLL_STATES, self._polls.run)

    async def collect(self, claim: Claim) -> None:
        """Deliver the results of an ended batch."""

        async def work(step: Step) -> None:
            if needs_account(step.batch):
                await self._access.run(step, collect)
            else:
                await collect_nothing(step)

        await self._one(claim, END_STATES, work)

    async def settle(self, claim: Claim) -> None:
        """Settle a collected batch."""

        async def work(step: Step) -> None:
            await settle(dataclasses.replace(step, cipher=await self._access.cipher(step.batch)))

        await self._one(claim, END_STATES, work)

    async def give_up(self, claim: Claim) -> None:
        """End a batch whose record cannot be read, once it has been unreadable for long enough."""
        await self._guard.give_up(claim)

    async def delete_files(self, members: Sequence[str]) -> None:
        """Delete files at providers that batches no longer need."""
        await self._spent_files.delete(members)

    def leave(self) -> None:
        """Make every step from now on hand its batch back instead of beginning."""
        self._runner.leaving = True

    async def _one(
        self, claim: Claim, states: Sequence[BatchState], work: Callable[[Step], Coroutine[Any, Any, None]]
    ) -> None:
        """Run a step that has its batch for itself."""

        async def guarded(steps: Sequence[Step]) -> None:
            [step] = steps
            await self._guard.under_lease(steps, self._guard.guarded(step, work(step)))

        await self._runner.run([claim], states, guarded)

    def _step(self, claim: Claim, batch: Batch) -> Step:
        return Step(
            claim=claim,
            batch=batch,
            store=self._store,
            settings=self._step_settings,
            providers=self._providers,
            telemetry=self._telemetry,
            reach=lambda point: self._reach(point, batch),
        )
