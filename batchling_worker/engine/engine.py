"""Runs one step of a claimed batch under its lease, and turns every error into a later look or an ended batch."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import json
import os
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from typing import Any, Final

import msgspec
from redis.exceptions import RedisError

from batchling_client.wire.deployment.cancellation import end
from batchling_client.wire.deployment.connection import UNREACHABLE
from batchling_client.wire.keys import BatchId, LaneId
from batchling_client.wire.records.batch import Batch
from batchling_client.wire.records.row_and_result import CorruptRecord
from batchling_client.wire.states import BatchState, Outcome, Verdict

from .. import backoff
from ..call_outcome import CallOutcomes
from ..claim import Claim
from ..decisions import lifecycle, rereading
from ..dialects.poll_many import chunks
from ..errors import (
    CreateRefused,
    Denied,
    NotYet,
    PermanentError,
    StaleClaim,
    TemporaryError,
    Waiting,
    WorkerError,
)
from ..pipeline.blamed_rows import of_refusal
from ..pipeline.collect import collect
from ..pipeline.give_up import give_up
from ..pipeline.poll import look, poll
from ..pipeline.settle import settle
from ..pipeline.step import Step, StepSettings
from ..pipeline.submit import submit
from ..provider import Account, Complaint, Ending, Look, Running, Seen
from ..providers import Providers
from ..store import Store
from ..telemetry import Telemetry
from . import silences
from .accounts import AccountKey, Accounts, account_key
from .circuit import Circuits
from .isolation import SharedExclusive
from .lease import lease
from .list_pages import ListPages
from .spent_files import Deletion
from .survivors import Survivors

SUBMIT_STATES: Final = (BatchState.SEALED, BatchState.SUBMITTING)
POLL_STATES: Final = (BatchState.SUBMITTED,)
END_STATES: Final = (BatchState.ENDED,)
MOVES_TOGETHER: Final = 16
"""How many of the batches that are polled together call Redis at once: on a busy machine its answers take time."""
EARLY_TOGETHER: Final = 4
"""Of how many running batches of an account results are read at once."""


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
        self._accounts = accounts
        self._providers = providers
        self._step_settings = step_settings
        self._telemetry = telemetry
        self._reach = reach
        self._circuits = Circuits(store.accounts, telemetry)
        self._isolation = SharedExclusive()
        self._survivors = Survivors()
        self._spent_files = Deletion(store, accounts, providers, telemetry)
        self._leaving = False

    def claim(self, batch_id: BatchId, token: int) -> Claim:
        """Return the claim of a batch under a token, for the steps below."""
        return self._store.claim(batch_id, token)

    async def submit(self, claim: Claim) -> None:
        """Submit a sealed batch."""
        await self._one(claim, SUBMIT_STATES, submit, needs_account=lambda batch: True)

    async def collect(self, claim: Claim) -> None:
        """Deliver the results of an ended batch."""
        await self._one(claim, END_STATES, collect, needs_account=_has_results)

    async def settle(self, claim: Claim) -> None:
        """Settle a collected batch."""
        await self._one(claim, END_STATES, self._settle_if_collected, needs_account=lambda batch: False)

    async def poll(self, claims: Sequence[Claim]) -> None:
        """Look at submitted batches, with shared calls for batches of one account."""
        suspects: list[Claim] = []

        async def work() -> None:
            async with self._isolation.shared():
                groups: dict[AccountKey, list[Step]] = {}
                for some in chunks(claims, MOVES_TOGETHER):
                    begun = await asyncio.gather(
                        *(self._begin(claim, POLL_STATES, suspects) for claim in some)
                    )
                    for claim, batch in zip(some, begun, strict=True):
                        if batch is not None:
                            groups.setdefault(account_key(batch.spec), []).append(self._step(claim, batch))
                await asyncio.gather(
                    *(self._under_lease(steps, self._poll_together(steps)) for steps in groups.values())
                )
            for claim in suspects:
                await self._alone(claim, POLL_STATES, self._poll_one)

        await self._handing_back(claims, work())

    async def delete_files(self, members: Sequence[str]) -> None:
        """Delete files at providers that batches no longer need."""
        await self._spent_files.delete(members)

    def leave(self) -> None:
        """Make every step from now on hand its batch back instead of beginning."""
        self._leaving = True

    async def _poll_one(self, step: Step) -> None:
        await self._under_lease([step], self._poll_together([step]))

    async def _poll_together(self, steps: Sequence[Step]) -> None:
        seen: Sequence[Seen]
        try:
            account = await self._account(steps[0].batch)
            account = dataclasses.replace(account, pages=self._pages(account, steps))
            steps = [dataclasses.replace(step, account=account) for step in steps]
            async with self._through(account, steps, None):
                seen = await look(steps)
        except (TemporaryError, PermanentError) as error:
            seen = [error] * len(steps)
        except Exception as error:  # noqa: BLE001 - an error of the shared call is the error of each step
            for step in steps:
                await self._guarded(step, _failing(error))
            return
        running: list[tuple[Step, Seen]] = []
        early: list[tuple[Step, Look]] = []
        for step, one in zip(steps, seen, strict=True):
            if not isinstance(one, Running):
                await self._guarded(step, poll(step, one))
            elif one.early is None:
                running.append((step, one))
            else:
                early.append((step, one))
        for some in chunks(running, MOVES_TOGETHER):
            await asyncio.gather(*(self._guarded(step, poll(step, one)) for step, one in some))
        await self._poll_early(early)

    @contextlib.asynccontextmanager
    async def _through(
        self, account: Account, steps: Sequence[Step], lane_id: LaneId | None
    ) -> AsyncIterator[None]:
        """Enclose the calls of steps to their account; the batches show which call the provider leaves unanswered."""
        async with (
            self._circuits.through(account, steps[0].batch.spec.provider, lane_id),
            silences.shown([step.claim for step in steps], account.calls),
        ):
            yield

    def _pages(self, account: Account, steps: Sequence[Step]) -> ListPages:
        """Return the pages of an account's list that the steps of this look share; pages of the last look are stale."""
        shortest_s = self._step_settings.poll_interval_s
        unnamed = self._step_settings.poll_unnamed

        def pause_s(step: Step) -> float:
            wanted = (step.batch, shortest_s, step.now, step.least_look_s)
            interval_s = lifecycle.interval_s(step.batch, shortest_s, step.least_look_s)
            return min(interval_s, lifecycle.pace_s(*wanted, unnamed=unnamed))

        # A header may choose whose batches a list shows, such as those of a project.
        place = f"{account.digest} {steps[0].batch.spec.headers}"
        return ListPages(self._store.redis, self._store.keys, place, fresh_s=min(map(pause_s, steps)) / 2)

    async def _poll_early(self, looks: Sequence[tuple[Step, Look]]) -> None:
        """Poll the batches; those with early results come last, some side by side, because reading may take long."""
        room = asyncio.Semaphore(EARLY_TOGETHER)

        async def one(step: Step, seen: Look) -> None:
            # The outcome of one download must not count for another.
            account = dataclasses.replace(step.way(), calls=CallOutcomes())
            step = dataclasses.replace(step, account=account)
            through = functools.partial(self._through, account, [step], None)
            async with room:
                await self._guarded(step, poll(step, seen, through))

        await asyncio.gather(*(one(step, seen) for step, seen in looks))

    async def _one(
        self,
        claim: Claim,
        states: Sequence[BatchState],
        work: Callable[[Step], Awaitable[None]],
        *,
        needs_account: Callable[[Batch], bool],
    ) -> None:
        async def run(step: Step) -> None:
            async def with_account() -> None:
                batch = step.batch
                if not needs_account(batch):
                    await work(step)
                    return
                account = await self._account(batch)
                bound = dataclasses.replace(step, account=account)
                lane_id = batch.lane_id if batch.state in SUBMIT_STATES else None
                try:
                    async with self._through(account, [step], lane_id):
                        await work(bound)
                except (Denied, PermanentError, Waiting):
                    if not bound.estranged:
                        raise
                    raise bound.estrangement() from None

            await self._under_lease([step], self._guarded(step, with_account()))

        suspects: list[Claim] = []

        async def begun() -> None:
            async with self._isolation.shared():
                batch = await self._begin(claim, states, suspects)
                if batch is not None:
                    await run(self._step(claim, batch))
            for suspect in suspects:
                await self._alone(suspect, states, run)

        await self._handing_back([claim], begun())

    async def _alone(
        self, claim: Claim, states: Sequence[BatchState], run: Callable[[Step], Awaitable[None]]
    ) -> None:
        """Run the last step that is allowed for a batch whose steps never ended, while no other step runs here."""
        async with contextlib.AsyncExitStack() as quiet:
            try:
                async with lease([claim]):
                    await quiet.enter_async_context(self._isolation.alone())
            except StaleClaim:
                self._telemetry.log("step_stale", batch_id=claim.batch_id, token=claim.token)
                return
            batch = await self._begin(claim, states, None)
            if batch is not None:
                await run(self._step(claim, batch))

    async def _begin(
        self, claim: Claim, states: Sequence[BatchState], suspects: list[Claim] | None
    ) -> Batch | None:
        """Return the batch if the step may start; None for a doubled or late message.

        `suspects` takes a batch whose step may start only alone in this process; None = it is alone.
        """
        if self._leaving:
            await self._hand_back([claim])
            return None
        try:
            verdict, batch = await claim.begin(states, alone=suspects is None)
        except CorruptRecord:
            await self.give_up(claim)
            return None
        except UNREACHABLE:
            self._telemetry.warn("store_away", batch_id=claim.batch_id)
            self._survivors.add(claim)
            return None
        if verdict is Verdict.OK:
            self._telemetry.debug("step_begun", batch_id=claim.batch_id, token=claim.token, pid=os.getpid())
            return batch
        if verdict is Verdict.ALONE and suspects is not None:
            suspects.append(claim)
        elif verdict is Verdict.QUARANTINED and batch is not None:
            self._telemetry.quarantined(batch)
        else:
            self._telemetry.log("step_stale", batch_id=claim.batch_id, token=claim.token)
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
                await self._failed(claim, 0, error)

    async def _hand_back(self, claims: Sequence[Claim]) -> None:
        self._telemetry.log("worker_leaving", n_batches=len(claims))
        with contextlib.suppress(*UNREACHABLE):
            for claim in claims:
                await claim.release(0.0)

    async def give_up(self, claim: Claim) -> None:
        """End a batch whose record cannot be read, once it has been unreadable for long enough."""
        try:
            async with lease([claim]):
                await give_up(self._store, claim, self._telemetry)
        except StaleClaim:
            self._telemetry.log("step_stale", batch_id=claim.batch_id, token=claim.token)
        except UNREACHABLE:
            self._telemetry.warn("store_away", batch_id=claim.batch_id)

    async def _under_lease(self, steps: Sequence[Step], work: Coroutine[Any, Any, None]) -> None:
        """Run the work while the leases are extended."""
        try:
            async with lease([step.claim for step in steps]):
                await work
        except StaleClaim:
            for step in steps:
                self._stale(step)

    async def _guarded(self, step: Step, work: Coroutine[Any, Any, None]) -> None:
        """Run the work; every failure leaves the batch due again, or ended with the provider's reason."""
        batch_id = step.batch.batch_id
        try:
            try:
                await self._or_ended(step, work)
            except Waiting as wait:
                await self._wait(step, wait)
            except NotYet as error:
                self._telemetry.log("step_waits", batch_id=batch_id, reason=str(error))
                await step.claim.release(error.delay_s or 0.0)
            except TemporaryError as error:
                delay_s = error.delay_s or backoff.pause_s(step.batch.n_stumbles)
                self._telemetry.warn(
                    "step_stumbled", batch_id=batch_id, reason=str(error), delay_s=round(delay_s, 2)
                )
                denied = isinstance(error, Denied)
                await step.claim.release(delay_s, str(error), denied=denied)
            except PermanentError as error:
                await self._refuse(step, error)
            except CorruptRecord:
                await give_up(self._store, step.claim, self._telemetry)
        except StaleClaim:
            self._stale(step)
        except UNREACHABLE:
            self._telemetry.warn("store_away", batch_id=batch_id)
            self._survivors.add(step.claim)
        except Exception as error:  # noqa: BLE001 - a defect of ours must not lose a batch: it is looked at again
            await self._failed(step.claim, step.batch.n_stumbles, error, step)

    async def _or_ended(self, step: Step, work: Coroutine[Any, Any, None]) -> None:
        """Run the work; end a batch that still cannot be submitted, or looked at, after its longest wait."""
        batch = step.batch
        try:
            await work
        except TemporaryError as error:
            if isinstance(error, NotYet) or (isinstance(error, Waiting) and error.refusal is not None):
                raise
            if batch.state in SUBMIT_STATES and lifecycle.submission_is_over(batch, step.now):
                await self._end_unsubmitted(step, error)
            elif batch.state is BatchState.ENDED and isinstance(error, Waiting):
                # The reading that follows gives a better reason.
                raise
            elif _paid(batch) and rereading.is_over(batch, step.now):
                await self._end_unread(step, error)
            else:
                raise

    async def _end_unsubmitted(self, step: Step, error: TemporaryError) -> None:
        """Answer the callers of a batch that could not be submitted in time; it is not created again."""
        batch = step.batch
        if lifecycle.may_be_made(batch):
            label = batch.label or lifecycle.label_of(self._step_settings.namespace, batch.batch_id)
            complaint = lifecycle.unfound(batch, label, str(error))
        else:
            complaint = lifecycle.unsubmitted(batch, str(error))
        self._telemetry.warn("batch_unsubmitted", batch_id=batch.batch_id, reason=str(error))
        ending = Ending(complaints=(complaint,))
        await step.claim.ended(Outcome.FAILED, ending, complaint.message)

    async def _end_unread(self, step: Step, error: WorkerError) -> None:
        """Answer the callers of a batch that may be paid for and can no longer be read; no request is run again."""
        complaint = Complaint(code=lifecycle.UNREADABLE, message=str(error))
        ending = Ending(complaints=(complaint,))
        await step.claim.ended(Outcome.FAILED, ending, str(error))

    async def _failed(
        self, claim: Claim, n_stumbles: int, error: Exception, step: Step | None = None
    ) -> None:
        """Make the batch due again after a pause; the process lives, so this does not count towards quarantine."""
        # The text of an unforeseen error may hold anything, a key included: only its kind and place are logged.
        place = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{type(error).__name__} at {place.filename.rpartition('/')[2]}:{place.lineno}"
        self._telemetry.warn("step_failed", batch_id=claim.batch_id, error=where)
        try:
            if step is not None and lifecycle.defect_lasts(step.batch, where):
                await self._end_defect(step, where)
            else:
                await claim.release(backoff.pause_s(n_stumbles + 3), where)
        except (StaleClaim, *UNREACHABLE, RedisError):
            # This may fail as well: a Redis that lacks replicas or cannot save may have refused the step's own move.
            self._survivors.add(claim)

    async def _end_defect(self, step: Step, where: str) -> None:
        """Answer the callers of a batch on which our own code fails again and again; no request is run again."""
        if step.batch.state is BatchState.ENDED and lifecycle.DEFECT.encode() in step.batch.ending:
            # Our code fails even on settling this end.
            await give_up(self._store, step.claim, self._telemetry)
            return
        complaint = lifecycle.step_defect(step.batch, where)
        ending = Ending(complaints=(complaint,))
        await step.claim.ended(Outcome.FAILED, ending, complaint.message)

    def _stale(self, step: Step) -> None:
        """Log that another worker has taken over, and record that this worker lives."""
        self._telemetry.log("step_stale", batch_id=step.batch.batch_id, token=step.claim.token)
        self._survivors.add(step.claim)

    async def _refuse(self, step: Step, error: PermanentError) -> None:
        """End a refused batch, with the provider's own words for its callers; a batch that may be paid for waits.

        If an earlier create was searched for in vain and a later create is refused, nothing is known to be paid: the
        next refusal ends the batch.
        """
        self._telemetry.warn(
            "step_refused", batch_id=step.batch.batch_id, status=error.status, reason=str(error)
        )
        if not _paid(step.batch):
            await self._end_refused(step, error)
        elif isinstance(error, CreateRefused):
            delay_s = backoff.pause_s(step.batch.n_stumbles + 3)
            await step.claim.release(delay_s, str(error), denied=True, create_refused=True)
        else:
            await self._park(step, error, backoff.parked_pause_s())

    async def _park(self, step: Step, error: PermanentError, delay_s: float) -> None:
        """Keep a batch that may be paid for while its key is refused; only a cancel or the end of retention ends it."""
        batch = step.batch
        if rereading.is_over(batch, step.now):
            # As a fault of the provider's server, its requests would be run again.
            await (self._end_unread(step, error) if error.status >= 500 else self._end_refused(step, error))
        elif batch.cancel_requested and batch.state is not BatchState.ENDED:
            reason = f"cancelled while the key was refused; at {batch.spec.provider} the batch may still run"
            await step.claim.ended(Outcome.CANCELLED, Ending(), reason)
        else:
            await step.claim.hold(
                delay_s, lifecycle.parked_sentence(batch, str(error), error.status), parked=True
            )

    async def _wait(self, step: Step, wait: Waiting) -> None:
        """Let the batch wait without a stumble; if its key was just refused and nothing is paid, answer the callers."""
        batch = step.batch
        if wait.refusal is not None and not step.estranged:
            self._telemetry.warn("step_refused", batch_id=batch.batch_id, reason=str(wait))
            if _paid(batch):
                await self._park(step, wait.refusal, wait.wait_s)
            else:
                await self._end_refused(step, wait.refusal)
            return
        self._telemetry.log(
            "batch_held", batch_id=batch.batch_id, reason=str(wait), delay_s=round(wait.wait_s, 2)
        )
        await step.claim.hold(wait.wait_s, str(wait), away=wait.away)

    async def _end_refused(self, step: Step, error: PermanentError) -> None:
        body = error.body or json.dumps({"error": {"message": str(error), "type": "batch_error"}}).encode()
        ending = await of_refusal(step, error, body)
        ending = msgspec.structs.replace(ending, certain=not _paid(step.batch) and step.surely_unmade)
        await step.claim.ended(Outcome.FAILED, ending, str(error))

    async def _settle_if_collected(self, step: Step) -> None:
        if step.batch.collected_at is None:
            raise NotYet("the results are not collected yet", delay_s=0.1)
        await settle(step)

    async def _account(self, batch: Batch) -> Account:
        return await self._accounts.open(batch.spec, self._providers.load(batch.spec.provider).facts)

    def _step(self, claim: Claim, batch: Batch) -> Step:
        return Step(
            claim=claim,
            batch=batch,
            store=self._store,
            account=None,
            settings=self._step_settings,
            providers=self._providers,
            telemetry=self._telemetry,
            reach=lambda point: self._reach(point, batch),
        )


def _paid(batch: Batch) -> bool:
    """Return whether a batch may have been paid for, so that the first refusal does not end it."""
    return batch.state in (*POLL_STATES, *END_STATES) or batch.create_at is not None


async def _failing(error: Exception) -> None:
    raise error


def _has_results(batch: Batch) -> bool:
    return bool(Ending.decode(batch.ending).results) or (
        batch.n_unread > 0 and batch.provider_batch_id is not None
    )
