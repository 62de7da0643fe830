"""A cache on the way to a provider answers looks with another batch: the batch is held, and looked at again."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import httpx

from tests.deployment import Deployment
from tests.providers.wire import Reply, Seen, Wire, answer
from tests.waiting import wait_until

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
