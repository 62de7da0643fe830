"""What calls show of an account: its last word, and silence from the moment a call was sent in full."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from batchling_client.wire.keys import ProviderBatchId
from batchling_worker.errors import PermanentError, QuotaFull, TemporaryError
from tests.waiting import wait_until

from .desk import Desk
from .wire import Wire, answer

FULL = (
    b'{"error":{"message":"Enqueued token limit reached for m. Limit: 9 enqueued tokens. Please try again."}}'
)
ONE = ProviderBatchId("batch_1")


async def test_the_last_call_counts(wire: Wire, wired: Desk) -> None:
    said: list[type[Exception] | None] = []
    replies = [
        answer(b"busy", status=503),
        answer(b"{}", status=401),
        answer(b'{"id":"batch_1","status":"validating"}'),
    ]
    wire.reply = lambda seen: replies.pop(0)
    while replies:
        with contextlib.suppress(TemporaryError, PermanentError):
            await wired.look(ONE)
        error = wired.account.weather.error
        said.append(type(error) if error is not None else None)
    assert said == [TemporaryError, PermanentError, None]


async def test_an_answer_that_makes_no_sense_is_bad_weather(wire: Wire, wired: Desk) -> None:
    wire.reply = lambda seen: answer(b"<html>")
    with pytest.raises(TemporaryError):
        await wired.look(ONE)
    assert isinstance(wired.account.weather.error, TemporaryError)


async def test_silence_begins_when_the_call_was_sent_and_ends_with_the_answer(
    wire: Wire, wired: Desk
) -> None:
    weather = wired.account.weather
    assert weather.silent_s == 0.0
    wire.reply = lambda seen: None
    look = asyncio.create_task(wired.look(ONE))

    await wait_until(lambda: weather.silent_s > 0.05, description="the provider is silent")

    look.cancel()
    with pytest.raises(asyncio.CancelledError):
        await look
    wire.reply = lambda seen: answer(b'{"id":"batch_1","status":"validating"}')
    await wired.look(ONE)
    assert weather.silent_s == 0.0


@pytest.mark.parametrize("status", [400, 429])
async def test_a_full_quota_is_no_bad_weather(wire: Wire, wired: Desk, status: int) -> None:
    """Another model of the same account has a quota of its own."""
    wire.reply = lambda seen: answer(FULL, status=status)
    with pytest.raises(QuotaFull, match="Limit: 9 enqueued tokens"):
        await wired.create("file-1")
    assert wired.account.weather.error is None


async def test_a_create_that_may_have_happened_is_never_a_full_quota(wire: Wire, wired: Desk) -> None:
    wire.reply = lambda seen: answer(FULL, status=500)
    with pytest.raises(TemporaryError) as caught:
        await wired.create("file-1")
    assert not isinstance(caught.value, QuotaFull)
