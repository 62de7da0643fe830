"""Collect: the results of an ended batch are read as a stream and delivered, a chunk at a time."""

from __future__ import annotations

from ..delivery import chunks
from ..provider import Ending
from ..step import Step


async def collect(step: Step) -> None:
    """Delivers every readable result of an ended batch; may be torn off and begun again at any row.

    A request that is answered already is left alone, so nothing is delivered twice; memory is that of one chunk.
    """
    ending = Ending.decode(step.batch.ending)
    n_answered = n_retry = n_unknown = 0
    async for chunk in chunks(step, ending):
        if not chunk.rows:
            continue
        reply = await step.store.deliver(step.held, chunk.rows)
        n_answered, n_retry = n_answered + reply.n_answered, n_retry + reply.n_retry
        n_unknown += reply.n_unknown
        step.reach("collect.chunk")
    step.reach("collect.delivered")
    await step.store.collected(step.held)
    step.reach("collect.recorded")
    step.telemetry.log(
        "batch_collected",
        batch_id=step.batch.batch_id,
        n_answered=n_answered,
        n_retry=n_retry,
        n_unknown=n_unknown,
    )
