"""Admits batches to the quota of enqueued tokens of their account, and learns its limit from refusals."""

from __future__ import annotations

import dataclasses

from batchling_client.wire.states import Outcome, Verdict

from .. import account_store
from ..decisions import looks, patience, quota
from ..errors import PermanentError, QuotaFull, StaleClaim, Waiting
from ..provider import Ending, error_body
from . import unsubmitted
from .step import AccountStep


async def admitted(step: AccountStep) -> bool:
    """Return whether the batch was admitted; raise `Waiting` while a person has paused it, or its quota has no room.

    A batch that is larger than the limit ends here, before it is sent: its requests continue in smaller batches.
    """
    batch, account = step.batch, step.account
    look_s = looks.held_look_s(batch, step.settings.poll_interval_s, step.now)
    pause = await step.store.accounts.paused(batch)
    if pause is not None:
        raise Waiting(pause.why, delay_s=look_s)
    admission = await step.store.accounts.admit(batch, step.claim.token, account.digest, look_s)
    match admission.verdict:
        case Verdict.OK:
            return True
        case Verdict.LARGE:
            tokens = quota.tokens_of(batch)
            why = f"split: about {tokens:,} tokens are over the limit of {admission.limit:,} enqueued tokens"
            step.telemetry.log("batch_split", batch=batch, tokens=tokens, limit=admission.limit)
            await step.claim.ended(Outcome.SPLIT, Ending(certain=step.surely_unmade), why)
            return False
        case Verdict.HELD:
            held_s = max(0.0, admission.held_until_ms / 1000 - step.now.timestamp())
            raise Waiting(account_store.words_of_wait(admission, held_s), delay_s=max(held_s, look_s))
        case _:
            raise StaleClaim(batch.batch_id)


async def wait_for_room(step: AccountStep, error: QuotaFull) -> None:
    """Learn the limit from a create that was refused for the quota, and let the sealed batch wait."""
    refusal = quota.refusal_in(str(error)) or quota.Refusal(why=str(error), limit=None)
    batch = step.batch
    if not batch.quota_id:
        batch = dataclasses.replace(batch, quota_id=quota.quota_id(step.account.digest, batch.spec.model))
    quota_verdict = await step.store.accounts.teach(batch, refusal)
    step.telemetry.log("quota_refused", batch=batch, alone=quota_verdict.alone, reason=refusal.why)
    if quota_verdict.hopeless:
        body = error_body("token_limit_exceeded", refusal.why)
        raise PermanentError(refusal.why, status=429, body=body)
    if patience.submission_is_over(batch, step.now):
        await unsubmitted.end_in_vain(step, refusal.why)
        return
    look_s = looks.held_look_s(batch, step.settings.poll_interval_s, step.now)
    await step.claim.hold(look_s, f"held: {refusal.why}", unmade=True)
