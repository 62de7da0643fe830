"""Poll: running batches are looked at, as many with one call as their provider allows."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import TypeAlias, assert_never

import msgspec

from batchling_client.wire.deployment.connection import UNREACHABLE
from batchling_client.wire.records.batch import EarlyRead
from batchling_client.wire.states import Outcome, RowKind

from ..decisions import fates, looks, patience, reasons, submission
from ..dialects.poll_many import LOOKS_TOGETHER
from ..errors import Denied, PermanentError, StaleClaim, TemporaryError, WorkerError
from ..provider import Ended, Ending, NotFound, Running, Seen
from .blamed_rows import named
from .commit import cancel_surplus
from .result_chunks import chunks
from .step import AccountStep, Step

Passage: TypeAlias = Callable[[], AbstractAsyncContextManager[None]]
"""Opens a block in which the account of a step may be called."""


async def look(steps: Sequence[AccountStep]) -> list[Seen]:
    """Look at batches of one account; return the answers in the order of the steps.

    The batches whose last single look is longest ago come first, because a list may be out of date for some of them.
    """
    first = steps[0]
    turns = [step.batch.provider_batch_id for step in sorted(steps, key=lambda step: looks.turn(step.batch))]
    try:
        shown = await first.provider.look(first.account, [one for one in turns if one])
    except (TemporaryError, PermanentError) as error:
        return [error] * len(steps)
    ids = [step.batch.provider_batch_id for step in steps]
    seen = [
        step.own(shown.get(one, NotFound())) if one else NotFound()
        for step, one in zip(steps, ids, strict=True)
    ]
    room = asyncio.Semaphore(LOOKS_TOGETHER)
    return list(
        await asyncio.gather(*(_surely(step, one, room) for step, one in zip(steps, seen, strict=True)))
    )


async def _surely(step: AccountStep, seen: Seen, room: asyncio.Semaphore) -> Seen:
    """If a list shows more early results, ask the batch itself where they are; else there is nothing to read."""
    batch = step.batch
    if not isinstance(seen, Running) or not seen.listed or seen.early is None:
        return seen
    if looks.early_is_due(batch, seen) and batch.provider_batch_id:
        with contextlib.suppress(TemporaryError, PermanentError):
            async with room:
                shown = await step.provider.look(step.account, [batch.provider_batch_id])
                return step.own(shown[batch.provider_batch_id])
    return dataclasses.replace(seen, early=None)


async def poll(step: AccountStep, seen: Seen, passage: Passage = nullcontext) -> None:
    """Move a batch from `submitted` to `ended`, or schedule the next look; deliver early results."""
    if isinstance(seen, TemporaryError | PermanentError):
        await unseen(step, seen)
        return
    batch = step.batch
    await _adopt(step)
    if not isinstance(seen, Ended) and patience.cancel_is_over(batch, step.now):
        await _end_unconfirmed(step)
        return
    if submission.doubles_are_due(batch, step.now) and isinstance(seen, Running | Ended):
        await _cancel_surplus(step)
    match seen:
        case Exception():
            raise seen
        case NotFound():
            await _not_found(step)
        case Ended():
            step.reach("poll.ended")
            error = (
                "" if seen.outcome is Outcome.COMPLETED else reasons.error_sentence(seen.ending, seen.outcome)
            )
            told = await _taught(step, await named(step, seen.ending))
            ending = msgspec.structs.replace(told, certain=True)
            await step.claim.ended(seen.outcome, ending, error, status=seen.status)
            step.reach("poll.recorded")
            step.telemetry.ended(batch, seen.outcome)
        case Running():
            asked = patience.cancel_is_due(batch, step.now)
            if asked:
                await _ask_to_cancel(step)
            early = await _early(step, seen, passage)
            if patience.run_is_over(batch, seen.status, step.now):
                await _end_overdue(step, seen)
                return
            await step.claim.progress(
                seen.status,
                seen.n_done,
                seen.n_total,
                _pause_s(step),
                early,
                listed=seen.listed,
                cancel_asked=asked,
                why=reasons.why_it_runs(batch, seen.status),
            )
            step.reach("poll.progressed")
            step.telemetry.progress(batch, seen)
        case _:
            assert_never(seen)


async def _cancel_surplus(step: AccountStep) -> None:
    """Cancel a second batch that a gateway made when it sent the create again by itself, and answered with one of them.

    A list that does not show the batch itself may use other ids, and proves nothing.
    """
    batch, ours = step.batch, step.batch.provider_batch_id
    if step.account.own_host or not step.provider.facts.searchable or batch.reopened_at is not None:
        return
    with contextlib.suppress(TemporaryError, PermanentError):
        made = await step.provider.find(step.account, step.criteria(batch.label))
        for one in made:
            if one != ours and ours in made:
                await cancel_surplus(step, one)


async def unseen(step: Step, error: TemporaryError | PermanentError) -> None:
    """Handle a look that failed, at this batch or at all batches of its account.

    A paid batch whose key was revoked is left to the engine, which parks it.
    """
    await _adopt(step)
    if patience.cancel_is_over(step.batch, step.now):
        await _end_unconfirmed(step)
    elif isinstance(error, PermanentError) and step.estranged:
        await _out_of_sight(step)
    else:
        raise error


def _pause_s(step: AccountStep) -> float:
    return looks.next_look_s(
        step.batch,
        step.settings.poll_interval_s,
        step.now,
        step.least_look_s,
        account=step.account.digest,
        elapsed_s=step.elapsed_s,
        unnamed=step.settings.poll_unnamed,
    )


async def _adopt(step: Step) -> None:
    """Put the requests that a reopened batch had left unanswered back in flight in it, once."""
    if step.batch.reopened_at is None or step.batch.adopted:
        return
    lane_id = step.batch.lane_id
    async for request_ids in step.store.kept(step.batch.batch_id):
        await step.claim.adopt(lane_id, request_ids)
        step.reach("poll.adopting")
    await step.claim.adopt(lane_id, (), last=True)
    step.reach("poll.adopted")


async def _early(step: AccountStep, seen: Running, passage: Passage) -> EarlyRead:
    """Deliver the rows that have succeeded so far; return how far they were read, for the next look.

    A failed row may still succeed, so it is delivered when the batch has ended, as are rows that cannot be read here.
    An error of this reading never fails the look.
    """
    read = step.batch.early
    most = step.settings.batch_answers_bytes
    if seen.early is None or not looks.early_is_due(step.batch, seen) or step.batch.n_answer_bytes > most:
        return read
    ending = msgspec.structs.replace(seen.early, after=read.cursor)
    n_answered = 0
    try:
        async with passage(), contextlib.aclosing(chunks(step, ending, RowKind.SUCCESS)) as some:
            async for chunk in some:
                if chunk.rows:
                    reply = await step.claim.deliver(chunk.rows)
                    n_answered += reply.n_answered
                    step.reach("poll.early_chunk")
                    if reply.n_answer_bytes > most:
                        break
                read = msgspec.structs.replace(read, cursor=chunk.cursor)
        read = msgspec.structs.replace(read, n_done=seen.n_done)
        step.reach("poll.early_read")
    except (StaleClaim, *UNREACHABLE):
        raise
    except Exception as error:  # noqa: BLE001 - of an unforeseen error only the kind is logged: its text may hold a key
        if isinstance(error, PermanentError):
            # The provider may have refused the cursor.
            read = msgspec.structs.replace(read, cursor="")
        reason = error.recorded if isinstance(error, WorkerError) else type(error).__name__
        step.telemetry.warn("early_not_read", batch=step.batch, reason=reason)
    if n_answered:
        step.telemetry.log("early_delivered", batch=step.batch, n_answered=n_answered)
    return read


async def _taught(step: Step, ending: Ending) -> Ending:
    """Learn the limit from a batch that failed for the quota of enqueued tokens, before its requests are requeued."""
    refusal = fates.over_quota(ending)
    if refusal is None or not step.batch.quota_id:
        return ending
    quota_verdict = await step.store.accounts.teach(step.batch, refusal)
    step.telemetry.log("quota_refused", batch=step.batch, alone=quota_verdict.alone, reason=refusal.why)
    return msgspec.structs.replace(ending, hopeless=quota_verdict.hopeless)


async def _out_of_sight(step: Step) -> None:
    """Wait for the account that created the batch, unless a person has cancelled the batch."""
    if not step.batch.cancel_requested:
        raise step.estrangement()
    reason = "cancelled; under the key or host that created it, the batch may still run"
    await step.claim.ended(Outcome.CANCELLED, Ending(), reason)


async def _not_found(step: AccountStep) -> None:
    if step.estranged:
        await _out_of_sight(step)
        return
    reopened = step.batch.reopened_at is not None
    if not reopened and (not patience.given_up(step.batch, step.now) or await _is_listed(step)):
        raise Denied("the provider does not know this batch (yet)", delay_s=step.settings.poll_interval_s)
    step.telemetry.warn("batch_lost", batch=step.batch)
    reason = "the provider no longer knows this batch"
    await step.claim.ended(Outcome.LOST, Ending(), reason)


async def _end_unconfirmed(step: Step) -> None:
    """Answer the callers of a batch whose cancel the provider does not confirm."""
    batch = step.batch
    step.telemetry.warn("cancel_unconfirmed", batch=batch, n_cancels=batch.n_cancels)
    reason = reasons.unconfirmed_sentence(batch)
    await step.claim.ended(Outcome.CANCELLED, Ending(), reason)


async def _end_overdue(step: Step, seen: Running) -> None:
    """Answer the callers of a batch that should have ended long ago; none of its requests is run again."""
    complaint = reasons.overdue(step.batch, seen.status)
    step.telemetry.warn("batch_overdue", batch=step.batch, status=seen.status)
    ending = Ending(complaints=(complaint,))
    await step.claim.ended(Outcome.FAILED, ending, complaint.message, status=seen.status)


async def _is_listed(step: AccountStep) -> bool:
    """Return whether a search shows a batch that a look does not; if the search is refused, the key caused the 404s.

    If only rows can identify it, a listed batch that cannot be looked at is an error: it may be this batch.
    """
    return bool(await step.provider.find(step.account, step.criteria(step.batch.label)))


async def _ask_to_cancel(step: AccountStep) -> None:
    if step.batch.provider_batch_id is None:
        return
    step.reach("poll.before_cancel")
    try:
        await step.provider.cancel(step.account, step.batch.provider_batch_id)
    except PermanentError as error:
        # It runs on and is paid for, so its results can still be read.
        step.telemetry.warn("step_refused", batch=step.batch, reason=error.recorded)
    step.reach("poll.cancel_asked")
