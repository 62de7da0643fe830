"""Collect: the results of an ended batch are read as a stream and delivered, a chunk at a time."""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncIterator
from typing import Final

from batchling_client.wire.keys import RequestId
from batchling_client.wire.records import Result
from batchling_client.wire.scripts import RowOut

from .. import lifecycle
from ..provider import Answer, Ending
from ..step import Step

CHUNK_ROWS: Final = 128
CHUNK_BYTES: Final = 1024 * 1024
REQUEST_ID: Final = re.compile(r"[a-z2-7]{26}")


async def collect(step: Step) -> None:
    """Delivers every readable result of an ended batch; may be torn off and begun again at any row.

    A request that is answered already is left alone, so nothing is delivered twice; memory is that of one chunk.
    """
    ending = Ending.decode(step.batch.ending)
    n_answered = n_retry = n_unknown = 0
    async for chunk in _chunks(step, ending):
        reply = await step.store.deliver(step.held, chunk)
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


async def _chunks(step: Step, ending: Ending) -> AsyncIterator[list[RowOut]]:
    if not ending.results:
        return
    chunk: list[RowOut] = []
    size = 0
    async with contextlib.aclosing(step.provider.results(step.way(), ending)) as answers:
        async for answer in answers:
            row = _outgoing_or_none(step, answer)
            if row is None:
                continue
            chunk.append(row)
            size += len(row.packed)
            if len(chunk) >= CHUNK_ROWS or size >= CHUNK_BYTES:
                yield chunk
                chunk, size = [], 0
    if chunk:
        yield chunk


def _outgoing_or_none(step: Step, answer: Answer) -> RowOut | None:
    try:
        return _outgoing(answer)
    except Exception as error:  # noqa: BLE001 - a defect of ours with one row must not hold up the others for ever
        step.telemetry.warn(
            "row_failed", batch_id=step.batch.batch_id, step="collect", error=type(error).__name__
        )
        return None


def _outgoing(answer: Answer) -> RowOut | None:
    """The row as it is stored, or None for one that names no request of ours."""
    if REQUEST_ID.fullmatch(answer.custom_id) is None:
        return None
    kind = lifecycle.row_kind(answer)
    packed = Result.pack(
        kind=kind, status=answer.status, headers=answer.headers, body=answer.body, origin=answer.origin
    )
    return RowOut(request_id=RequestId(answer.custom_id), kind=kind, packed=packed)
