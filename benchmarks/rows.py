"""Puts rows into Redis by the wire's own scripts, as a client does, without the cost of an SDK."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec

from batchling_client.wire import sealing
from batchling_client.wire.deployment import salt, seal_key_files
from batchling_client.wire.ids import new_batch_id, new_mailbox, new_request_id, new_run_id
from batchling_client.wire.keys import BatchId, Keys, Mailbox, RequestId, RunId, credential_name
from batchling_client.wire.records.row_and_result import LaneSpec, Row, line_bytes
from batchling_client.wire.roots import Roots
from batchling_client.wire.row_cipher import RowCipher
from batchling_client.wire.scripts import BatchCap, Enqueued, RowIn, Scripts
from batchling_client.wire.states import Verdict

MODEL: Final = "llama-3.1-8b-instant"
AT_ONCE: Final = 128
KEEP_MS: Final = 3_600_000
KEY: Final = {"authorization": "Bearer gsk-benchmark"}
CAP_BYTES: Final = 200_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Lane:
    """A lane to fill, and the session that waits for its answers."""

    scripts: Scripts
    spec: LaneSpec
    run_id: RunId = field(default_factory=new_run_id)
    mailbox: Mailbox = field(default_factory=new_mailbox)
    cipher: RowCipher | None = field(default=None, repr=False)
    """What encrypts its rows; None where no worker reads them."""
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
        packed = Row.pack(
            request_id=request_id,
            run_id=self.run_id,
            body=body,
            lane_id=self.spec.lane_id,
            cipher=self.cipher,
        )
        return RowIn(request_id=request_id, packed=packed, size=line_bytes(body))


async def stored_lane(
    redis: Any, keys: Keys, home: Path, *, spec: LaneSpec | None = None, poll_ms: int = 100
) -> Lane:
    """Return a lane of a benchmark's own key, which is stored sealed for the workers of this home."""
    root = Roots(keys.namespace, await salt.load(redis, keys)).of_credential(KEY)
    spec = msgspec.structs.replace(spec or chat_lane(""), fingerprint=root.fingerprint)
    credential = sealing.Credential(
        namespace=keys.namespace, provider=spec.provider, host=spec.host, root=root.raw, headers=KEY
    )
    sealed = sealing.seal(credential, seal_key_files.stored_pair(home)[0])
    place = keys.credential(credential_name(spec.fingerprint, spec.provider, spec.host))
    await redis.set(place, sealed, px=KEEP_MS)
    return Lane(scripts=Scripts(redis, keys), spec=spec, cipher=root.cipher(), poll_ms=poll_ms)


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
