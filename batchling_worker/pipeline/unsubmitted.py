"""Ends batches that were not submitted."""

from __future__ import annotations

from batchling_client.wire.states import Outcome

from ..decisions import reasons
from ..provider import Ending
from .step import AccountStep


async def end(step: AccountStep, outcome: Outcome, ending: Ending) -> None:
    error = reasons.error_sentence(ending, outcome) if outcome is Outcome.FAILED else ""
    await step.claim.ended(outcome, ending, error)


async def end_in_vain(step: AccountStep, reason: str) -> None:
    """Answer the callers of a batch that the provider surely does not have and that was tried for long enough."""
    complaint = reasons.unsubmitted(step.batch, reason)
    step.telemetry.warn("batch_unsubmitted", batch=step.batch, reason=reason)
    await end(step, Outcome.FAILED, Ending(complaints=(complaint,)))
