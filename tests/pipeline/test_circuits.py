"""One account in trouble: it is left alone, tried again by one at a time, and no other account is later for it."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Any

from batchling_client.views.inspection import Inspection
from batchling_client.wire.keys import RequestId
from batchling_client.wire.records.batch import Batch
from batchling_client.wire.records.row_and_result import LaneSpec
from batchling_client.wire.states import BatchState
from batchling_worker.sandbox.world.faults import RefuseKey, RefusePoll, RefuseUpload, SilenceKey
from tests.deployment import Deployment
from tests.providers.wire import Wire
from tests.waiting import wait_until

BAD_KEY = "gsk-bad-key"
PATIENT = {"lease_seconds": "20"}
"""A lease that outlasts the queue of a slow machine: else each batch is stepped at once, without the pool."""


async def ask_badly(deployment: Deployment, n: int) -> list[RequestId]:
    """n batches of one request each, with the key in trouble."""
    return await deployment.ask(n, rows=1, headers={"authorization": f"Bearer {BAD_KEY}"})


async def lanes(deployment: Deployment) -> list[dict[str, Any]]:
    return [lane.as_json() for lane in await Inspection(deployment.redis, deployment.keys).lanes(10)]


async def batches_with(deployment: Deployment, words: str) -> list[Batch]:
    return [batch for batch in await deployment.batches() if words in batch.error]


async def test_an_account_in_trouble_is_left_alone_while_another_goes_on(deployment: Deployment) -> None:
    deployment.sandbox.faults.add(RefuseKey(key=BAD_KEY, status=500, times=None))
    bad = await ask_badly(deployment, 60)
    good = await deployment.ask(20, rows=5)
    deployment.worker(**PATIENT)

    results = await deployment.answered(good)

    assert {result.status for result in results} == {200}
    assert not any(await deployment.results(bad))
    assert deployment.sandbox.faults.n_struck(RefuseKey) < 45, "sixty batches, many of them never called"
    stumbles = [batch.n_stumbles for batch in await deployment.batches() if batch.n_requests == 1]
    assert sum(stumbles) < 45, "waiting does not count as a stumble"


async def test_a_silent_account_takes_no_slot_for_long(deployment: Deployment) -> None:
    """Both slots of the worker are taken by calls without an answer before the good key asks for anything."""
    deployment.sandbox.faults.add(SilenceKey(key=BAD_KEY, seconds=3600, times=None))
    deployment.worker(**PATIENT)
    await ask_badly(deployment, 2)
    await wait_until(
        lambda: deployment.sandbox.faults.n_struck(SilenceKey) >= 2,
        description="both are silent",
        within_s=30,
    )

    results = await deployment.answered(await deployment.ask(20, rows=5))

    assert {result.status for result in results} == {200}
    await wait_until(
        lambda: "circuit_open" in deployment.worker_logs(),
        description="the silence opens the circuit",
        within_s=30,
    )


async def test_a_circuit_that_has_opened_is_closed_by_one_trial(deployment: Deployment) -> None:
    deployment.sandbox.faults.add(RefuseUpload(status=503, times=5))
    ids = await deployment.ask(20, rows=1)
    deployment.worker(**PATIENT)

    results = await deployment.answered(ids)

    assert {result.status for result in results} == {200}
    assert deployment.sandbox.faults.n_struck(RefuseUpload) == 5
    assert deployment.billed() == dict.fromkeys(ids, 1)
    logs = deployment.worker_logs()
    assert "circuit_open" in logs
    assert "circuit_closed" in logs
    assert (await lanes(deployment))[0]["circuit"] is None


async def test_a_pause_that_the_provider_asks_for_is_kept_by_all_batches_of_the_account(
    deployment: Deployment,
) -> None:
    fault = RefuseKey(key=BAD_KEY, status=429, retry_after="3600", times=None)
    deployment.sandbox.faults.add(fault)
    await ask_badly(deployment, 10)
    deployment.worker(**PATIENT)

    async def all_wait() -> bool:
        """Those that were called wait for themselves, the others for the account."""
        soon_ms = int((time.time() + 3000) * 1000)
        return not await deployment.redis.execute_command("ZCOUNT", deployment.keys.schedule, 0, soon_ms)

    await wait_until(all_wait, description="each batch waits for an hour", within_s=20)

    assert deployment.sandbox.faults.n_struck(RefuseKey) <= 5
    [lane] = await lanes(deployment)
    assert lane["circuit"]["state"] == "open"
    assert "429" in lane["circuit"]["why"]
    held = await batches_with(deployment, "held")
    assert len(held) >= 5
    assert all(batch.state is BatchState.SEALED and batch.n_stumbles == 0 for batch in held)


async def test_a_refused_key_fails_every_caller_without_a_call_for_each(deployment: Deployment) -> None:
    deployment.sandbox.faults.add(
        RefuseKey(key=BAD_KEY, status=401, times=None, message=f"Incorrect API key provided: {BAD_KEY}.")
    )
    bad = await ask_badly(deployment, 20)
    good = await deployment.ask(10, rows=5)
    deployment.worker(**PATIENT)

    results = await deployment.answered(bad)

    assert {result.status for result in results} == {401}
    assert all("Incorrect API key" in json.loads(result.body)["error"]["message"] for result in results)
    states = {lane["circuit"]["state"] for lane in await lanes(deployment) if lane["circuit"]}
    assert states == {"parked"}
    assert deployment.sandbox.faults.n_struck(RefuseKey) <= 4
    assert {result.status for result in await deployment.answered(good)} == {200}
    [circuit] = await deployment.redis.execute_command("KEYS", deployment.keys.circuit("*"))
    stored = await deployment.redis.execute_command("HVALS", circuit)
    assert b"401" in stored
    assert BAD_KEY.encode() not in b"".join(stored)


async def test_what_is_paid_for_outlives_a_key_that_is_refused_for_a_while(deployment: Deployment) -> None:
    deployment.sandbox.faults.add(RefusePoll(status=401, times=2))
    deployment.worker(**PATIENT)
    ids = await deployment.ask(4, rows=1)

    async def warned() -> bool:
        return len(await batches_with(deployment, "401")) >= 2

    await wait_until(warned, description="the batches say that their key is refused", within_s=20)

    async def answered_in_time() -> bool:
        await _time_passes(deployment)
        return all(await deployment.results(ids))

    await wait_until(answered_in_time, description="the answers, once the key is taken again", within_s=30)
    results = await deployment.answered(ids)
    assert {result.status for result in results} == {200}
    assert deployment.billed() == dict.fromkeys(ids, 1)


async def test_a_right_that_one_lane_lacks_parks_no_other(deployment: Deployment) -> None:
    deployment.sandbox.faults.add(RefuseUpload(status=403, times=1, message="not_available_for_plan"))
    deployment.worker(**PATIENT)
    forbidden = await deployment.ask(1)
    assert [result.status for result in await deployment.answered(forbidden)] == [403]

    again = await deployment.answered(await deployment.ask(1))
    other = await deployment.answered(await deployment.ask(1, model="another-model"))

    assert [result.status for result in again] == [403]
    assert [result.status for result in other] == [200]


async def test_a_batch_of_a_provider_that_nobody_knows_is_refused_alone(deployment: Deployment) -> None:
    strange = await deployment.ask(2, linger_ms=60_000)
    [batch] = await deployment.batches()
    spec = batch.spec.encode().replace(b'"groq"', b'"nobody"')
    lane_id = LaneSpec.decode(spec).lane_id
    await deployment.redis.hset(
        deployment.keys.batch(batch.batch_id), mapping={"spec": spec, "lane": lane_id}
    )
    await deployment.redis.execute_command("ZADD", deployment.keys.schedule, 0, batch.batch_id)
    known = await deployment.ask(2, model="another-model")
    deployment.worker()

    results = await deployment.answered(strange + known)

    assert [result.status for result in results] == [400, 400, 200, 200]
    assert "nobody" in json.loads(results[0].body)["error"]["message"]


async def test_a_running_batch_of_a_provider_that_nobody_knows_does_not_hold_the_looks_at_others(
    deployment: Deployment,
) -> None:
    first = await deployment.ask(1, linger_ms=60_000)
    [foreign] = await deployment.batches()
    spec = foreign.spec.encode().replace(b'"groq"', b'"nobody"')
    await deployment.redis.hset(
        deployment.keys.batch(foreign.batch_id),
        mapping={
            "spec": spec,
            "lane": LaneSpec.decode(spec).lane_id,
            "state": "submitted",
            "provider_batch_id": "x",
            "create_at": str(int(time.time() * 1000)),
        },
    )
    ids = await deployment.ask(20, rows=1, model="another-model")
    await deployment.redis.execute_command("ZADD", deployment.keys.schedule, 0, foreign.batch_id)
    deployment.worker()

    assert {result.status for result in await deployment.answered(ids)} == {200}

    assert await deployment.results(first) == [None], "it may be paid for: another worker may know it"
    assert await batches_with(deployment, "No provider is called 'nobody'")
    assert "raised unexpected" not in deployment.worker_logs()


async def _time_passes(deployment: Deployment) -> None:
    """Whatever is held may be tried, and is due unless a worker has it."""
    redis, keys = deployment.redis, deployment.keys
    for circuit in await redis.execute_command("KEYS", keys.circuit("*")):
        await redis.execute_command("HSET", circuit, "until", 1)
    for batch in await batches_with(deployment, "401"):
        await redis.execute_command("ZADD", keys.schedule, "XX", "LT", 0, batch.batch_id)


async def test_a_provider_that_answers_a_byte_at_a_time_takes_no_slot_and_its_batches_say_so(
    deployment: Deployment,
) -> None:
    """Its answers begin at once and never end; each of its callers has a key of its own."""

    async def drops() -> AsyncIterator[bytes]:
        yield b"HTTP/1.1 200 Fine\r\nContent-Type: application/json\r\nContent-Length: 1000000\r\n\r\n"
        while True:
            yield b" "
            await asyncio.sleep(0.2)

    async with Wire() as wire:
        wire.reply = lambda seen: drops()
        deployment.env["BATCHLING_PROVIDERS__OPENAI__BASE_URL"] = wire.url
        deployment.worker(**PATIENT)
        for n in range(6):
            key = {"authorization": f"Bearer sk-canary-{n}"}
            await deployment.ask(1, provider="openai", headers=key)
        await wait_until(lambda: len(wire.seen) >= 2, description="both slots wait", within_s=30)

        results = await deployment.answered(await deployment.ask(20, rows=5))

        assert {result.status for result in results} == {200}

        async def all_show_it() -> bool:
            return len(await batches_with(deployment, "openai has not answered for")) == 6

        await wait_until(all_show_it, description="each batch shows the reason", within_s=60)
