"""Settle: every request that an ended batch left unanswered goes into another batch or is answered with an error."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from batchling_client.wire.keys import RequestId
from batchling_client.wire.records import Result, Row
from batchling_client.wire.scripts import BatchCap, RowIn, RowOut
from batchling_client.wire.states import Outcome, RowKind

from .. import lifecycle, quota
from ..provider import Ending
from ..step import Step

LINGER_MS: Final = 500
LONGEST_MS: Final = 5_000


async def settle(step: Step) -> None:
    """Takes a collected batch from `ended` to a terminal state; afterwards nobody waits on it.

    May be torn off and begun again: a request that has moved or is answered is no longer this batch's.
    """
    batch = step.batch
    ending = Ending.decode(batch.ending)
    n_requeued = n_refused = 0
    if batch.reopened_at is not None:
        n_refused = await _refused_again(step, ending)
    async for rows in step.store.unanswered(batch.batch_id):
        again: dict[lifecycle.Requeue, list[RowIn]] = {}
        refused: list[RowOut] = []
        for row in rows:
            match _fate(step, ending, row):
                case lifecycle.Requeue() as fate:
                    again.setdefault(fate, []).append(_again(row, fate))
                case lifecycle.Refuse() as fate:
                    refused.append(_refusal(row.request_id, fate))
        kept = _kept(step, rows, refused)
        if kept:
            await step.store.keep(step.held, kept)
            step.reach("settle.kept")
        if refused:
            await step.store.deliver(step.held, refused)
            n_refused += len(refused)
        for fate, moved in again.items():
            await step.store.requeue(step.held, batch, moved, await _cap(step, ending, fate))
            n_requeued += len(moved)
            step.reach("settle.requeued")
        step.reach("settle.chunk")
    step.reach("settle.walked")
    state = lifecycle.terminal_state(batch.outcome)
    await step.store.settle(step.held, state)
    step.reach("settle.settled")
    step.telemetry.settled(batch, state, n_requeued=n_requeued, n_refused=n_refused)


def _fate(step: Step, ending: Ending, row: Row) -> lifecycle.RowFate:
    """What becomes of a row; one that our own code fails on is told so, and the others go on."""
    try:
        return lifecycle.row_fate(step.batch, ending, row.request_id, row.attempt, step.knobs.max_attempts)
    except Exception as error:  # noqa: BLE001 - a defect of ours with one row must not hold up the others for ever
        name = type(error).__name__
        step.telemetry.warn("row_failed", batch_id=step.batch.batch_id, step="settle", error=name)
        return lifecycle.defect(name)


def _again(row: Row, fate: lifecycle.Requeue) -> RowIn:
    attempt = row.attempt + 1 if fate.counts else row.attempt
    return RowIn(
        request_id=row.request_id,
        packed=row.next_attempt(attempt),
        size=row.size,
        attempt=attempt,
    )


def _kept(step: Step, rows: Sequence[Row], refused: Sequence[RowOut]) -> list[RequestId]:
    """Requests that the provider may yet prove to have answered, so that `batchling retry` can read the batch again."""
    if step.batch.provider_batch_id is None:
        return []
    if step.batch.outcome in (Outcome.COMPLETED, Outcome.LOST):
        return [row.request_id for row in rows]
    return [row.request_id for row in refused]


async def _refused_again(step: Step, ending: Ending) -> int:
    """Answers every request with an error that a reopened batch has left open once more; none of them is run again."""
    n_refused, most = 0, step.knobs.max_attempts
    async for request_ids in step.store.adopted(step.batch.batch_id):
        refused = []
        for request_id in request_ids:
            fate = lifecycle.row_fate(step.batch, ending, request_id, most, most)
            if isinstance(fate, lifecycle.Requeue):
                fate = lifecycle.unanswered(step.batch)
            refused.append(_refusal(request_id, fate))
        if refused:
            await step.store.deliver(step.held, refused)
            n_refused += len(refused)
    return n_refused


def _refusal(request_id: RequestId, fate: lifecycle.Refuse) -> RowOut:
    headers = {"content-type": "application/json"}
    packed = Result.pack(
        kind=RowKind.FAILURE, status=fate.status, headers=headers, body=fate.body, origin=fate.origin
    )
    return RowOut(request_id=request_id, kind=RowKind.FAILURE, packed=packed)


async def _cap(step: Step, ending: Ending, fate: lifecycle.Requeue) -> BatchCap:
    batch, facts = step.batch, step.provider.facts
    size = quota.Size(rows=facts.max_rows, n_bytes=facts.max_bytes)
    if batch.outcome is Outcome.SPLIT or lifecycle.over_quota(ending) is not None:
        size = quota.next_size(batch, await _limit(step))
    elif fate.halved:
        n_sent = batch.n_lines or batch.n_requests
        size = quota.Size(rows=max(1, n_sent // 2), n_bytes=facts.max_bytes)
    wait_ms = int(fate.wait_s * 1000)
    return BatchCap(
        rows=min(size.rows, facts.max_rows),
        bytes=min(size.n_bytes, facts.max_bytes),
        linger_ms=LINGER_MS + wait_ms,
        longest_ms=LONGEST_MS + wait_ms,
    )


async def _limit(step: Step) -> int | None:
    """The limit of enqueued tokens that is known by now; for a batch that counted against none, its own size."""
    if not step.batch.quota_id:
        return quota.tokens_of(step.batch)
    return (await step.store.standing.quota_of(step.batch.quota_id)).limit
