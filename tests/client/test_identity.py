"""Identity: what is the same request, for whom, and for how long; whatever failed is nobody's answer but its own."""

import asyncio
import random
from typing import Any

import pytest
from redis.exceptions import ConnectionError

from batchling_client import batchify
from batchling_client.intercept.interceptor import HttpCall
from batchling_client.session.calls import Calls, Request
from batchling_client.session.lanes import Terms
from batchling_client.session.waiters import Waiters
from batchling_client.wire.deployment.cancellation import end
from batchling_client.wire.deployment.provider_settings import EndpointSettings, routes_of
from batchling_client.wire.ids import new_run_id
from batchling_client.wire.keys import RequestId
from batchling_client.wire.scripts import Enqueued, Scripts
from tests.waiting import wait_until

from .answerer import Answerer, completion
from .asking import a_call, ask, ask_all, content, error_of
from .conftest import RedisServer

LINGER_S = 0.05
OPENAI: dict[str, Any] = {"host": "api.openai.com", "path": "/v1/chat/completions"}


def identity(call: HttpCall, **terms: Any) -> RequestId:
    said = {name: EndpointSettings(base_url=url) for name, url in terms.pop("stand_ins", {}).items()}
    read = Calls(Terms(run_id=new_run_id(), run_name="", **terms), routes_of(said)).read(call)
    assert isinstance(read, Request)
    return read.request_id


SAME: dict[str, tuple[HttpCall, dict[str, Any]]] = {
    "again": (a_call(**OPENAI), {}),
    "another run's name and size": (a_call(**OPENAI), {"batch_size": 7, "linger_s": 9.0, "poll_s": 3.0}),
    "another spelling of the JSON": (
        a_call(
            **OPENAI,
            body=b'{ "messages": [{"content": "\\u0068ello", "role": "user"}],\n "model": "llama" }',
        ),
        {},
    ),
    "headers of one call": (
        a_call(**OPENAI, headers={"user-agent": "x", "x-stainless-lang": "js", "x-request-id": "7"}),
        {},
    ),
    "no stand-in for another provider": (a_call(**OPENAI), {"stand_ins": {"groq": "http://g"}}),
    "Bearer left out": (a_call(**OPENAI, key=None, headers={"authorization": "gsk-test"}), {}),
}
OTHERS: dict[str, tuple[HttpCall, dict[str, Any]]] = {
    "credential": (a_call(**OPENAI, key="gsk-other"), {}),
    "organization": (a_call(**OPENAI, headers={"openai-organization": "o"}), {}),
    "another organization": (a_call(**OPENAI, headers={"openai-organization": "p"}), {}),
    "project": (a_call(**OPENAI, headers={"openai-project": "o"}), {}),
    "stand-in": (a_call(**OPENAI), {"stand_ins": {"openai": "http://127.0.0.1:9/openai"}}),
    "another stand-in": (a_call(**OPENAI), {"stand_ins": {"openai": "http://127.0.0.1:10/openai"}}),
    "provider": (a_call(), {}),
    "endpoint": (a_call(host="api.openai.com", path="/v1/responses"), {}),
    "model": (a_call(**OPENAI, model="llama-2"), {}),
    "prompt": (a_call("hello ", **OPENAI), {}),
    "one more parameter": (a_call(**OPENAI, temperature=0), {}),
    "a whole number": (a_call(**OPENAI, temperature=1), {}),
    "the same with a decimal point": (a_call(**OPENAI, temperature=1.0), {}),
    "null": (a_call(**OPENAI, seed=None), {}),
    "cache off": (a_call(**OPENAI), {"cache": False}),
    "cache off once more": (a_call(**OPENAI), {"cache": False}),
}


@pytest.mark.parametrize("like", SAME)
def test_differences_of_spelling_make_the_same_request(like: str) -> None:
    call, terms = SAME[like]
    assert identity(call, **terms) == identity(a_call(**OPENAI))


def test_another_completion_window_makes_no_other_request() -> None:
    assert identity(a_call(), completion_window="48h") == identity(a_call())


def test_another_question_or_payer_makes_another_request() -> None:
    ids = {unlike: identity(call, **terms) for unlike, (call, terms) in OTHERS.items()}
    ids["the first"] = identity(a_call(**OPENAI))
    assert len(set(ids.values())) == len(ids), ids


async def test_a_rerun_in_another_order_pays_for_nothing_again(answerer: Answerer) -> None:
    """Tasks do not start in the same order twice; equal prompts are distinguished by how many came before."""
    prompts = [f"prompt {n}" for n in range(40)] + ["equal"] * 5
    async with batchify(batch_window_seconds=LINGER_S) as run:
        first = await ask_all(run, *prompts)
    random.shuffle(prompts)
    async with batchify(batch_window_seconds=LINGER_S) as run:
        second = await ask_all(run, *prompts)

    assert sorted(map(content, first)) == sorted(map(content, second))
    assert set(answerer.times_answered.values()) == {1}
    assert len(answerer.times_answered) == 45


async def test_without_cache_nothing_is_met_in_either_direction(answerer: Answerer) -> None:
    replies = []
    for cache in (True, False, True, False):
        async with batchify(batch_window_seconds=LINGER_S, cache=cache) as run:
            replies.append(content(await ask(run, "same")))
    assert replies[0] == replies[2]
    assert len(set(replies)) == 3
    assert len(answerer.times_answered) == 3


async def test_without_cache_nothing_in_flight_is_joined_in_either_direction(answerer: Answerer) -> None:
    answerer.go_on.clear()
    async with (
        batchify(batch_window_seconds=LINGER_S) as one,
        batchify(batch_window_seconds=LINGER_S, cache=False) as two,
        batchify(batch_window_seconds=LINGER_S, cache=False) as three,
    ):
        asked = asyncio.gather(*(ask(run, "same") for run in (two, one, three)))
        await wait_until(lambda: three.progress.n_waiting == 1, description="all three wait")
        answerer.go_on.set()
        assert len({content(reply) for reply in await asked}) == 3


ORIGINS = (
    "batch_expired",
    "batch_cancelled",
    "batch_lost",
    "batch_row_lost",
    "batch_failed",
    "batch_unreadable",
)


@pytest.mark.parametrize(
    ("status", "origin"),
    [*((status, "provider") for status in (400, 401, 404, 429, 500)), *((502, code) for code in ORIGINS)],
)
async def test_no_failure_is_kept_for_a_rerun_be_it_the_providers_or_ours(
    answerer: Answerer, status: int, origin: str
) -> None:
    answerer.answer = lambda row: (status, b'{"error":{"message":"no"}}', origin)
    async with batchify(batch_window_seconds=LINGER_S) as run:
        assert (await ask(run)).status == status
    answerer.answer = lambda row: (200, completion("now"), "provider")
    async with batchify(batch_window_seconds=LINGER_S) as run:
        assert content(await ask(run)) == "now"
    async with batchify(batch_window_seconds=LINGER_S) as run:
        assert content(await ask(run)) == "now"
    assert list(answerer.times_answered.values()) == [2]


async def test_an_answer_whose_time_is_over_is_asked_for_again(answerer: Answerer) -> None:
    for _ in range(2):
        async with batchify(batch_window_seconds=LINGER_S) as run:
            await ask(run)
        for key in await answerer.redis.keys(answerer.keys.result("*")):
            await answerer.redis.pexpire(key, 1)
        await wait_until(lambda: _no_results(answerer), description="the answer's time is over")
    assert list(answerer.times_answered.values()) == [2]


async def _no_results(answerer: Answerer) -> bool:
    return not await answerer.redis.keys(answerer.keys.result("*"))


async def test_an_answer_that_goes_between_two_looks_is_asked_for_again(
    answerer: Answerer, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Enqueue found it; its time is over before it is read. A caller that took its word would wait for ever."""
    async with batchify(batch_window_seconds=LINGER_S) as run:
        await ask(run)
    announce = Waiters.announce

    def too_late(self: Waiters, request_ids: Any) -> None:
        found = list(request_ids)
        with redis_server.client() as client:
            client.unlink(*(answerer.keys.result(one) for one in found))
        monkeypatch.setattr(Waiters, "announce", announce)
        self.announce(found)

    monkeypatch.setattr(Waiters, "announce", too_late)
    async with batchify(batch_window_seconds=LINGER_S) as run:
        reply = await asyncio.wait_for(ask(run), 10)
    assert reply.status == 200
    assert list(answerer.times_answered.values()) == [2]


@pytest.mark.parametrize("mail_is_late", [False, True])
async def test_a_failure_from_before_an_outage_is_not_the_answer_to_what_was_asked_in_it(
    mail_is_late: bool,
    own_redis: RedisServer,
    namespace: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("BATCHLING_REDIS_URL", own_redis.url)
    read_mailbox = Waiters._read_mailbox

    async def read_late(self: Waiters) -> None:
        # Until then the answers are found by looking for them.
        await (read_mailbox(self) if "Redis is away" in caplog.text else self._look_after())

    if mail_is_late:
        monkeypatch.setattr(Waiters, "_read_mailbox", read_late)
    worker = Answerer(own_redis.url, namespace, lambda row: (400, b'{"error":{"message":"no"}}', "provider"))
    work = asyncio.create_task(worker.work())
    async with batchify(batch_window_seconds=LINGER_S) as outer:
        # The outer block keeps the session, and with it what it knows of Redis.
        await ask(outer, "before")
        async with batchify(batch_window_seconds=LINGER_S) as run:
            assert (await ask(run, "same")).status == 400
        worker.answer = lambda row: (200, completion("now"), "provider")
        async with batchify(batch_window_seconds=LINGER_S) as run:
            await asyncio.to_thread(own_redis.stop)
            asked = asyncio.create_task(ask(run, "same"))
            await wait_until(lambda: "Redis is away" in caplog.text, description="the outage is noticed")
            await asyncio.to_thread(own_redis.start)
            assert content(await asyncio.wait_for(asked, 20)) == "now"
    await end([work])
    await worker.redis.aclose()


async def test_a_failure_that_came_while_the_reply_was_lost_is_the_answer(
    answerer: Answerer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The call was queued, ran and failed before its client knew that it was queued: it must not be sent again."""
    answerer.answer = lambda row: (400, b'{"error":{"message":"no"}}', "provider")
    enqueue = Scripts.enqueue

    async def torn(self: Scripts, **how: Any) -> Enqueued:
        monkeypatch.setattr(Scripts, "enqueue", enqueue)
        await enqueue(self, **how)
        await wait_until(lambda: bool(answerer.times_answered), description="it has failed")
        raise ConnectionError("the reply is lost")

    monkeypatch.setattr(Scripts, "enqueue", torn)
    async with batchify(batch_window_seconds=LINGER_S) as run:
        reply = await asyncio.wait_for(ask(run), 10)
        # One sender a session: by now it has done with the first.
        await asyncio.wait_for(ask(run, "another"), 10)
    assert error_of(reply)["message"] == "no"
    assert await answerer.redis.keys(answerer.keys.request("*")) == []
    assert list(answerer.times_answered.values()) == [1, 1]
