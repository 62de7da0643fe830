"""Submit: a sealed batch is uploaded and created at the provider, once, whatever dies in between."""

from __future__ import annotations

from batchling_client.wire.states import Outcome

from ..decisions import patience, reasons, submission
from ..decisions.submission import Move, Trace
from ..errors import CreateBegun, NotYet
from ..provider import Ending
from . import input_file, unsubmitted
from .admission import admitted
from .commit import SEARCH_FIRST_S, cancel_surplus, commit
from .create import create
from .step import AccountStep


async def submit(step: AccountStep) -> None:
    """Move a batch from `sealed` or `submitting` to `submitted`, or to `ended` if there is nothing to send.

    Each call that may cost money is recorded before it is sent, so that a later worker searches before it pays.
    """
    batch = step.batch
    trace = submission.trace_of(batch)
    move = submission.first(trace, cancelled=batch.cancel_requested)
    if move is Move.CANCEL:
        await unsubmitted.end(step, Outcome.CANCELLED, Ending(certain=True))
        return
    # A batch that waits for room stays sealed, so that its requests can be withdrawn.
    if move is Move.CREATE and not await admitted(step):
        return
    label = await step.claim.intend(submission.label_of(step.settings.namespace, batch.batch_id))
    step.reach("submit.intended")
    if move is Move.SEARCH and not (await _is_unfound(step, label, trace) and await admitted(step)):
        return
    async with input_file.readied(step, label) as readied:
        if readied.n_lines == 0:
            await unsubmitted.end(step, Outcome.COMPLETED, Ending())
            return
        facts = step.provider.facts
        if readied.n_lines < facts.min_rows:
            ending = reasons.too_few_rows(facts.name, readied.n_lines, facts.min_rows)
            await unsubmitted.end(step, Outcome.FAILED, ending)
            return
        await create(step, step.submission(label, readied.n_lines), readied.source)


async def _is_unfound(step: AccountStep, label: str, trace: Trace) -> bool:
    """Search for the batch of an earlier create; return whether there is none and the step is to create it."""
    if await _found(step, label):
        return False
    batch = step.batch
    is_over = patience.submission_is_over(batch, step.now)
    move = submission.unfound(trace, cancelled=batch.cancel_requested, is_over=is_over)
    match move:
        case Move.DOUBT:
            await _wait_for_the_forgotten(step)
        case Move.CANCEL:
            await unsubmitted.end(step, Outcome.CANCELLED, Ending())
        case Move.END:
            await unsubmitted.end_in_vain(step, batch.error)
        case _:
            return True
    return False


async def _found(step: AccountStep, label: str) -> bool:
    """Adopt the batch of an earlier create whose answer was lost; wait while it may still appear."""
    batch = step.batch
    try:
        made = await step.provider.find(step.account, step.criteria(label))
    except CreateBegun as begun:
        await _go_on_in(step, begun.file_id)
        raise NotYet(str(begun), delay_s=SEARCH_FIRST_S) from None
    step.reach("submit.searched")
    if made:
        step.telemetry.log("batch_found_again", batch=batch, provider_batch_id=made[0])
        for surplus in made[1:]:
            await cancel_surplus(step, surplus)
        await commit(step, made[0])
        return True
    if step.estranged:
        if batch.cancel_requested:
            return False
        raise step.estrangement()
    if step.provider.facts.repeatable and batch.input_file_id:
        return False
    if not patience.may_create_again(batch, step.settings.reconcile_patience_s, step.now):
        delay_s = patience.search_pause_s(batch, step.settings.reconcile_patience_s, step.now)
        raise NotYet("a create was not answered with its batch; searching for it", delay_s=delay_s)
    return False


async def _go_on_in(step: AccountStep, file_id: str) -> None:
    """Store where a create was begun that a killed Redis had forgotten."""
    account = step.account.digest
    await step.claim.uploaded(file_id, step.batch.n_lines, account)
    await step.claim.arm(account)


async def _wait_for_the_forgotten(step: AccountStep) -> None:
    """Wait for a create of an earlier run of Redis, which may still be on its way or not be listed yet."""
    delay_s = patience.forgotten_patience_s(step.settings.reconcile_patience_s)
    step.telemetry.warn("redis_forgetful", batch=step.batch, delay_s=delay_s)
    await step.claim.doubt()
    await step.claim.release(delay_s)
