"""The failed requests of a batch or a run: how many failed for which reason, and the first of them one by one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Final

import msgspec
from redis.asyncio import Redis

from ..wire.keys import BatchId, Keys, RequestId
from ..wire.records.batch import Batch
from ..wire.records.usage_and_failure import FailedRow, Reason
from .inspection import Inspection, RunRecord, pipelined

MOST_EXAMPLES: Final = 3


class FailureReason(msgspec.Struct, frozen=True, kw_only=True):
    """One reason of failures."""

    status: Annotated[int, msgspec.Meta(description="HTTP status that the callers got")]
    code: Annotated[str, msgspec.Meta(description="the provider's code, or batchling's; `-` for none")]
    n_requests: Annotated[int, msgspec.Meta(description="requests that failed so")]
    examples: Annotated[
        tuple[RequestId, ...], msgspec.Meta(description="ids of up to three of these requests")
    ]


class FailedRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One failed request; its prompt is not kept."""

    request_id: Annotated[RequestId, msgspec.Meta(description="id of the request")]
    batch_id: Annotated[BatchId, msgspec.Meta(description="the batch in which it failed")]
    attempt: Annotated[int, msgspec.Meta(description="how many times it was sent")]
    status: Annotated[int, msgspec.Meta(description="HTTP status that its callers got")]
    code: Annotated[str, msgspec.Meta(description="the provider's code, or batchling's; `-` for none")]


class Failures(msgspec.Struct, frozen=True, kw_only=True):
    """The failures of one batch or run; a batch lists its first 1,000 failed requests."""

    id: Annotated[str, msgspec.Meta(description="id of the batch or run")]
    n_failed: Annotated[int, msgspec.Meta(description="requests that were answered with an error")]
    n_unlisted: Annotated[int, msgspec.Meta(description="failed requests that are not listed one by one")]
    reasons: Annotated[
        tuple[FailureReason, ...], msgspec.Meta(description="the reasons, the commonest first")
    ]
    requests: Annotated[
        tuple[FailedRequest, ...], msgspec.Meta(description="the failed requests that are listed")
    ]


@dataclass(slots=True)
class _Group:
    n: int = 0
    examples: list[RequestId] = field(default_factory=list)


async def failures_of_batch(redis: Redis, keys: Keys, batch: Batch) -> Failures:
    """Return the failures of a batch; its reasons are counted in full."""
    listed = await _listed(redis, keys, [batch.batch_id])
    (counts,) = await pipelined(redis, [("HGETALL", keys.failures(batch.batch_id))])
    counted = {Reason.decode(name): int(n) for name, n in (counts or {}).items() if n.isdigit()}
    groups = _grouped(listed)
    for reason, n in counted.items():
        if reason is not None:
            groups.setdefault(reason, _Group()).n = n
    return _failures(batch.batch_id, batch.n_failed, listed, groups)


async def failures_of_run(redis: Redis, keys: Keys, run: RunRecord) -> Failures:
    """Return the failures of a run's own requests among those that its batches list."""
    listed = await _listed(redis, keys, [batch.batch_id for batch in run.batches])
    failed, own = {row.request_id for _, row in listed}, set[RequestId]()
    async for ids in Inspection(redis, keys).request_ids_of(run.run_id):
        own |= failed.intersection(ids)
    mine = [(batch_id, row) for batch_id, row in listed if row.request_id in own]
    return _failures(run.run_id, run.n_failed, mine, _grouped(mine))


async def _listed(redis: Redis, keys: Keys, batch_ids: Sequence[BatchId]) -> list[tuple[BatchId, FailedRow]]:
    lists = await pipelined(redis, [("LRANGE", keys.failed_rows(one), "0", "-1") for one in batch_ids])
    return [
        (batch_id, row)
        for batch_id, raws in zip(batch_ids, lists, strict=True)
        for row in map(FailedRow.decode, raws or ())
        if row is not None
    ]


def _grouped(rows: Iterable[tuple[BatchId, FailedRow]]) -> dict[Reason, _Group]:
    groups: dict[Reason, _Group] = {}
    for _, row in rows:
        group = groups.setdefault(row.reason, _Group())
        group.n += 1
        if len(group.examples) < MOST_EXAMPLES:
            group.examples.append(row.request_id)
    return groups


def _failures(
    name: str, n_failed: int, rows: Sequence[tuple[BatchId, FailedRow]], groups: dict[Reason, _Group]
) -> Failures:
    ordered = sorted(groups.items(), key=lambda item: (-item[1].n, item[0].status, item[0].code))
    return Failures(
        id=name,
        n_failed=max(n_failed, len(rows)),
        n_unlisted=max(n_failed - len(rows), 0),
        reasons=tuple(
            FailureReason(
                status=reason.status,
                code=reason.code,
                n_requests=group.n,
                examples=tuple(group.examples),
            )
            for reason, group in ordered
        ),
        requests=tuple(
            FailedRequest(
                request_id=row.request_id,
                batch_id=batch_id,
                attempt=row.attempt,
                status=row.reason.status,
                code=row.reason.code,
            )
            for batch_id, row in rows
        ),
    )
