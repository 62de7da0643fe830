"""A program that waits for each batch before it makes the next calls is warned while it does so, and no other is."""

from __future__ import annotations

import asyncio
import time
import weakref
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from batchling_client import Run, batchify
from batchling_client.block.run import handler_of
from batchling_client.session.pace import Pace
from batchling_client.wire.keys import BatchId, RequestId

from .answerer import Answerer, completion
from .asking import a_call, ask, ask_all

LINGER_S = 0.05
SIGN = "make more calls at once"


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if SIGN in record.getMessage()]


async def in_a_loop(run: Run) -> None:
    for n in range(5):
        await ask(run, f"q{n}")


async def behind_a_semaphore(run: Run) -> None:
    limit = asyncio.Semaphore(4)

    async def one(n: int) -> None:
        async with limit:
            await ask(run, f"q{n}")

    await asyncio.gather(*(one(n) for n in range(20)))


async def behind_a_semaphore_slowly(run: Run) -> None:
    """Make calls that take as long to make as to answer: fewer than four wait at a time."""
    limit = asyncio.Semaphore(4)

    async def one(n: int) -> None:
        async with limit:
            await asyncio.sleep(0.02 * (n % 7))
            await ask(run, f"q{n}")

    await asyncio.gather(*(one(n) for n in range(40)))


async def in_a_pool(run: Run) -> None:
    def one(n: int) -> None:
        time.sleep(0.02 * (n % 7))
        assert getattr(handler_of(run).answer_blocking(a_call(f"q{n}")), "status", None) == 200

    with ThreadPoolExecutor(4) as pool:
        loop = asyncio.get_running_loop()
        await asyncio.gather(*(loop.run_in_executor(pool, one, n) for n in range(20)))


async def by_workers_of_a_queue(run: Run) -> None:
    queue: asyncio.Queue[int] = asyncio.Queue()
    for n in range(20):
        queue.put_nowait(n)

    async def work() -> None:
        while not queue.empty():
            n = queue.get_nowait()
            await asyncio.sleep(0.02 * (n % 7))
            await ask(run, f"q{n}")

    await asyncio.gather(*(work() for _ in range(4)))


@pytest.mark.parametrize("program", [behind_a_semaphore_slowly, in_a_pool, by_workers_of_a_queue])
async def test_waves_that_overlap_are_warned_of_once_in_a_run(
    answerer: Answerer, caplog: pytest.LogCaptureFixture, program: Callable[[Run], Awaitable[None]]
) -> None:
    async with batchify(batch_window_seconds=LINGER_S) as run:
        await program(run)
    [said] = warnings(caplog)
    assert "at a time for groq/llama" in said


@pytest.mark.parametrize(
    ("program", "words"),
    [(in_a_loop, "1 call waits at a time"), (behind_a_semaphore, "4 calls wait at a time")],
)
async def test_calls_that_wait_for_the_batch_before_are_warned_of_once_in_a_run(
    answerer: Answerer, caplog: pytest.LogCaptureFixture, program: object, words: str
) -> None:
    assert callable(program)
    async with batchify(batch_window_seconds=0.5, name="evals") as run:
        await program(run)

    [said] = warnings(caplog)
    assert "Run 'evals'" in said
    assert f"{words} for groq/llama, whose batches take up to 50,000" in said
    assert "max_concurrency" in said


async def test_calls_at_once_in_many_full_batches_are_not_warned_of(
    answerer: Answerer, caplog: pytest.LogCaptureFixture
) -> None:
    answerer.go_on.clear()
    async with batchify(batch_window_seconds=LINGER_S, batch_size=5) as run:
        asked = asyncio.create_task(ask_all(run, *(f"q{n}" for n in range(40))))
        await asyncio.sleep(0)
        answerer.go_on.set()
        await asked
    assert answerer.n_batches == 8
    assert warnings(caplog) == []


async def test_a_failed_call_that_is_made_again_and_again_is_not_warned_of(
    answerer: Answerer, caplog: pytest.LogCaptureFixture
) -> None:
    answerer.answer = lambda row: (500, b'{"error":{"message":"no"}}', "provider")
    async with batchify(batch_window_seconds=LINGER_S) as run:
        for _ in range(4):
            assert (await ask(run)).status == 500
        answerer.answer = lambda row: (200, completion("now"), "provider")
        assert (await ask(run)).status == 200
    assert answerer.n_batches == 5
    assert warnings(caplog) == []


async def test_a_rerun_in_a_loop_that_is_answered_already_is_not_warned_of(
    answerer: Answerer, caplog: pytest.LogCaptureFixture
) -> None:
    async with batchify(batch_window_seconds=LINGER_S) as run:
        await ask_all(run, *(f"q{n}" for n in range(5)))
    async with batchify(batch_window_seconds=LINGER_S) as run:
        await in_a_loop(run)
    assert warnings(caplog) == []


class Overlapping:
    """A lane whose batches overlap: each call is queued in a batch of its own, and each is answered alone."""

    def __init__(self, *, max_rows: int = 50_000) -> None:
        self.pace = Pace(run="r", lane="acme/m", max_rows=max_rows)
        self.waiting: list[RequestId] = []
        self._n_calls = 0

    def call(self, caller: object) -> None:
        self._n_calls += 1
        request_id = RequestId(f"r{self._n_calls}")
        self.pace.ask(request_id, caller)
        # Rounds of batches are not seen: a batch is opened before an answer of the last one is there.
        self.pace.queued(BatchId("b"), [request_id])
        self.waiting.append(request_id)

    def answer(self, n_calls: int = 1) -> None:
        for _ in range(n_calls):
            self.pace.left(self.waiting[0])
            self.pace.answered(self.waiting.pop(0))


class Caller:
    """A thread or a task."""


def test_a_pool_whose_batches_overlap_is_warned_of_by_its_threads(caplog: pytest.LogCaptureFixture) -> None:
    lane, threads = Overlapping(), [Caller() for _ in range(20)]
    for n in range(60):
        # Not all of the threads have a call at any moment.
        if len(lane.waiting) == (13 if n < 14 else 12):
            lane.answer(7)
        lane.call(threads[n % 20])
    [said] = warnings(caplog)
    assert "20 calls wait at a time for acme/m" in said
    assert "each of the last 40 calls was made only after an earlier one was answered" in said


def test_rounds_that_fill_up_and_grow_no_more_are_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    """A limit that is kept by other means than threads and semaphores."""
    lane = Overlapping()
    for n in range(60):
        if n >= 20:
            lane.answer()
        lane.call(Caller())
    [said] = warnings(caplog)
    assert "20 calls wait at a time" in said


@pytest.mark.parametrize("max_rows", [50_000, 100])
def test_calls_that_are_made_at_once_and_slowly_are_not_warned_of(
    max_rows: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Answers come while calls are still being made, as many a second, give or take."""
    lane, keep = Overlapping(max_rows=max_rows), [Caller() for _ in range(2000)]
    for n, caller in enumerate(keep):
        lane.call(caller)
        if n % 50 == 49 and n > 200:
            lane.answer(min(len(lane.waiting), 45 + n % 7))
    assert warnings(caplog) == []


def test_a_caller_is_not_kept() -> None:
    """A task holds its context, and with it the block."""
    lane, caller = Overlapping(), Caller()
    lane.call(caller)
    kept = weakref.ref(caller)
    del caller
    assert kept() is None


def test_callers_that_have_gone_count_as_callers(caplog: pytest.LogCaptureFixture) -> None:
    """Requests of a server, each in a task of its own that ends with its answer."""
    lane = Overlapping()
    for n in range(40):
        lane.call(Caller())
        if n % 3 == 2:
            lane.answer(2)
    assert warnings(caplog) == []


def run_of(batches: Sequence[int], *, max_rows: int = 1000, answered: bool = True) -> None:
    """Play a program with batches of these sizes, each opened after the batch before it was answered, or not."""
    pace = Pace(run="r", lane="acme/m", max_rows=max_rows)
    for number, n_rows in enumerate(batches):
        ids = [RequestId(f"{number}-{n}") for n in range(n_rows)]
        pace.queued(BatchId(f"b{number}"), ids)
        if answered:
            pace.answered(ids[0])


@pytest.mark.parametrize("batches", [[1, 1, 1], [20, 20, 20], [20, 20, 1], [1, 20, 20, 20], [12, 9, 7]])
def test_three_small_batches_one_after_the_other_are_the_sign(
    batches: Sequence[int], caplog: pytest.LogCaptureFixture
) -> None:
    run_of(batches)
    assert len(warnings(caplog)) == 1


@pytest.mark.parametrize(
    "batches",
    [[20, 20], [500, 500, 500], [60, 20, 4], [20, 2, 1]],
    ids=["two phases", "large phases", "rounds that shrink", "a few are asked anew"],
)
def test_phases_of_many_calls_and_rounds_that_shrink_are_not(
    batches: Sequence[int], caplog: pytest.LogCaptureFixture
) -> None:
    run_of(batches)
    assert warnings(caplog) == []


def test_batches_that_run_side_by_side_are_not(caplog: pytest.LogCaptureFixture) -> None:
    run_of([5] * 20, answered=False)
    assert warnings(caplog) == []
