"""Runs the work of steps under their leases; an error leaves the batch due again, or ended with a reason."""

from __future__ import annotations

import json
import traceback
from collections.abc import Coroutine, Sequence
from typing import Any, Final

import msgspec
from redis.exceptions import RedisError

from batchling_client.wire.deployment.connection import UNREACHABLE
from batchling_client.wire.records.row_and_result import CorruptRecord
from batchling_client.wire.states import BatchState, Outcome

from .. import backoff
from ..claim import Claim
from ..decisions import held, patience, reasons, submission
from ..decisions.after_error import After, after, maybe_paid
from ..errors import Denied, PermanentError, StaleClaim, TemporaryError, Waiting
from ..pipeline.blamed_rows import of_refusal
from ..pipeline.give_up import give_up
from ..pipeline.step import Step
from ..provider import Complaint, Ending
from ..store import Store
from ..telemetry import Telemetry
from .lease import lease
from .survivors import Survivors

LONGER: Final = 3
"""After a defect of ours, or a refused create, the pause is as long as after three more errors."""


class Guard:
    """Handles the errors of steps, by `decisions.after_error`."""

    def __init__(self, store: Store, survivors: Survivors, telemetry: Telemetry) -> None:
        self._store = store
        self._survivors = survivors
        self._telemetry = telemetry
        self._waits = held.Repeats()

    async def under_lease(self, steps: Sequence[Step], work: Coroutine[Any, Any, None]) -> None:
        """Run the work while the leases are extended."""
        try:
            async with lease([step.claim for step in steps]):
                await work
        except StaleClaim:
            for step in steps:
                self._stale(step)

    async def guarded(self, step: Step, work: Coroutine[Any, Any, None]) -> None:
        """Run the work of one step, and handle its error."""
        try:
            try:
                await work
            except (TemporaryError, PermanentError) as error:
                await self._answer(step, error)
            except CorruptRecord:
                await give_up(self._store, step.claim, self._telemetry)
        except StaleClaim:
            self._stale(step)
        except UNREACHABLE:
            self.store_away(step.claim)
        except Exception as error:  # noqa: BLE001 - a defect of ours must not lose a batch: it is looked at again
            await self.failed(step.claim, error, step)

    async def give_up(self, claim: Claim) -> None:
        """End a batch whose record cannot be read, once it has been unreadable for long enough."""
        try:
            async with lease([claim]):
                await give_up(self._store, claim, self._telemetry)
        except StaleClaim:
            self._telemetry.log("step_stale", batch=claim.batch_id, token=claim.token)
        except UNREACHABLE:
            self._telemetry.warn("store_away", batch=claim.batch_id)

    def store_away(self, claim: Claim) -> None:
        """Log that Redis is unreachable, and report that this worker lives once it is back."""
        self._telemetry.warn("store_away", batch=claim.batch_id)
        self._survivors.add(claim)

    async def failed(self, claim: Claim, error: Exception, step: Step | None = None) -> None:
        """Make the batch due again after a pause; the process lives, so this does not count towards quarantine."""
        # The text of an unforeseen error may hold anything, a key included: only its kind and place are logged.
        place = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{type(error).__name__} at {place.filename.rpartition('/')[2]}:{place.lineno}"
        self._telemetry.warn(
            "step_failed", batch=step.batch if step is not None else claim.batch_id, error=where
        )
        n_stumbles = step.batch.n_stumbles if step is not None else 0
        try:
            if step is not None and patience.defect_lasts(step.batch, where):
                await self._end_defect(step, where)
            else:
                await claim.release(backoff.pause_s(n_stumbles + LONGER), where)
        except (StaleClaim, *UNREACHABLE, RedisError):
            # This may fail as well: a Redis that lacks replicas or cannot save may have refused the step's own move.
            self._survivors.add(claim)

    def _stale(self, step: Step) -> None:
        """Log that another worker has taken over, and record that this worker lives."""
        self._telemetry.log("step_stale", batch=step.batch, token=step.claim.token)
        self._survivors.add(step.claim)

    async def _answer(self, step: Step, error: TemporaryError | PermanentError) -> None:
        """Do what is decided about the error."""
        what = after(step.batch, error, step.now, estranged=step.estranged)
        parked_s = None
        if isinstance(error, Waiting) and error.refusal is not None and what is not After.WAIT:
            parked_s, error = error.delay_s, error.refusal
        if isinstance(error, PermanentError):
            await self._answer_refusal(step, error, what, parked_s)
        else:
            await self._answer_temporary(step, error, what)

    async def _answer_temporary(self, step: Step, error: TemporaryError, what: After) -> None:
        batch, claim = step.batch, step.claim
        match what:
            case After.LOOK_AGAIN:
                if self._waits.is_news(batch, error.recorded, step.now):
                    self._telemetry.log("step_waits", batch=batch, reason=error.recorded)
                await claim.release(error.delay_s or 0.0)
            case After.WAIT:
                delay_s = error.delay_s or 0.0
                away = isinstance(error, Waiting) and error.away
                await claim.hold(delay_s, error.recorded, away=away)
                if held.is_news(batch, error.recorded, step.now):
                    self._telemetry.log(
                        "batch_held", batch=batch, reason=error.recorded, delay_s=round(delay_s, 2)
                    )
            case After.END_UNSUBMITTED:
                await self._end_unsubmitted(step, error)
            case After.END_UNREAD:
                await self._end_unread(step, error)
            case _:
                delay_s = error.delay_s or backoff.pause_s(step.batch.n_stumbles)
                self._telemetry.warn(
                    "step_stumbled", batch=batch, reason=error.recorded, delay_s=round(delay_s, 2)
                )
                await claim.release(delay_s, error.recorded, denied=isinstance(error, Denied))

    async def _answer_refusal(
        self, step: Step, error: PermanentError, what: After, parked_s: float | None
    ) -> None:
        batch, claim = step.batch, step.claim
        why = reasons.parked_sentence(batch, error.recorded, error.status)
        if what is not After.PARK or held.is_news(batch, why, step.now):
            self._telemetry.warn("step_refused", batch=batch, status=error.status, reason=error.recorded)
        match what:
            case After.SEARCH_ONCE_MORE:
                delay_s = backoff.pause_s(batch.n_stumbles + LONGER)
                await claim.release(delay_s, error.recorded, denied=True, create_refused=True)
            case After.PARK:
                delay_s = backoff.parked_pause_s() if parked_s is None else parked_s
                await claim.hold(delay_s, why, parked=True)
            case After.END_CANCELLED:
                reason = (
                    f"cancelled while the key was refused; at {batch.spec.provider} the batch may still run"
                )
                await claim.ended(Outcome.CANCELLED, Ending(), reason)
            case After.END_UNREAD:
                await self._end_unread(step, error)
            case _:
                await self._end_refused(step, error)

    async def _end_unsubmitted(self, step: Step, error: TemporaryError) -> None:
        """Answer the callers of a batch that could not be submitted in time; it is not created again."""
        batch = step.batch
        if submission.may_be_made(batch):
            label = batch.label or submission.label_of(step.settings.namespace, batch.batch_id)
            complaint = reasons.unfound(batch, label, error.recorded)
        else:
            complaint = reasons.unsubmitted(batch, error.recorded)
        self._telemetry.warn("batch_unsubmitted", batch=batch, reason=error.recorded)
        ending = Ending(complaints=(complaint,))
        await step.claim.ended(Outcome.FAILED, ending, complaint.message)

    async def _end_unread(self, step: Step, error: TemporaryError | PermanentError) -> None:
        """Answer the callers of a batch that may be paid for and can no longer be read; no request is run again."""
        complaint = Complaint(code=reasons.UNREADABLE, message=error.recorded)
        ending = Ending(complaints=(complaint,))
        await step.claim.ended(Outcome.FAILED, ending, error.recorded)

    async def _end_defect(self, step: Step, where: str) -> None:
        """Answer the callers of a batch on which our own code fails again and again; no request is run again."""
        if step.batch.state is BatchState.ENDED and reasons.DEFECT.encode() in step.batch.ending:
            # Our code fails even on settling this end.
            await give_up(self._store, step.claim, self._telemetry)
            return
        complaint = reasons.step_defect(step.batch, where)
        ending = Ending(complaints=(complaint,))
        await step.claim.ended(Outcome.FAILED, ending, complaint.message)

    async def _end_refused(self, step: Step, error: PermanentError) -> None:
        body = error.body or json.dumps({"error": {"message": str(error), "type": "batch_error"}}).encode()
        ending = await of_refusal(step, error, body)
        ending = msgspec.structs.replace(ending, certain=not maybe_paid(step.batch) and step.surely_unmade)
        await step.claim.ended(Outcome.FAILED, ending, error.recorded)
