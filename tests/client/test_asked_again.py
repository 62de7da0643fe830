"""A call that left without an answer and is made again, in the same run, joins the request that it left."""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest

from batchling_client import Run, batchify
from batchling_client.block.run import handler_of
from batchling_client.intercept.interceptor import HttpReply
from batchling_client.session.calls import Calls, Request
from batchling_client.session.lanes import Terms
from batchling_client.session.occurrences import Occurrences
from batchling_client.wire.ids import new_run_id
from batchling_client.wire.routes import Routes
from tests.waiting import wait_until

from .answerer import Answerer, completion
from .asking import a_call, ask, ask_all, batches_of, content, error_of

LINGER_S = 0.05
EQUAL = b"equal"
Way = Callable[[Coroutine[Any, Any, HttpReply]], Awaitable[object]]


MOMENT_S = 0.1


async def wait_for(call: Coroutine[Any, Any, HttpReply]) -> object:
    return await asyncio.wait_for(call, MOMENT_S)


async def timeout(call: Coroutine[Any, Any, HttpReply]) -> object:
    async with asyncio.timeout(MOMENT_S):
        return await call


async def cancelled_task(call: Coroutine[Any, Any, HttpReply]) -> object:
    task = asyncio.create_task(call)
    await asyncio.wait([task], timeout=MOMENT_S)
    task.cancel()
    return await task


async def failing_group(call: Coroutine[Any, Any, HttpReply]) -> object:
    async with asyncio.TaskGroup() as group:
        task = group.create_task(call)
        await asyncio.wait([task], timeout=MOMENT_S)
        raise ZeroDivisionError


WAYS: list[Way] = [wait_for, timeout, cancelled_task, failing_group]


async def give_up(run: Run, *prompts: str, way: Way = wait_for, **how: Any) -> None:
    """Make the calls and leave them, three times, and for as long as not all of them are at the provider."""
    n_times = 0
    while n_times < 3 or not await are_submitted(run, len(prompts)):
        n_times += 1
        await asyncio.gather(*(leave(way, ask(run, prompt, **how)) for prompt in prompts))


async def leave(way: Way, call: Coroutine[Any, Any, HttpReply]) -> None:
    with contextlib.suppress(TimeoutError, asyncio.CancelledError, BaseExceptionGroup):
        await way(call)
        raise AssertionError("it was answered")


async def are_submitted(run: Run, n_requests: int) -> bool:
    """Return whether so many requests are at the provider: those of calls that left in time are withdrawn."""
    batches = await batches_of(run)
    n_there = sum(batch.n_requests - batch.n_dropped for batch in batches)
    return n_there >= n_requests and all(batch.provider_batch_id for batch in batches)


@pytest.mark.parametrize("cache", [True, False], ids=["cache", "no cache"])
@pytest.mark.parametrize("way", WAYS)
async def test_four_prompts_of_five_tries_are_four_requests(
    answerer: Answerer, way: Way, cache: bool
) -> None:
    answerer.go_on.clear()
    prompts = [f"q{n}" for n in range(4)]
    async with batchify(batch_window_seconds=LINGER_S, cache=cache) as run:
        await give_up(run, *prompts, way=way)
        asked = asyncio.gather(*(ask(run, prompt) for prompt in prompts))
        await asyncio.sleep(0)
        answerer.go_on.set()
        replies = await asked

    assert [content(reply).split()[0] for reply in replies] == prompts
    assert len(answerer.times_answered) == 4
    assert set(answerer.times_answered.values()) == {1}
    assert run.progress.n_requests == run.progress.n_succeeded == 4
    assert run.progress.n_left == 0


async def test_an_answer_that_came_meanwhile_is_had_at_once(answerer: Answerer) -> None:
    answerer.go_on.clear()
    async with batchify(batch_window_seconds=LINGER_S) as run:
        await give_up(run, "hello")
        answerer.go_on.set()
        await wait_until(lambda: bool(answerer.times_answered), description="the batch is answered")
        assert (await ask(run)).status == 200

    assert list(answerer.times_answered.values()) == [1]


async def test_twenty_equal_prompts_that_wait_together_stay_twenty_however_often_they_are_repeated(
    answerer: Answerer,
) -> None:
    answerer.go_on.clear()
    async with batchify(batch_window_seconds=LINGER_S) as run:
        await give_up(run, *["equal"] * 20)
        asked = asyncio.gather(*(ask(run, "equal") for _ in range(20)))
        await asyncio.sleep(0)
        answerer.go_on.set()
        answers = {content(reply) for reply in await asked}

    assert len(answers) == len(answerer.times_answered) == 20
    assert set(answerer.times_answered.values()) == {1}


async def test_a_call_that_waits_keeps_its_request_when_an_equal_one_leaves(answerer: Answerer) -> None:
    answerer.go_on.clear()
    async with batchify(batch_window_seconds=LINGER_S) as run:
        patient = asyncio.create_task(ask(run, "equal"))
        await asyncio.sleep(0)
        await give_up(run, "equal")
        both = asyncio.gather(ask(run, "equal"), ask(run, "equal"))
        await wait_until(lambda: run.progress.n_waiting == 3, description="three wait")
        answerer.go_on.set()
        answers = {content(reply) for reply in (await patient, *await both)}

    assert len(answers) == len(answerer.times_answered) == 3


async def test_a_withdrawn_request_is_queued_again_and_answered_once(answerer: Answerer) -> None:
    """Given up while its batch still lingers: its row comes to life again, or goes into the next batch."""
    async with batchify(batch_window_seconds=1.0) as run:
        for _ in range(3):
            await leave(wait_for, ask(run))
            await wait_until(lambda: run.progress.n_left == 1, description="it is left")
        assert (await ask(run)).status == 200

    assert list(answerer.times_answered.values()) == [1]
    assert "1 of 1 requests answered" in run.summary()


async def test_a_rerun_pays_nothing_after_a_run_that_gave_up_and_repeated_its_calls(
    answerer: Answerer,
) -> None:
    answerer.go_on.clear()
    async with batchify(batch_window_seconds=LINGER_S) as run:
        await give_up(run, *["equal"] * 3)
        again = asyncio.gather(*(ask(run, "equal") for _ in range(3)))
        await asyncio.sleep(0)
        answerer.go_on.set()
        first = sorted(content(reply) for reply in await again)
    async with batchify(batch_window_seconds=LINGER_S) as run:
        assert sorted(content(reply) for reply in await ask_all(run, *["equal"] * 3)) == first

    assert len(answerer.times_answered) == 3


async def test_a_failed_call_made_again_is_the_same_request_so_that_a_rerun_pays_nothing(
    answerer: Answerer,
) -> None:
    answerer.answer = lambda row: (500, b'{"error":{"message":"no"}}', "provider")
    async with batchify(batch_window_seconds=LINGER_S) as run:
        assert error_of(await ask(run))["message"] == "no"
        answerer.answer = lambda row: (200, completion("now"), "provider")
        assert content(await ask(run)) == "now"
    async with batchify(batch_window_seconds=LINGER_S) as run:
        assert content(await ask(run)) == "now"

    assert list(answerer.times_answered.values()) == [2]


async def test_a_call_past_its_deadline_made_again_joins_its_request(
    answerer: Answerer, caplog: pytest.LogCaptureFixture
) -> None:
    answerer.go_on.clear()
    async with batchify(batch_window_seconds=LINGER_S, deadline=1.5) as run:
        assert (await ask(run)).status == 504
        await wait_until(lambda: "1 call was given up" in caplog.text, description="it is said")
        answerer.go_on.set()
        await wait_until(lambda: bool(answerer.times_answered), description="the batch is answered")
        assert (await ask(run)).status == 200

    assert list(answerer.times_answered.values()) == [1]


async def test_a_stream_made_of_an_answer_joins_what_it_left(answerer: Answerer) -> None:
    answerer.go_on.clear()
    async with batchify(batch_window_seconds=LINGER_S, stream="batch") as run:
        await give_up(run, "hello", stream=True)
        asked = asyncio.create_task(ask(run, stream=True))
        await asyncio.sleep(0)
        answerer.go_on.set()
        assert (await asked).headers["content-type"].startswith("text/event-stream")

    assert list(answerer.times_answered.values()) == [1]


async def test_a_call_left_on_one_event_loop_is_joined_from_another(answerer: Answerer) -> None:
    """As with two `asyncio.run` in one plain block, or a thread that was interrupted."""
    answerer.go_on.clear()

    def program(run: Run) -> None:
        asyncio.run(give_up(run, "hello"))
        loop.call_soon_threadsafe(answerer.go_on.set)
        replies.append(asyncio.run(ask(run)))

    loop = asyncio.get_running_loop()
    replies: list[HttpReply] = []
    async with batchify(batch_window_seconds=LINGER_S) as run:
        await asyncio.to_thread(program, run)

    assert [reply.status for reply in replies] == [200]
    assert list(answerer.times_answered.values()) == [1]


async def test_the_first_time_and_in_the_summary_it_is_said_that_asking_again_is_free(
    answerer: Answerer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("batchling_client.block.given_up.COUNTING_S", 3.0)
    answerer.go_on.clear()
    async with batchify(batch_window_seconds=LINGER_S, name="evals") as run:
        await give_up(run, "q0", "q1", "q2")
        await wait_until(lambda: "given up" in caplog.text, description="it is said")
        answerer.go_on.set()
        await ask(run, "q0")

    [said] = [record.getMessage() for record in caplog.records if "given up" in record.getMessage()]
    assert "Run 'evals'" in said
    assert "3 calls were given up, and their batches finish all the same" in said
    assert "in this run or the next, gets the answer and costs nothing more" in said
    assert "1 of 3 requests answered, 2 left" in run.summary()
    assert "2 calls were given up" in run.summary()


async def test_calls_that_were_sent_at_full_price_are_not_said_to_be_free(
    answerer: Answerer, caplog: pytest.LogCaptureFixture
) -> None:
    answerer.go_on.clear()
    async with batchify(batch_window_seconds=LINGER_S, deadline=0.3, on_deadline="realtime") as run:
        assert not isinstance(await handler_of(run).answer(a_call()), HttpReply)

    assert "given up" not in caplog.text


def number(calls: Calls, **how: Any) -> int:
    read = calls.read(a_call(**how))
    assert isinstance(read, Request)
    assert read.place is not None
    return read.place.number


def test_an_sdk_that_tries_again_takes_the_place_it_left_and_else_the_latest() -> None:
    calls = Calls(Terms(run_id=new_run_id(), run_name=""), Routes())
    first, second = (calls.read(a_call()) for _ in range(2))
    assert isinstance(first, Request)
    assert isinstance(second, Request)
    assert first.place is not None
    retry: dict[str, str] = {"x-stainless-retry-count": "1"}

    shared = calls.read(a_call(headers=retry))
    assert isinstance(shared, Request)
    assert shared.place is not None
    assert shared.place.number == 2
    # The call that has this place still waits.
    calls.free(shared.place, left=True)
    calls.free(first.place, left=True)
    assert number(calls, headers=retry) == 1
    assert number(calls) == 3


def test_places_are_taken_once_from_whatever_thread_they_are_freed_and_taken() -> None:
    occurrences = Occurrences()
    held: list[int] = []
    most = 8

    def program(seed: int) -> None:
        dice = random.Random(seed)
        for _ in range(500):
            place = occurrences.take(EQUAL, is_retry=False)
            held.append(place.number)
            assert held.count(place.number) == 1
            if dice.random() < 0.5:
                threading.Event().wait(0)
            held.remove(place.number)
            occurrences.free(place, left=True)

    threads = [threading.Thread(target=program, args=(seed,)) for seed in range(most)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert occurrences.take(EQUAL, is_retry=False).number <= most
