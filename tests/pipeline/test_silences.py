"""A provider that takes a call and is silent: the batch shows which call it is, long before the call times out."""

from __future__ import annotations

import re

import pytest

from tests.deployment import Deployment
from tests.proxy import How, Proxy, Rule, Way
from tests.waiting import wait_until

SILENCE_S = "12"
CALLS = {
    "store a file": b"POST /groq/openai/v1/files",
    "create a batch": b"POST /groq/openai/v1/batches",
    "look at a batch": b"GET /groq/openai/v1/batches/",
    "read results": b"GET /groq/openai/v1/files/",
}


@pytest.mark.parametrize("does", CALLS)
async def test_a_silent_call_is_shown_while_it_lasts(deployment: Deployment, does: str) -> None:
    with Proxy(deployment.sandbox.base_url("groq")) as proxy:
        proxy.add(Rule(how=How.SILENCE, way=Way.DOWN, after=CALLS[does]))
        deployment.env["BATCHLING_PROVIDERS__GROQ__BASE_URL"] = proxy.url
        deployment.fork(http_silence_seconds=SILENCE_S)
        ids = await deployment.ask(3)

        async def is_shown() -> bool:
            shown = [batch.error for batch in await deployment.batches()]
            return any(
                re.fullmatch(rf"groq has not answered for \d+ s when asked to {does}", one) for one in shown
            )

        await wait_until(is_shown, description="the batch shows the silence", within_s=60)

        results = await deployment.answered(ids)
        assert {result.status for result in results} == {200}
        assert deployment.billed() == dict.fromkeys(ids, 1)
        assert not any(batch.error for batch in await deployment.batches())
