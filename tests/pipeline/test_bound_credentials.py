"""Without a caller's key nobody who writes to Redis has a request sent under it, or forges an answer."""

from __future__ import annotations

import json

import msgspec

from batchling_client.wire.ids import new_batch_id, new_mailbox, new_request_id, new_run_id
from batchling_client.wire.keys import RequestId, credential_name
from batchling_client.wire.records.row_and_result import LaneSpec, Result, Row
from batchling_client.wire.row_cipher import RowCipher
from batchling_client.wire.scripts import BatchCap, RowIn
from batchling_client.wire.states import RowKind, Verdict
from tests.deployment import Deployment
from tests.wire import golden

from ..cli.command import batchling

PROMPT = "a wish that nobody may read"
CAP = BatchCap(rows=10, bytes=1_000_000, linger_ms=50, longest_ms=750)
NO_KEY = RowCipher(b"no key", "0" * 20)


async def queued(
    deployment: Deployment, spec: LaneSpec, *, packed_for: RowCipher | None = NO_KEY
) -> RequestId:
    """Queue a request by writing to Redis; without a cipher, in clear."""
    request_id, run_id = new_request_id(), new_run_id()
    body = json.dumps({"model": spec.model, "messages": [{"role": "user", "content": "forged"}]}).encode()
    packed = Row.pack(
        request_id=request_id, run_id=run_id, body=body, lane_id=spec.lane_id, cipher=packed_for
    )
    batch_id, reply = new_batch_id(), None
    while reply is None or reply.verdict is not Verdict.OK:
        batch_id = (reply and reply.open_batch) or batch_id
        reply = await deployment.scripts.enqueue(
            batch_id=batch_id,
            lane_id=spec.lane_id,
            spec=spec.encode(),
            mailbox=new_mailbox(),
            run_id=run_id,
            run_name="",
            cap=CAP,
            poll_ms=100,
            keep_ms=3_600_000,
            ask_failed_anew=True,
            rows=[RowIn(request_id=request_id, packed=packed, size=len(body))],
        )
    return request_id


async def spec_of(deployment: Deployment) -> LaneSpec:
    """Return the lane of a caller whose answered request is the only one so far."""
    await deployment.answered(await deployment.ask(1))
    [batch] = await deployment.settled()
    return batch.spec


async def test_a_row_that_a_caller_did_not_write_is_never_sent_under_its_key(deployment: Deployment) -> None:
    deployment.worker()
    spec = await spec_of(deployment)
    billed, n_batches = deployment.billed(), len(deployment.sandbox.batches())

    forged = [await queued(deployment, spec), await queued(deployment, spec, packed_for=None)]

    answers = await deployment.answered(forged)
    assert {(one.status, one.origin) for one in answers} == {(400, "batch_row_corrupt")}
    assert deployment.billed() == billed
    assert len(deployment.sandbox.batches()) == n_batches


async def test_a_credential_that_is_copied_elsewhere_is_sent_nowhere(deployment: Deployment) -> None:
    """To another provider, another host of it, and a base URL of the writer's own."""
    deployment.worker()
    spec = await spec_of(deployment)
    n_batches = len(deployment.sandbox.batches())
    keys, redis = deployment.keys, deployment.redis
    sealed = await redis.get(keys.credential(credential_name(spec.fingerprint, spec.provider, spec.host)))
    assert isinstance(sealed, bytes)
    forged: list[RequestId] = []
    for change in (
        {"provider": "openai", "host": "api.openai.com"},
        {"host": "groq.attacker.example"},
        {"host": deployment.sandbox.base_url("openai")},
    ):
        other = msgspec.structs.replace(spec, **change)
        place = keys.credential(credential_name(other.fingerprint, other.provider, other.host))
        await redis.set(place, sealed, px=3_600_000)
        forged.append(await queued(deployment, other))

    answers = await deployment.answered(forged)

    assert {one.status for one in answers} == {401}
    assert len(deployment.sandbox.batches()) == n_batches


async def test_redis_holds_neither_prompt_nor_answer_in_clear(deployment: Deployment) -> None:
    deployment.worker()
    ids = await deployment.ask(1, prompts=[PROMPT])
    [answer] = await deployment.answered(ids)
    await deployment.ask(1, prompts=[f"{PROMPT} still"], linger_ms=60_000)

    held = json.dumps(await golden.dump(deployment.redis, deployment.keys))

    assert PROMPT.encode() not in held.encode()
    said = json.loads(answer.body)["choices"][0]["message"]["content"]
    assert len(said) > 3
    assert json.dumps(said)[1:-1] not in held


async def test_a_forged_answer_reaches_no_reader(deployment: Deployment) -> None:
    deployment.worker()
    ids = await deployment.ask(1)
    await deployment.answered(ids)
    [batch] = await deployment.settled()
    [run] = await deployment.redis.execute_command("ZRANGE", deployment.keys.runs, 0, -1)
    forged = Result.pack(kind=RowKind.SUCCESS, status=200, headers={}, body=b'{"id":"forged"}')
    key = deployment.keys.result(ids[0])
    for packed in (
        forged,
        Result.pack(
            kind=RowKind.SUCCESS,
            status=200,
            headers={},
            body=b'{"id":"forged"}',
            request_id=ids[0],
            cipher=RowCipher(b"no key", batch.spec.fingerprint),
        ),
    ):
        await deployment.redis.set(key, packed, px=3_600_000)
        done = await batchling("results", run.decode(), env=deployment.env)
        [line] = done.out.splitlines()
        assert json.loads(line)["error"]["code"] == "answer_unreadable"
        assert "forged" not in done.out
