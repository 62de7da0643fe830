"""A program that waits for each batch before it makes the next calls is warned while it does so, and no other is."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from batchling_client import Run, batchify
from batchling_client.pace import Pace
from batchling_client.wire.keys import BatchId, RequestId

from .answerer import Answerer, completion
from .asking import ask, ask_all

LINGER_S = 0.05
SIGN = "each batch was opened only after the one before it was answered"


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


def run_of(batches: Sequence[int], *, max_rows: int = 1000, answered: bool = True) -> None:
    """A program whose batches hold so many requests, each opened after the one before it was answered, or not."""
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
