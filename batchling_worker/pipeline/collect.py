"""Collect: the results of an ended batch are streamed and delivered, a chunk at a time, until none is missing."""

from __future__ import annotations

import contextlib
from collections.abc import Set as AbstractSet
from typing import Final

import msgspec

from batchling_client.wire.keys import RequestId
from batchling_client.wire.records.batch import Batch
from batchling_client.wire.records.row_and_result import Row
from batchling_client.wire.states import Outcome, RowKind

from ..decisions import fates, held, reasons, rereading
from ..decisions.rereading import Complete, ReadAgain, Reading
from ..errors import PermanentError, TemporaryError
from ..provider import Complaint, Ended, Ending, NotFound, Running
from . import requeueing
from .result_chunks import chunks
from .step import AccountStep, Step

MOST_REFUSED: Final = 10_000
"""How many rows of a held batch one reading requeues: their ids are kept in memory meanwhile."""


def needs_account(batch: Batch) -> bool:
    """Return whether an ended batch may have results, so that its provider is called."""
    return bool(Ending.decode(batch.ending).results) or (
        batch.n_unread > 0 and batch.provider_batch_id is not None
    )


async def collect(step: AccountStep) -> None:
    """Deliver every readable result of an ended batch; may be interrupted and begun again at any row.

    An answered request is left alone, so nothing is delivered twice; memory is that of one chunk. If the results lack
    rows that the provider may have answered, the batch becomes due again and is looked at and read again.
    """
    ending, running = Ending.decode(step.batch.ending), False
    if step.batch.n_unread and step.batch.provider_batch_id is not None:
        ending, running = await _looked_again(step, ending)
    refused: set[RequestId] = set()
    reading = await _read(step, ending, refused, running=running)
    if reading is None:
        await _too_much(step, ending)
        return
    await _judged(step, ending, reading, refused)


async def collect_nothing(step: Step) -> None:
    """Conclude the reading of an ended batch that has no results, without its account."""
    await _judged(step, Ending.decode(step.batch.ending), Reading(), set())


async def _judged(step: Step, ending: Ending, reading: Reading, refused: AbstractSet[RequestId]) -> None:
    step.reach("collect.delivered")
    tally = await step.store.tally(step.batch, n_retry=reading.n_retry)
    match rereading.judge(step.batch, ending, reading, tally, step.settings.results_patience_s):
        case Complete():
            if not step.settings.keeps_files and not rereading.in_doubt(step.batch, ending, reading, tally):
                await step.claim.spend()
            await _collected(step, ending, reading)
        case ReadAgain() as again if rereading.is_over(step.batch, step.now):
            await _given_up(step, again.why)
        case ReadAgain() as again:
            if again.held and refused:
                await _requeue_refused(step, ending, refused)
            await _read_again(step, ending, again)


async def _looked_again(step: AccountStep, ending: Ending) -> tuple[Ending, bool]:
    """Return the references and counts that the batch itself shows now, and whether it is shown as running."""
    provider_batch_id = step.batch.provider_batch_id
    if provider_batch_id is None:
        return ending, False
    try:
        shown = await step.provider.look(step.account, [provider_batch_id])
        seen = step.own(shown.get(provider_batch_id, NotFound()))
    except (TemporaryError, PermanentError):
        # The known files may be readable all the same.
        return ending, False
    if not isinstance(seen, Ended):
        # A batch that is no longer found may still have files.
        return ending, isinstance(seen, Running)
    fresh = seen.ending
    return msgspec.structs.replace(
        ending,
        results=fresh.results or ending.results,
        n_succeeded=ending.n_succeeded if fresh.n_succeeded is None else fresh.n_succeeded,
    ), False


async def _read(
    step: AccountStep, ending: Ending, refused: set[RequestId], *, running: bool
) -> Reading | None:
    """Deliver what the result files hold; add the requests whose row asks for another attempt to `refused`.

    Return None once the answers of the batch take as many bytes in Redis as they may.
    """
    if step.batch.n_answer_bytes > step.settings.batch_answers_bytes:
        return None
    n_too_large = 0
    n_answered = n_retry = n_unknown = n_ok = n_foreign = 0
    failure: PermanentError | TemporaryError | None = None
    try:
        some = chunks(step, ending)
        async with contextlib.aclosing(some):
            async for chunk in some:
                n_foreign += chunk.n_foreign
                if not chunk.rows:
                    continue
                n_too_large += len(chunk.too_large)
                if chunk.too_large:
                    # They are answered with an error, and the batch can be read again for them.
                    await step.claim.keep(chunk.too_large)
                reply = await step.claim.deliver(chunk.rows)
                if reply.n_answer_bytes > step.settings.batch_answers_bytes:
                    return None
                n_answered, n_retry = n_answered + reply.n_answered, n_retry + reply.n_retry
                n_unknown, n_ok = n_unknown + reply.n_unknown, n_ok + chunk.n_ok
                if len(refused) < MOST_REFUSED:
                    refused.update(row.request_id for row in chunk.rows if row.kind is RowKind.RETRY)
                step.reach("collect.chunk")
    except PermanentError as error:
        if not n_answered + n_retry + n_unknown:
            # No file can be read: the provider refuses the key, or a proxy the call.
            raise
        failure = error
    except TemporaryError as error:
        failure = error
    if failure is not None and step.estranged:
        # They are files of another account: that this account cannot read them says nothing about them.
        raise step.estrangement()
    return Reading(
        n_answered=n_answered,
        n_retry=n_retry,
        n_unknown=n_unknown,
        n_ok=n_ok,
        n_foreign=n_foreign,
        n_too_large=n_too_large,
        failure=failure,
        running=running,
    )


async def _too_much(step: Step, ending: Ending) -> None:
    """End a batch whose answers take all the bytes that they may: what was not stored stays at the provider."""
    if not (await step.store.tally(step.batch, n_retry=0)).n_left:
        await _collected(step, ending, Reading())
        return
    complaint = reasons.too_much(step.batch, step.settings.batch_answers_bytes)
    step.telemetry.warn("batch_answers_too_large", batch=step.batch)
    await step.claim.ended(Outcome.FAILED, Ending(complaints=(complaint,)), complaint.message)


async def _collected(step: Step, ending: Ending, reading: Reading) -> None:
    outcome = step.batch.outcome or Outcome.FAILED
    await step.claim.collected(reasons.error_sentence(ending, outcome), reading.n_retry)
    step.reach("collect.recorded")
    step.telemetry.log(
        "batch_collected",
        batch=step.batch,
        n_answered=reading.n_answered,
        n_retry=reading.n_retry,
        n_unknown=reading.n_unknown,
    )


async def _requeue_refused(step: Step, ending: Ending, refused: AbstractSet[RequestId]) -> None:
    """Run rows of a held batch again that a readable file refuses, without waiting for the unreadable file."""
    if step.batch.reopened_at is not None:
        return
    async for rows in step.store.unanswered(step.batch.batch_id):
        again: dict[fates.Requeue, list[Row]] = {}
        for row in rows:
            fate = requeueing.fate_of(step, ending, row) if row.request_id in refused else None
            if isinstance(fate, fates.Requeue):
                again.setdefault(fate, []).append(row)
        for fate, moved in again.items():
            await requeueing.requeue(step, ending, moved, fate, refused=True)


async def _read_again(step: Step, ending: Ending, again: ReadAgain) -> None:
    event = "results_held" if again.held else "results_incomplete"
    if not again.held or held.is_news(step.batch, again.why, step.now):
        step.telemetry.warn(event, batch=step.batch, reason=again.why, delay_s=round(again.delay_s, 2))
    await step.claim.unread(again.delay_s, ending, again.why, held_back=again.held)
    step.reach("collect.unread")


async def _given_up(step: Step, why: str) -> None:
    """End a batch whose results stayed unreadable until the provider no longer keeps them."""
    ending = Ending(complaints=(Complaint(code=reasons.UNREADABLE, message=why),))
    await step.claim.ended(Outcome.FAILED, ending, why)
