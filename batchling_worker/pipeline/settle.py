"""Settle: every request that an ended batch left unanswered goes into another batch or is answered with an error."""

from __future__ import annotations

from collections.abc import Sequence

from batchling_client.wire.keys import RequestId
from batchling_client.wire.records.row_and_result import Row
from batchling_client.wire.scripts import RowOut
from batchling_client.wire.states import Outcome

from ..decisions import fates
from ..errors import NotYet
from ..provider import Ending
from . import requeueing
from .outgoing import refusal
from .step import Step


async def settle(step: Step) -> None:
    """Move a collected batch from `ended` to a terminal state; afterwards nobody waits for it.

    May be interrupted and begun again: a request that has moved or is answered no longer belongs to this batch.
    """
    batch = step.batch
    if batch.collected_at is None:
        raise NotYet("the results are not collected yet", delay_s=0.1)
    ending = Ending.decode(batch.ending)
    n_requeued = n_refused = 0
    if batch.reopened_at is not None:
        n_refused = await _refused_again(step, ending)
    async for rows in step.store.unanswered(batch.batch_id):
        again: dict[fates.Requeue, list[Row]] = {}
        refused: list[RowOut] = []
        for row in rows:
            match requeueing.fate_of(step, ending, row):
                case fates.Requeue() as fate:
                    again.setdefault(fate, []).append(row)
                case fates.Refuse() as fate:
                    refused.append(
                        refusal(
                            row.request_id,
                            status=fate.status,
                            body=fate.body,
                            origin=fate.origin,
                            cipher=step.cipher,
                        )
                    )
        kept = _kept(step, rows, refused)
        if kept:
            await step.claim.keep(kept)
            step.reach("settle.kept")
        if refused:
            await step.claim.deliver(refused)
            n_refused += len(refused)
        for fate, moved in again.items():
            await requeueing.requeue(step, ending, moved, fate)
            n_requeued += len(moved)
            step.reach("settle.requeued")
        step.reach("settle.chunk")
    step.reach("settle.walked")
    state = fates.terminal_state(batch.outcome)
    await step.claim.settle(state)
    step.reach("settle.settled")
    step.telemetry.settled(batch, state, n_requeued=n_requeued, n_refused=n_refused)


def _kept(step: Step, rows: Sequence[Row], refused: Sequence[RowOut]) -> list[RequestId]:
    """Return requests that the provider may have answered, so that `batchling retry` can read the batch again."""
    if step.batch.provider_batch_id is None:
        return []
    if step.batch.outcome in (Outcome.COMPLETED, Outcome.LOST):
        return [row.request_id for row in rows]
    return [row.request_id for row in refused]


async def _refused_again(step: Step, ending: Ending) -> int:
    """Answer every request that a reopened batch has left open once more with an error; none is run again."""
    n_refused, most = 0, step.settings.max_attempts
    async for request_ids in step.store.adopted(step.batch.batch_id):
        refused = []
        for request_id in request_ids:
            fate = fates.row_fate(step.batch, ending, request_id, most, most)
            if isinstance(fate, fates.Requeue):
                fate = fates.unanswered(step.batch)
            refused.append(
                refusal(
                    request_id, status=fate.status, body=fate.body, origin=fate.origin, cipher=step.cipher
                )
            )
        if refused:
            await step.claim.deliver(refused)
            n_refused += len(refused)
    return n_refused
