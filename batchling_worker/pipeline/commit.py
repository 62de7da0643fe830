"""Stores which batch a create has made, once it is known."""

from __future__ import annotations

import contextlib
from typing import Final

from redis.exceptions import ResponseError

from batchling_client.wire.keys import ProviderBatchId

from ..decisions import looks
from ..errors import PermanentError, TemporaryError
from .step import AccountStep

SEARCH_FIRST_S: Final = 1.0
"""How soon a batch is searched for whose create was not answered."""
MOST_SHOWN: Final = 100


async def commit(step: AccountStep, provider_batch_id: ProviderBatchId) -> None:
    """Move the batch to `submitted`, unless its id is another batch's or another worker was first."""
    owner = await step.claim.own(provider_batch_id, step.account.digest)
    if owner is not None:
        await _bound_elsewhere(step, provider_batch_id, owner)
        return
    step.reach("submit.owned")
    first_look_s = looks.first_look_s(step.batch, step.settings.poll_interval_s)
    other = await step.claim.submitted(provider_batch_id, first_look_s, step.account.digest)
    if other:
        await cancel_surplus(step, provider_batch_id)
        return
    step.reach("submit.committed")
    step.telemetry.submitted(step.batch, provider_batch_id)


async def _bound_elsewhere(step: AccountStep, provider_batch_id: ProviderBatchId, owner: str) -> None:
    """Conclude nothing from an answer that shows another batch: this batch may have been created, so search for it."""
    reason = (
        f"{step.provider.facts.name} answered with {provider_batch_id[:MOST_SHOWN]}, which is batch {owner} of this "
        "deployment: a cache on the way may have sent that answer, so this batch is searched for"
    )
    step.telemetry.warn("step_stumbled", batch=step.batch, reason=reason, delay_s=SEARCH_FIRST_S)
    await step.claim.release(SEARCH_FIRST_S, reason)


async def cancel_surplus(step: AccountStep, provider_batch_id: ProviderBatchId) -> None:
    """Cancel a second batch of the same rows, which a create made that arrived twice: it would be paid for as well."""
    step.telemetry.warn("surplus_batch_cancelled", batch=step.batch, provider_batch_id=provider_batch_id)
    # Only people read the count: a full Redis must not keep the batch from being cancelled.
    with contextlib.suppress(ResponseError):
        await step.claim.count_surplus(provider_batch_id)
    with contextlib.suppress(PermanentError):
        await step.provider.cancel(step.account, provider_batch_id)


def say_stumbled(step: AccountStep, error: TemporaryError, delay_s: float) -> None:
    """Log an error that is tried again."""
    step.telemetry.warn("step_stumbled", batch=step.batch, reason=error.recorded, delay_s=round(delay_s, 2))
