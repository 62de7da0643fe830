"""A request that is asked for again and not queued yet: what Redis has of it by then is older than the call."""

import asyncio
from typing import Any

import pytest

from batchling_client import batchify
from batchling_client.session.waiters import Waiters
from batchling_client.wire.scripts import Enqueued, Scripts
from tests.waiting import wait_until

from .answerer import Answerer, completion
from .asking import ask, content

LINGER_S = 0.05
WITHIN_S = 20
FAILURE = (400, b'{"error":{"message":"no"}}', "provider")


@pytest.fixture
def waiters(monkeypatch: pytest.MonkeyPatch) -> list[Waiters]:
    """The waiters of the sessions that a test opens; they look after requests only when they have a reason."""
    made: list[Waiters] = []
    init = Waiters.__init__

    def rarely(self: Waiters, *given: Any, **named: Any) -> None:
        made.append(self)
        init(self, *given, **{**named, "drain_period_s": 1000.0})

    monkeypatch.setattr(Waiters, "__init__", rarely)
    return made


@pytest.mark.parametrize("found", ["by looking", "by old mail"])
async def test_an_older_failure_is_not_the_answer_to_a_call_that_is_not_queued_yet(
    found: str, answerer: Answerer, waiters: list[Waiters], monkeypatch: pytest.MonkeyPatch
) -> None:
    answerer.answer = lambda row: FAILURE
    enqueue, queues = Scripts.enqueue, asyncio.Event()

    async def held_up(self: Scripts, **how: Any) -> Enqueued:
        await queues.wait()
        return await enqueue(self, **how)

    async with batchify(batch_window_seconds=LINGER_S) as run:
        assert (await asyncio.wait_for(ask(run, "same"), WITHIN_S)).status == 400
        answerer.answer = lambda row: (200, completion("now"), "provider")
        monkeypatch.setattr(Scripts, "enqueue", held_up)
        asked = asyncio.create_task(ask(run, "same"))
        await wait_until(lambda: waiters[0].n_outstanding == 1, description="it is asked for")

        if found == "by looking":
            await waiters[0]._look_after()
        else:
            waiters[0]._last_mail = b"0-0"
            await waiters[0]._read_mailbox()
        queues.set()

        assert content(await asyncio.wait_for(asked, WITHIN_S)) == "now"


async def test_mail_that_is_read_before_the_reply_of_the_enqueue_is_not_lost(
    answerer: Answerer, waiters: list[Waiters], monkeypatch: pytest.MonkeyPatch
) -> None:
    enqueue = Scripts.enqueue

    async def slow(self: Scripts, **how: Any) -> Enqueued:
        reply = await enqueue(self, **how)
        await wait_until(lambda: waiters[0].last_mail != b"0-0", description="the mail is read")
        return reply

    monkeypatch.setattr(Scripts, "enqueue", slow)
    async with batchify(batch_window_seconds=LINGER_S) as run:
        reply = await asyncio.wait_for(ask(run, "early"), WITHIN_S)

    assert reply.status == 200
