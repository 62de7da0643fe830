"""Cancels a run: its own requests, and no other run's."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec
from redis.asyncio import Redis

from ..views.inspection import Inspection, RunRecord
from ..wire.keys import BatchId, Keys, Mailbox, RequestId, RunId
from ..wire.records.batch import Batch
from ..wire.records.row_and_result import Result, Row
from ..wire.scripts import A_PERSON, Scripts
from ..wire.states import BatchState, RowKind, Verdict
from ..wording import counted
from .steering import NO_ENDING

ROWS_AT_ONCE: Final = 128
ORIGIN: Final = "batch_cancelled"


@dataclass(slots=True, kw_only=True)
class CancelledRun:
    """What became of a wish to cancel a run."""

    run_id: RunId
    n_dropped: int = 0
    """Requests that were dropped before submission; their callers get an error."""
    n_shared: int = 0
    """Requests left in such batches because others wait for them."""
    ended: list[BatchId] = field(default_factory=list)
    """Batches that held nothing else and have ended."""
    asked: dict[BatchId, int] = field(default_factory=dict)
    """Batches that are being cancelled at their provider, with their open requests, all of them this run's."""
    cancelled_before: list[BatchId] = field(default_factory=list)
    """Batches that are being cancelled already, for this run or for others."""
    left: list[BatchId] = field(default_factory=list)
    """Batches that go on because they hold requests that others wait for."""
    kept: list[BatchId] = field(default_factory=list)
    """Batches at their provider that go on as was asked."""
    too_late: list[BatchId] = field(default_factory=list)
    """Batches that had ended already."""

    @property
    def done_something(self) -> bool:
        return bool(self.n_dropped or self.asked or self.cancelled_before)

    def as_json(self) -> dict[str, object]:
        """Return what `batchling cancel RUN --json` prints."""
        return {
            "cancelled": sorted([*self.ended, *self.asked]),
            "cancelled_before": self.cancelled_before,
            "too_late": self.too_late,
            "left": self.left,
            "kept": self.kept,
            "n_dropped": self.n_dropped,
            "n_cancelling": sum(self.asked.values()),
            "n_shared": self.n_shared,
        }

    def lines(self) -> list[str]:
        """Return the same as lines of text."""
        lines = []
        if self.n_dropped:
            lines.append(
                f"{counted(self.n_dropped, 'request')} dropped before submission: their callers get an error."
            )
        lines += [
            f"Batch {batch_id} is being cancelled at its provider: {counted(n, 'request')}."
            for batch_id, n in self.asked.items()
        ]
        lines += [f"Batch {batch_id} is being cancelled already." for batch_id in self.cancelled_before]
        lines += [f"Batch {batch_id} keeps running; its answers will be kept." for batch_id in self.kept]
        lines += [
            f"Batch {one} keeps running, as other runs wait for it: `batchling cancel {one}` cancels it for all."
            for one in self.left
        ]
        if self.n_shared:
            lines.append(f"{counted(self.n_shared, 'request')} left: others wait for them too.")
        return lines


async def cancel_run(
    inspection: Inspection,
    scripts: Scripts,
    run: RunRecord,
    *,
    keep_submitted: bool,
    by: str = A_PERSON,
) -> CancelledRun:
    """Drop the run's unsubmitted requests, and cancel its submitted batches that no other run waits for.

    With `keep_submitted` the submitted batches finish, and their answers are kept.
    """
    done = CancelledRun(run_id=run.run_id)
    work = _Work(scripts, await inspection.mailboxes_of(run.run_id), done, by)
    for batch in run.batches:
        if batch.state in (BatchState.OPEN, BatchState.SEALED) and await work.drop(batch):
            continue
        now = await inspection.batch(batch.batch_id)
        if now is None or _is_over(now):
            done.too_late.append(batch.batch_id)
        elif keep_submitted:
            done.kept.append(batch.batch_id)
        else:
            await work.cancel(now)
    return done


def _is_over(batch: Batch) -> bool:
    """Return whether a batch ends by itself; a quarantined batch does not."""
    return batch.state.terminal or (batch.state is BatchState.ENDED and batch.quarantined_at is None)


class _Work:
    def __init__(self, scripts: Scripts, mailboxes: Sequence[Mailbox], done: CancelledRun, by: str) -> None:
        self._by = by
        self._scripts = scripts
        self._mailboxes = mailboxes
        self._done = done
        self._reason = f"Run {done.run_id} was cancelled with `batchling cancel`."
        self._packed = _answer(self._reason)

    async def drop(self, batch: Batch) -> bool:
        """Drop the run's requests of a batch; return False if the batch was submitted meanwhile."""
        async for request_ids in _rows_of(self._scripts, batch.batch_id, self._done.run_id):
            dropped = await self._scripts.drop(
                batch_id=batch.batch_id,
                lane_id=batch.lane_id,
                packed=self._packed,
                ending=NO_ENDING,
                error=self._reason,
                mailboxes=self._mailboxes,
                request_ids=request_ids,
            )
            if dropped.verdict is not Verdict.OK:
                return False
            self._done.n_dropped += dropped.n_dropped
            self._done.n_shared += dropped.n_shared
            if dropped.ended:
                self._done.ended.append(batch.batch_id)
        return True

    async def cancel(self, batch: Batch) -> None:
        """Request the batch's cancellation, if no other run waits for any of its open requests."""
        if batch.cancel_requested and batch.quarantined_at is None:
            self._done.cancelled_before.append(batch.batch_id)
            return
        own: dict[RequestId, None] = {}
        async for request_ids in _rows_of(self._scripts, batch.batch_id, self._done.run_id):
            own.update(dict.fromkeys(request_ids))
        verdict = await self._scripts.cancel(
            batch_id=batch.batch_id,
            lane_id=batch.lane_id,
            ending=NO_ENDING,
            error=self._reason,
            request_ids=own,
            alone=True,
            mailboxes=self._mailboxes,
            by=self._by,
        )
        if verdict is Verdict.OK:
            self._done.asked[batch.batch_id] = batch.n_open
        elif verdict is Verdict.JOINED:
            self._done.left.append(batch.batch_id)
        else:
            self._done.too_late.append(batch.batch_id)


async def _rows_of(scripts: Scripts, batch_id: BatchId, run_id: RunId) -> AsyncIterator[list[RequestId]]:
    async for rows in _rows(scripts.redis, scripts.keys, batch_id):
        own = [row.request_id for row in rows if row.run_id == run_id]
        if own:
            yield own


async def _rows(redis: Redis, keys: Keys, batch_id: BatchId) -> AsyncIterator[list[Row]]:
    start, key = 0, keys.rows(batch_id)
    while packed := await redis.execute_command("LRANGE", key, start, start + ROWS_AT_ONCE - 1):
        start += len(packed)
        rows = [row for row in map(Row.decode_if_whole, packed) if row is not None]
        if rows:
            yield rows


def _answer(reason: str) -> bytes:
    error = {"message": reason, "type": "batch_error", "param": None, "code": ORIGIN}
    body = msgspec.json.encode({"error": error})
    headers = {"content-type": "application/json"}
    return Result.pack(kind=RowKind.FAILURE, status=499, headers=headers, body=body, origin=ORIGIN)
