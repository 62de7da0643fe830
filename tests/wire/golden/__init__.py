"""The wire as version 1 wrote it: records, and a small deployment with a batch in every state.

`version_1.json` is never written anew for this version: a release that cannot read it needs another wire version.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, TypeAlias

from redis.asyncio import Redis

from batchling_client.wire import ids, sealing, version_1
from batchling_client.wire.keys import (
    KEYSPACE,
    BatchId,
    Keys,
    Mailbox,
    ProviderBatchId,
    RequestId,
    RunId,
)
from batchling_client.wire.records.row_and_result import LaneSpec, Result, Row, WorkerPresence, line_bytes
from batchling_client.wire.scripts import BatchCap, RowIn, RowOut, Scripts
from batchling_client.wire.states import BatchState, Outcome, RowKind, Verdict

FILE: Final = Path(__file__).parent / "version_1.json"
VERSION: Final = 1
NAMESPACE: Final = "default"

PRIVATE_KEY: Final = base64.b64encode(b"a seal key that is for tests 01!").decode()
CREDENTIAL: Final = {"authorization": "Bearer gsk-golden"}
MODEL: Final = "llama-3.1-8b-instant"
SPEC: Final = LaneSpec(
    provider="groq",
    host="api.groq.com",
    endpoint="/v1/chat/completions",
    model=MODEL,
    fingerprint=version_1.fingerprint(CREDENTIAL),
    completion_window="24h",
)
PROJECT_SPEC: Final = LaneSpec(
    provider="openai",
    host="http://127.0.0.1:9/openai",
    endpoint="/v1/embeddings",
    model="text-embedding-3-small",
    fingerprint=version_1.fingerprint(CREDENTIAL),
    completion_window="24h",
    headers=(("openai-organization", "o"), ("openai-project", "p")),
)
PRESENCE: Final = WorkerPresence(
    name="w0@golden", pid=7, version="0.1.0", pool="threads", seal_public_key="ab" * 8
)
RUN: Final = RunId("r0goldenrunaaaaaaa")
MAILBOX: Final = Mailbox("goldenmailboxaaa")
OTHER_MAILBOX: Final = Mailbox("othermailboxaaaa")
KEEP_MS: Final = 3_600_000
N_ROWS: Final = 3
CANONICAL: Final = b'{"messages":[],"model":"m"}'

Dump: TypeAlias = dict[str, dict[str, Any]]


def batch_of(state: BatchState) -> BatchId:
    return BatchId(f"b0golden{state.value}")


def requests_of(state: BatchState) -> list[RequestId]:
    return [RequestId(f"{state.value}{'abcdef'[n]}".ljust(26, "z")) for n in range(N_ROWS)]


def body(request_id: str) -> bytes:
    """Return the body of a request; the last body of a batch is so long that it is stored compressed."""
    prompt = f"golden {request_id}" + " and more" * (200 if request_id.rstrip("z")[-1] == "c" else 0)
    asked = {"model": MODEL, "messages": [{"role": "user", "content": prompt}]}
    return json.dumps(asked, separators=(",", ":")).encode()


def text(raw: bytes) -> str:
    """Return bytes as a JSON string, a character each."""
    return raw.decode("latin-1")


def raw(written: str) -> bytes:
    return written.encode("latin-1")


def load() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
    return found


def records() -> dict[str, bytes]:
    """Return every record that the code encodes, from fixed values."""
    row = Row.pack(request_id=RequestId("a" * 26), run_id=RUN, body=b'{"model":"m"}')
    return {
        "lane_spec": SPEC.encode(),
        "lane_spec_with_headers": PROJECT_SPEC.encode(),
        "lane_id": PROJECT_SPEC.lane_id.encode(),
        "row": row,
        "row_next_attempt": Row.decode(row).next_attempt(2),
        "row_squeezed": Row.pack(request_id=RequestId("b" * 26), run_id=RUN, body=CANONICAL * 100),
        "result": Result.pack(kind=RowKind.SUCCESS, status=200, headers={"x-request-id": "q"}, body=b"{}"),
        "result_failure": Result.pack(
            kind=RowKind.FAILURE, status=504, headers={}, body=b'{"error":{}}', origin="batch_expired"
        ),
        "result_squeezed": Result.pack(
            kind=RowKind.SUCCESS, status=200, headers={"x-request-id": "q"}, body=CANONICAL * 100
        ),
        "presence": PRESENCE.encode(),
        "request_id_first": ids.request_id(PROJECT_SPEC.lane_id, CANONICAL, 1).encode(),
        "request_id_second": ids.request_id(PROJECT_SPEC.lane_id, CANONICAL, 2).encode(),
        "credential_fingerprint": version_1.fingerprint(CREDENTIAL).encode(),
        "credential_fingerprint_of_two_headers": version_1.fingerprint({"b": "2", "a": "Bearer 1"}).encode(),
    }


def key_names(version: int | None = None) -> dict[str, str]:
    """Return a key of each kind."""
    keys = Keys("name-space", version)
    return {
        "schedule": keys.schedule,
        "batches": keys.batches,
        "runs": keys.runs,
        "lanes": keys.lanes,
        "workers": keys.workers,
        "lane": keys.lane("x"),
        "batch": keys.batch("x"),
        "rows": keys.rows("x"),
        "request": keys.request("x"),
        "result": keys.result("x"),
        "run": keys.run("x"),
        "run_batches": keys.run_batches("x"),
        "mailbox": keys.mailbox("x"),
        "credential": keys.credential("x"),
        "worker": keys.worker("x"),
        "notice": keys.notice("x"),
    }


class Builder:
    """Writes the small deployment with this release's own scripts; only times, tokens and the seal differ each time."""

    def __init__(self, redis: Redis, keys: Keys) -> None:
        self.redis = redis
        self.keys = keys
        self.scripts = Scripts(redis, keys)

    async def build(self) -> None:
        sealed = version_1.seal(CREDENTIAL, sealing.public_half(PRIVATE_KEY))
        await self.redis.set(self.keys.credential(SPEC.fingerprint), sealed, px=KEEP_MS)
        await self.redis.set(self.keys.worker(PRESENCE.name), PRESENCE.encode(), px=KEEP_MS)
        await self.redis.zadd(self.keys.workers, {PRESENCE.name: 1_800_000_000_000})
        await self.redis.pexpire(self.keys.workers, KEEP_MS)
        # The open one last: an open batch would take the rows of the next.
        for state in reversed(BatchState):
            await self._bring(state)
        await self._enqueue(BatchState.SUBMITTED, OTHER_MAILBOX)

    async def _bring(self, state: BatchState) -> None:
        batch_id, scripts = batch_of(state), self.scripts
        await self._enqueue(state, MAILBOX)
        if state is BatchState.OPEN:
            return
        await scripts.seal(batch_id=batch_id, token=await self._claimed(batch_id), lane_id=SPEC.lane_id)
        if state is BatchState.SEALED:
            return
        token = await self._claimed(batch_id)
        await scripts.intend(batch_id=batch_id, token=token, label=f"batchling-default-{batch_id}")
        await scripts.uploaded(
            batch_id=batch_id, token=token, input_file_id=f"file_{state.value}", n_lines=N_ROWS
        )
        await scripts.arm(batch_id=batch_id, token=token)
        if state is BatchState.SUBMITTING:
            return
        provider_batch_id = ProviderBatchId(f"batch_{state.value}")
        await scripts.submitted(
            batch_id=batch_id, token=token, provider_batch_id=provider_batch_id, delay_s=0
        )
        await scripts.progress(
            batch_id=batch_id,
            token=await self._claimed(batch_id),
            status="in_progress",
            n_done=1,
            n_total=N_ROWS,
            delay_s=0,
        )
        if state is BatchState.SUBMITTED:
            return
        await scripts.ended(
            batch_id=batch_id,
            token=await self._claimed(batch_id),
            outcome=Outcome.COMPLETED,
            status="completed",
            ending=b'{"results":["file_out"],"complaints":[],"status":0,"body":""}',
            error="",
        )
        await self._finish(state)

    async def _finish(self, state: BatchState) -> None:
        """Answer the first row of an ended batch, and all rows of a settled batch."""
        batch_id = batch_of(state)
        token = await self._claimed(batch_id)
        answered = requests_of(state)[: 1 if state is BatchState.ENDED else N_ROWS]
        rows = [
            RowOut(
                request_id=one,
                kind=RowKind.SUCCESS,
                packed=Result.pack(kind=RowKind.SUCCESS, status=200, headers={}, body=b'{"golden":true}'),
            )
            for one in answered
        ]
        delivered = await self.scripts.deliver(
            batch_id=batch_id,
            token=token,
            max_attempts=3,
            keep_ms=KEEP_MS,
            mail_ms=KEEP_MS,
            mailboxes=[MAILBOX],
            rows=rows,
        )
        assert delivered.n_answered == len(answered)
        if state is not BatchState.ENDED:
            await self.scripts.collected(batch_id=batch_id, token=token)
            token = await self._claimed(batch_id)
            await self.scripts.settle(batch_id=batch_id, token=token, state=state, keep_ms=KEEP_MS)

    async def _enqueue(self, state: BatchState, mailbox: Mailbox) -> None:
        rows = [
            RowIn(
                request_id=one,
                packed=Row.pack(request_id=one, run_id=RUN, body=body(one)),
                size=line_bytes(body(one)),
            )
            for one in requests_of(state)
        ]
        reply = await self.scripts.enqueue(
            batch_id=batch_of(state),
            lane_id=SPEC.lane_id,
            spec=SPEC.encode(),
            mailbox=mailbox,
            run_id=RUN,
            run_name="golden",
            cap=BatchCap(rows=1000, bytes=10_000_000, linger_ms=50, longest_ms=750),
            poll_ms=100,
            keep_ms=KEEP_MS,
            ask_failed_anew=True,
            rows=rows,
        )
        assert reply.verdict is Verdict.OK

    async def _claimed(self, batch_id: BatchId) -> int:
        await self.redis.execute_command("ZADD", self.keys.schedule, "XX", 0, batch_id)
        [claim] = await self.scripts.claim(batch_ids=[batch_id], lease_ms=60_000)
        return claim.token


async def dump(redis: Redis, keys: Keys) -> Dump:
    """Return all values below the prefix, by the rest of the key's name."""
    found: Dump = {}
    # redis-py's annotations know nothing of bytes that stay bytes.
    client: Any = redis
    async for key in client.scan_iter(match=keys.prefix + "*", count=1000):
        kind = (await client.execute_command("TYPE", key)).decode()
        value: Any
        match kind:
            case "hash":
                value = {text(k): text(v) for k, v in (await client.execute_command("HGETALL", key)).items()}
            case "list":
                value = [text(one) for one in await client.execute_command("LRANGE", key, 0, -1)]
            case "set":
                value = sorted(text(one) for one in await client.execute_command("SMEMBERS", key))
            case "zset":
                value = {text(k): v for k, v in await client.zrange(key, 0, -1, withscores=True)}
            case "stream":
                value = [{text(k): text(v) for k, v in said.items()} for _, said in await client.xrange(key)]
            case _:
                value = text(await client.execute_command("GET", key))
        found[key.decode().removeprefix(keys.prefix)] = {"type": kind, "value": value}
    return dict(sorted(found.items()))


async def restore(redis: Redis, prefix: str, written: Mapping[str, Mapping[str, Any]]) -> None:
    """Write a dump back under a prefix, each key with the lifetime of its kind."""
    lives = {kind.word: kind.lifetime for kind in KEYSPACE}
    for rest, held in written.items():
        key, value = prefix + rest, held["value"]
        match held["type"]:
            case "hash":
                await redis.execute_command(
                    "HSET", key, *(part for k, v in value.items() for part in (raw(k), raw(v)))
                )
            case "list":
                await redis.execute_command("RPUSH", key, *(raw(one) for one in value))
            case "set":
                await redis.execute_command("SADD", key, *(raw(one) for one in value))
            case "zset":
                await redis.execute_command(
                    "ZADD", key, *(part for k, v in value.items() for part in (v, raw(k)))
                )
            case "stream":
                for said in value:
                    await redis.execute_command(
                        "XADD", key, "*", *(part for k, v in said.items() for part in (raw(k), raw(v)))
                    )
            case _:
                await redis.execute_command("SET", key, raw(value))
        if lives[rest.partition(":")[0]].ms:
            await redis.execute_command("PEXPIRE", key, KEEP_MS)
