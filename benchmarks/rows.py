"""Puts rows into Redis by the wire's own scripts, as a client does, without the cost of an SDK."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from batchling_client.wire.ids import new_batch_id, new_mailbox, new_request_id, new_run_id
from batchling_client.wire.keys import BatchId, Mailbox, RequestId, RunId
from batchling_client.wire.records.row_and_result import LaneSpec, Row, line_bytes
from batchling_client.wire.scripts import BatchCap, Enqueued, RowIn, Scripts
from batchling_client.wire.states import Verdict

MODEL: Final = "llama-3.1-8b-instant"
AT_ONCE: Final = 128
KEEP_MS: Final = 3_600_000
CAP_BYTES: Final = 200_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Lane:
    """A lane to fill, and the session that waits for its answers."""

    scripts: Scripts
    spec: LaneSpec
    run_id: RunId = field(default_factory=new_run_id)
    mailbox: Mailbox = field(default_factory=new_mailbox)
    poll_ms: int = 100
    """Milliseconds between two polls of a batch, at least."""

    def cap(self, n_rows: int, *, linger_ms: int = 60_000) -> BatchCap:
        """Return limits for a batch of at most so many rows."""
        return BatchCap(rows=n_rows, bytes=CAP_BYTES, linger_ms=linger_ms, longest_ms=15 * linger_ms)

    async def enqueue(self, batch_id: BatchId, rows: Sequence[RowIn], cap: BatchCap) -> Enqueued:
        """Enqueue rows; they go into the batch if it is the lane's open one."""
        return await self.scripts.enqueue(
            batch_id=batch_id,
            lane_id=self.spec.lane_id,
            spec=self.spec.encode(),
            mailbox=self.mailbox,
            run_id=self.run_id,
            run_name="benchmark",
            cap=cap,
            poll_ms=self.poll_ms,
            keep_ms=KEEP_MS,
            ask_failed_anew=True,
            rows=rows,
        )

    async def put(self, batch_id: BatchId, rows: Sequence[RowIn], cap: BatchCap) -> None:
        """Enqueue rows into the batch; raise RuntimeError unless it takes all of them."""
        reply = await self.enqueue(batch_id, rows, cap)
        if reply.verdict is not Verdict.OK or len(reply.placements) != len(rows):
            raise RuntimeError(f"the batch did not take its rows: {reply}")

    async def fill(self, n_rows: int, n_bytes: int, *, taken: list[RequestId] | None = None) -> BatchId:
        """Fill a batch with chat requests of about `n_bytes`, sealed by the last row; `taken` gets their ids."""
        batch_id = new_batch_id()
        cap = self.cap(n_rows)
        for rows in self.rows(n_rows, n_bytes):
            await self.put(batch_id, rows, cap)
            if taken is not None:
                taken.extend(row.request_id for row in rows)
        return batch_id

    def rows(self, n_rows: int, n_bytes: int) -> Iterator[list[RowIn]]:
        """Yield rows in portions of `AT_ONCE`; their texts differ and compress little."""
        for first in range(0, n_rows, AT_ONCE):
            yield [self.row(n_bytes) for _ in range(first, min(first + AT_ONCE, n_rows))]

    def row(self, n_bytes: int) -> RowIn:
        """Return a fresh chat request with a body of about `n_bytes`."""
        text = os.urandom(n_bytes // 2).hex()
        body = json.dumps({"model": MODEL, "messages": [{"role": "user", "content": text}]}).encode()
        request_id = new_request_id()
        packed = Row.pack(request_id=request_id, run_id=self.run_id, body=body)
        return RowIn(request_id=request_id, packed=packed, size=line_bytes(body))


def chat_lane(fingerprint: str) -> LaneSpec:
    """Return Groq's chat lane of one credential."""
    return LaneSpec(
        provider="groq",
        host="api.groq.com",
        endpoint="/v1/chat/completions",
        model=MODEL,
        fingerprint=fingerprint,
        completion_window="24h",
    )
