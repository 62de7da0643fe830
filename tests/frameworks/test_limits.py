"""A framework's limit of concurrent calls is the size of its batches (docs/frameworks.md)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

import dspy
import pytest
from langchain_openai import ChatOpenAI
from pydantic_ai import Agent
from pydantic_evals import Case, Dataset

from batchling_client import batchify
from tests.sdks.books import Books

from .asking import GPT, dspy_lm

pytestmark = pytest.mark.timeout(180)
"""A framework imports the most of itself with its first call, beside the other columns of the matrix."""

N_CALLS: Final = 6
QUICK: Final[dict[str, Any]] = {
    "batch_window_seconds": 1.0,
    "batch_poll_interval_seconds": 0.1,
    "cache": False,
    "live_display": False,
}
Many = Callable[[Sequence[str]], Awaitable[Sequence[Any]]]


def langchain(limit: int | None) -> Many:
    async def ask(prompts: Sequence[str]) -> list[Any]:
        answers = await ChatOpenAI(model=GPT).abatch(list(prompts), config={"max_concurrency": limit})
        return [answer.text for answer in answers]

    return ask


def evals(limit: int | None) -> Many:
    async def ask(prompts: Sequence[str]) -> list[Any]:
        async def answer(prompt: str) -> Any:
            return (await Agent(f"openai-chat:{GPT}").run(prompt)).output

        dataset: Any = Dataset(name="limits", cases=[Case(name=prompt, inputs=prompt) for prompt in prompts])
        report = await dataset.evaluate(answer, progress=False, max_concurrency=limit)
        return [case.output for case in report.cases]

    return ask


@pytest.mark.parametrize(
    ("ask", "sizes"),
    [
        pytest.param(langchain(None), {6: 1}, id="langchain"),
        pytest.param(langchain(2), {2: 3}, id="langchain max_concurrency=2"),
        pytest.param(evals(None), {6: 1}, id="pydantic-evals"),
        pytest.param(evals(2), {2: 3}, id="pydantic-evals max_concurrency=2"),
    ],
)
async def test_the_limit_of_concurrent_calls_is_the_size_of_a_batch(
    ask: Many, sizes: dict[int, int], key: str, books: Books
) -> None:
    prompts = [f"{key[3:]}: question {n}" for n in range(N_CALLS)]

    async with batchify(**QUICK):
        answers = await ask(prompts)

    check(prompts, answers, books, sizes)


@pytest.mark.parametrize(("n_threads", "sizes"), [(6, {6: 1}), (2, {2: 3})])
def test_the_threads_of_dspy_are_the_size_of_a_batch_in_a_plain_block(
    n_threads: int, sizes: dict[int, int], key: str, books: Books
) -> None:
    prompts = [f"{key[3:]}: question {n}" for n in range(N_CALLS)]
    predict = dspy.Predict("question -> answer")
    pairs = [(predict, dspy.Example(question=prompt).with_inputs("question")) for prompt in prompts]
    parallel = dspy.Parallel(num_threads=n_threads, disable_progress_bar=True)

    with batchify(**QUICK), dspy.context(lm=dspy_lm(num_retries=0), adapter=dspy.JSONAdapter()):
        found = parallel(pairs)

    check(prompts, [one.answer for one in found], books, sizes)


def check(prompts: Sequence[str], answers: Sequence[str], books: Books, sizes: dict[int, int]) -> None:
    """Check that each prompt has its answer, from batches of these sizes."""
    for prompt, answer in zip(prompts, answers, strict=True):
        assert prompt in answer
    assert Counter(batch.n_executed for batch in books.batches()) == sizes
    assert len(books.calls) == len(prompts)
