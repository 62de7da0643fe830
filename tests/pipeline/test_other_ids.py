"""A cache on the way to a provider answers looks with another batch: the batch is held, and looked at again."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import httpx
import pytest

from batchling_client.wire.keys import BatchId, ProviderBatchId
from batchling_client.wire.states import BatchState
from tests.deployment import Deployment
from tests.providers.wire import Reply, Seen, Wire, answer
from tests.waiting import wait_until

from .hand import Hand
from .test_rereading import to_its_end

OTHER = {"id": "batch_other", "status": "completed", "output_file_id": None, "request_counts": {"total": 0}}


async def test_another_batchs_end_ends_no_batch(deployment: Deployment) -> None:
    sandbox_url = deployment.sandbox.base_url("groq")
    stale = True

    async with Wire() as cache, httpx.AsyncClient(timeout=30) as http:

        def reply(seen: Seen) -> Reply:
            if stale and seen.head.startswith("GET ") and "/batches/" in seen.target:
                return answer(json.dumps(OTHER).encode())
            return forwarded(seen)

        async def forwarded(seen: Seen) -> AsyncIterator[bytes]:
            method = seen.head.partition(" ")[0]
            headers = dict(line.split(": ", 1) for line in seen.head.split("\r\n")[1:] if ": " in line)
            passed = {
                name: value
                for name, value in headers.items()
                if name.lower() not in ("host", "content-length")
            }
            url = sandbox_url + seen.target
            told = await http.request(method, url, headers=passed, content=seen.body)
            yield answer(told.content, status=told.status_code)

        cache.reply = reply
        deployment.env["BATCHLING_PROVIDERS__GROQ__BASE_URL"] = cache.url
        deployment.fork()
        ids = await deployment.ask(3)

        async def is_held() -> bool:
            return any(
                "with another batch (batch_other)" in batch.error for batch in await deployment.batches()
            )

        await wait_until(is_held, description="the batch says why it waits", within_s=60)
        assert not any(await deployment.results(ids))

        stale = False
        await deployment.hurry()
        results = await deployment.answered(ids)
        assert {result.status for result in results} == {200}
        assert deployment.billed() == dict.fromkeys(ids, 1)


CREATES = ("/batches", "/model-invocation-job")


@pytest.mark.parametrize(("provider", "n"), [("anthropic", 3), ("sference", 3), ("bedrock", 100)])
async def test_a_create_that_shows_another_batch_binds_no_second_one_to_it(
    deployment: Deployment, provider: str, n: int
) -> None:
    """A cache answers the second create with the first one's answer, though the provider has made the batch."""
    sandbox = deployment.sandbox
    created: list[bytes] = []
    async with Wire() as cache, httpx.AsyncClient(timeout=30) as http:

        async def reply(seen: Seen) -> AsyncIterator[bytes]:
            method, target, _ = seen.head.split(" ", 2)
            headers = dict(line.split(": ", 1) for line in seen.head.split("\r\n")[1:] if ": " in line)
            passed = {
                name: value
                for name, value in headers.items()
                if name.lower() not in ("host", "content-length")
            }
            url = sandbox.base_url(provider) + target
            told = await http.request(method, url, headers=passed, content=seen.body)
            body = told.content
            if method == "POST" and target.endswith(CREATES):
                created.append(body)
                body = created[0]
            yield answer(body, status=told.status_code, headers="Content-Type: application/json\r\n")

        cache.reply = reply
        deployment.env[f"BATCHLING_PROVIDERS__{provider.upper()}__BASE_URL"] = cache.url
        sandbox.clock.freeze()
        deployment.fork()
        first = await deployment.ask(n, provider=provider, rows=n)

        async def is_submitted() -> bool:
            return any(batch.provider_batch_id for batch in await deployment.batches())

        await wait_until(is_submitted, description="the first batch is submitted", within_s=60)
        second = await deployment.ask(n + 1, provider=provider, rows=n + 1)

        async def is_held() -> bool:
            return any("of this deployment" in batch.error for batch in await deployment.batches())

        await wait_until(is_held, description="the second batch says why it waits", within_s=60)
        sandbox.clock.thaw()
        results = await deployment.answered([*first, *second], within_s=90, hurried=True)
        assert {result.status for result in results} == {200}
        assert deployment.billed() == dict.fromkeys([*first, *second], 1)
        ids = [batch.provider_batch_id for batch in await deployment.batches()]
        assert len(set(ids)) == len(ids) == 2


async def test_a_batch_that_is_over_holds_no_id_of_its_provider(deployment: Deployment) -> None:
    async with Hand(deployment) as hand:
        await deployment.ask(2)
        [batch] = await deployment.batches()
        await hand.bring(batch.batch_id, BatchState.SUBMITTED)
        made = await hand.batch(batch.batch_id)
        known, account = ProviderBatchId(made.provider_batch_id or ""), made.account
        old, new = hand.store.claim(batch.batch_id, 0), hand.store.claim(BatchId("b-new"), 0)
        assert await old.own(known, account) is None
        assert await new.own(known, "another account") is None
        assert await new.own(known, account) == batch.batch_id
        await to_its_end(hand, batch.batch_id)
        assert await new.own(known, account) is None
