"""What calls show of an account: its last word, and silence from the moment a call was sent in full."""

from __future__ import annotations

import asyncio
import contextlib
import io
from collections.abc import AsyncIterator

import pytest

from batchling_client.wire.keys import ProviderBatchId
from batchling_worker.errors import PermanentError, QuotaFull, TemporaryError
from batchling_worker.provider import Ending
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
        error = wired.account.calls.error
        said.append(type(error) if error is not None else None)
    assert said == [TemporaryError, PermanentError, None]


async def test_an_answer_that_makes_no_sense_is_bad_weather(wire: Wire, wired: Desk) -> None:
    wire.reply = lambda seen: answer(b"<html>")
    with pytest.raises(TemporaryError):
        await wired.look(ONE)
    assert isinstance(wired.account.calls.error, TemporaryError)


async def test_silence_begins_when_the_call_was_sent_and_ends_with_the_answer(
    wire: Wire, wired: Desk
) -> None:
    calls = wired.account.calls
    assert calls.silent_s == 0.0
    wire.reply = lambda seen: None
    look = asyncio.create_task(wired.look(ONE))

    await wait_until(lambda: calls.silent_s > 0.05, description="the provider is silent")

    look.cancel()
    with pytest.raises(asyncio.CancelledError):
        await look
    wire.reply = lambda seen: answer(b'{"id":"batch_1","status":"validating"}')
    await wired.look(ONE)
    assert calls.silent_s == 0.0


async def test_the_slowest_of_the_calls_under_way_is_seen(wire: Wire, wired: Desk) -> None:
    calls = wired.account.calls
    assert calls.slowest is None
    wire.reply = lambda seen: None
    upload = asyncio.create_task(wired.upload())
    await wait_until(lambda: len(wire.seen) == 1, description="the file was sent")
    look = asyncio.create_task(wired.look(ONE))
    await wait_until(lambda: len(wire.seen) == 2, description="the look was sent")

    def slowest() -> str:
        return calls.slowest.does if calls.slowest else ""

    await wait_until(lambda: slowest() == "look at a batch", description="an upload may take longer")

    for call in (upload, look):
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
    assert calls.slowest is None


async def test_a_download_that_comes_a_byte_at_a_time_is_as_slow_as_silence(wire: Wire, wired: Desk) -> None:
    async def drops() -> AsyncIterator[bytes]:
        yield b"HTTP/1.1 200 Fine\r\nContent-Length: 1000000\r\n\r\n"
        while True:
            yield b"x"
            await asyncio.sleep(0.01)

    calls = wired.account.calls
    wire.reply = lambda seen: drops()
    read = asyncio.create_task(wired.answers(Ending(results=("file-1",))))

    await wait_until(
        lambda: calls.slowest is not None and calls.slowest.stalled_s > 0.3,
        description="the download is stalled",
    )

    read.cancel()
    with pytest.raises(asyncio.CancelledError):
        await read


async def test_a_file_that_is_taken_slowly_is_not_stalled(wire: Wire, wired: Desk) -> None:
    """The time that the step itself takes does not count as silence."""
    calls = wired.account.calls
    with calls.call("groq", "store a file") as call:
        file = call.watched(io.BytesIO(b"0123456789"))
        await asyncio.sleep(0.05)
        before_s = call.stalled_s
        assert file.read(4) == b"0123"
        assert call.stalled_s < before_s
        assert (file.seek(0), file.read()) == (0, b"0123456789")
        with call.ours():
            await asyncio.sleep(0.05)
            assert call.stalled_s == 0.0


@pytest.mark.parametrize("status", [400, 429])
async def test_a_full_quota_is_not_an_error_of_the_account(wire: Wire, wired: Desk, status: int) -> None:
    """Another model of the same account has a quota of its own."""
    wire.reply = lambda seen: answer(FULL, status=status)
    with pytest.raises(QuotaFull, match="Limit: 9 enqueued tokens"):
        await wired.create("file-1")
    assert wired.account.calls.error is None


async def test_a_create_that_may_have_happened_is_never_a_full_quota(wire: Wire, wired: Desk) -> None:
    wire.reply = lambda seen: answer(FULL, status=500)
    with pytest.raises(TemporaryError) as caught:
        await wired.create("file-1")
    assert not isinstance(caught.value, QuotaFull)
