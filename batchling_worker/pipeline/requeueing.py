"""Moves requests of an ended batch into another batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from batchling_client.wire.records.row_and_result import Row
from batchling_client.wire.scripts import BatchCap, RowIn
from batchling_client.wire.states import Outcome

from ..decisions import fates, quota
from ..provider import Ending
from .step import Step

LINGER_MS: Final = 500
LONGEST_MS: Final = 5_000


def fate_of(step: Step, ending: Ending, row: Row) -> fates.RowFate:
    """Return what becomes of a row; if our own code fails on it, it gets an error and holds up no other row."""
    try:
        return fates.row_fate(step.batch, ending, row.request_id, row.attempt, step.settings.max_attempts)
    except Exception as error:  # noqa: BLE001 - a defect of ours with one row must not hold up the others for ever
        name = type(error).__name__
        step.telemetry.warn("row_failed", batch=step.batch, step="settle", error=name)
        return fates.defect(name)


async def requeue(
    step: Step, ending: Ending, rows: Sequence[Row], fate: fates.Requeue, *, refused: bool = False
) -> None:
    """Move rows that share a fate into the open batch of their lane; leave a row alone that has already moved.

    `refused` = the results of the batch hold an error for each of these rows.
    """
    moved = [_again(row, fate) for row in rows]
    why = fates.why_again(step.batch, fate, refused=refused)
    await step.claim.requeue(step.batch, moved, await _cap(step, ending, fate), why)


def _again(row: Row, fate: fates.Requeue) -> RowIn:
    attempt = row.attempt + 1 if fate.counts else row.attempt
    return RowIn(
        request_id=row.request_id,
        packed=row.next_attempt(attempt),
        size=row.size,
        attempt=attempt,
    )


async def _cap(step: Step, ending: Ending, fate: fates.Requeue) -> BatchCap:
    batch, facts = step.batch, step.provider.facts
    size = quota.Size(rows=facts.max_rows, n_bytes=facts.max_bytes)
    if batch.outcome is Outcome.SPLIT or fates.over_quota(ending) is not None:
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
    """Return the limit of enqueued tokens that is known by now; if the batch counted against none, its own size."""
    if not step.batch.quota_id:
        return quota.tokens_of(step.batch)
    return (await step.store.accounts.quota_of(step.batch.quota_id)).limit
