"""The workers' part of the wire, as small as it can be: seals, submits, answers and settles what is due."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from batchling_client.wire.deployment import connection, seal_key_files
from batchling_client.wire.keys import BatchId, Keys, LaneId, Mailbox, ProviderBatchId, RequestId
from batchling_client.wire.records.row_and_result import LaneSpec, Result, Row
from batchling_client.wire.row_cipher import RowCipher
from batchling_client.wire.scripts import DueBatch, RowOut, Scripts
from batchling_client.wire.states import BatchState, Outcome, RowKind, Verdict
from tests.sealed import Opener

LEASE_MS = 1_000
KEEP_MS = 3_600_000


def completion(content: str, model: str = "llama") -> bytes:
    """Return a chat completion as OpenAI and Groq write it."""
    return json.dumps(
        {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 1,
            "model": model,
            "choices": [
                {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": content}}
            ],
        }
    ).encode()


class Asked(NamedTuple):
    """A request as the answerer reads it."""

    request_id: RequestId
    run_id: str
    body: bytes


def echo(row: Asked) -> tuple[int, bytes, str]:
    """Answer a prompt with itself and the id of its request."""
    body = json.loads(row.body)
    prompt = body["messages"][0]["content"]
    return 200, completion(f"{prompt} {row.request_id}", body["model"]), "provider"


def _owns(batch_id: BatchId, place: bytes | None) -> bool:
    return place is not None and place.startswith(f"{batch_id}|".encode())


class Answerer:
    """A worker and a provider in one; `go_on` keeps batches from being answered while it is clear."""

    def __init__(
        self, url: str, namespace: str, answer: Callable[[Asked], tuple[int, bytes, str]] = echo
    ) -> None:
        self.redis: Any = connection.connect(url)
        self.keys = Keys(namespace)
        self.scripts = Scripts(self.redis, self.keys)
        self.answer = answer
        self.silent = False
        self.go_on = asyncio.Event()
        self.go_on.set()
        self.private_keys: list[str] = []
        """Private seal keys; none = those of BATCHLING_HOME."""
        self.times_answered: Counter[str] = Counter()
        self.n_batches = 0
        self._mailboxes: dict[BatchId, tuple[Mailbox, ...]] = {}

    async def work(self) -> None:
        """Process batches for ever; wait if Redis is away."""
        while True:
            with contextlib.suppress(*connection.UNREACHABLE):
                await self.round()
            await asyncio.sleep(0.01)

    async def due(self, batch_id: BatchId) -> None:
        """Let time pass until the next poll of a batch."""
        await self.redis.zadd(self.keys.schedule, {batch_id: 0}, xx=True)

    async def round(self) -> None:
        """Take each due batch one step further."""
        due = await self.redis.zrange(self.keys.schedule, 0, 20)
        batch_ids = [BatchId(name.decode()) for name in due]
        for claim in await self.scripts.claim(batch_ids=batch_ids, lease_ms=LEASE_MS) if batch_ids else []:
            assert claim.state is not None
            begun = await self.scripts.begin(
                claim.batch_id, claim.token, LEASE_MS, [claim.state], error="", nonce="answerer"
            )
            if begun.verdict is Verdict.OK and begun.fields is not None:
                await self._step(claim, LaneSpec.decode(begun.fields[b"spec"]))

    async def _step(self, claim: DueBatch, spec: LaneSpec) -> None:
        batch_id, token, scripts = claim.batch_id, claim.token, self.scripts
        if claim.state is BatchState.OPEN:
            await scripts.seal(batch_id=batch_id, token=token, lane_id=spec.lane_id)
        elif claim.state is BatchState.SEALED:
            await scripts.intend(batch_id=batch_id, token=token, label=batch_id)
            await scripts.submitted(
                batch_id=batch_id, token=token, provider_batch_id=ProviderBatchId("batch_1"), delay_s=0.001
            )
            self.n_batches += 1
        elif claim.state is BatchState.SUBMITTED and not self.go_on.is_set():
            await scripts.release(batch_id=batch_id, token=token, delay_s=0.02)
        elif claim.state is BatchState.SUBMITTED:
            await scripts.ended(
                batch_id=batch_id,
                token=token,
                outcome=Outcome.COMPLETED,
                status="completed",
                ending=b"{}",
                error="",
            )
        elif not claim.collected:
            await self._collect(batch_id, token, spec)
        else:
            await scripts.settle(batch_id=batch_id, token=token, state=BatchState.SETTLED, keep_ms=KEEP_MS)

    async def _collect(self, batch_id: BatchId, token: int, spec: LaneSpec) -> None:
        private = self.private_keys or [seal_key_files.stored_pair(Path(os.environ["BATCHLING_HOME"]))[1]]
        cipher = await Opener(self.redis, self.keys, private).cipher(spec.fingerprint)
        packed = await self.redis.lrange(self.keys.rows(batch_id), 0, -1)
        rows_in = [Row.decode(raw) for raw in packed]
        places = await self.redis.mget([self.keys.request(row.request_id) for row in rows_in])
        # Those withdrawn before the batch was submitted are not run.
        run = [row for row, place in zip(rows_in, places, strict=True) if _owns(batch_id, place)]
        for first in range(0, len(run), 100):
            rows = run[first : first + 100]
            outs = [self._result(row, spec.lane_id, cipher) for row in rows]
            if self.silent:
                for out in outs:
                    await self.redis.set(self.keys.result(out.request_id), out.packed, px=KEEP_MS)
                    await self.redis.unlink(self.keys.request(out.request_id))
            else:
                await self._deliver(batch_id, token, outs)
        await self.scripts.collected(batch_id=batch_id, token=token)

    def _result(self, row: Row, lane_id: LaneId, cipher: RowCipher) -> RowOut:
        asked = Asked(row.request_id, row.run_id, row.body(lane_id, cipher))
        status, body, origin = self.answer(asked)
        self.times_answered[row.request_id] += 1
        kind = RowKind.SUCCESS if status < 400 else RowKind.FAILURE
        packed = Result.pack(
            kind=kind,
            status=status,
            headers={"x-request-id": f"req_{status}"},
            body=body,
            origin=origin,
            request_id=row.request_id,
            cipher=cipher,
        )
        return RowOut(request_id=row.request_id, kind=kind, packed=packed)

    async def _deliver(self, batch_id: BatchId, token: int, outs: list[RowOut]) -> None:
        while True:
            known = self._mailboxes.get(batch_id, ())
            delivered = await self.scripts.deliver(
                batch_id=batch_id,
                token=token,
                max_attempts=3,
                keep_ms=KEEP_MS,
                mail_ms=KEEP_MS,
                mailboxes=known,
                rows=outs,
            )
            if delivered.verdict is not Verdict.MAILBOXES:
                return
            self._mailboxes[batch_id] = tuple({*known, *delivered.mailboxes})
