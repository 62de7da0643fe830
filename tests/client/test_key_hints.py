"""The end of an API key is stored beside it, so that people can name it, unless that would tell too much."""

from __future__ import annotations

import pytest

from batchling_client import batchify
from batchling_client.views.inspection import Inspection
from batchling_client.views.key_view import keys_of

from .answerer import Answerer
from .asking import ask

LINGER_S = 0.05
LONG, SHORT = "gsk-test-0123456789abcdef", "gsk-short"


async def seen(answerer: Answerer) -> list[str | None]:
    inspection = Inspection(answerer.redis, answerer.keys)
    return [one.key_hint for one in await keys_of(inspection, answerer.redis, answerer.keys)]


async def test_the_end_of_a_key_is_seen_and_no_more_of_it(answerer: Answerer) -> None:
    async with batchify(batch_window_seconds=LINGER_S) as run:
        await ask(run, key=LONG)

    assert await seen(answerer) == ["cdef"]
    [place] = await answerer.redis.keys(answerer.keys.key_hint("*"))
    assert await answerer.redis.get(place) == b"cdef"


@pytest.mark.parametrize("what", ["short", "account", "off"])
async def test_nothing_is_stored_of_a_short_key_an_account_or_if_it_is_switched_off(
    answerer: Answerer, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BATCHLING_KEY_HINTS", "false" if what == "off" else "true")
    account = "evals" if what == "account" else None
    async with batchify(batch_window_seconds=LINGER_S, account=account) as run:
        await ask(run, key=SHORT if what == "short" else LONG)

    assert await seen(answerer) == [None]
    assert await answerer.redis.keys(answerer.keys.key_hint("*")) == []
