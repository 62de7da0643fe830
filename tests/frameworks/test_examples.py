"""The examples of docs/frameworks.md run unchanged: with a deployment, and rehearsed."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from tests.deployment import Deployment
from tests.sdks.books import Books

ROOT: Final = Path(__file__).resolve().parents[2]
WITHIN_S: Final = 170.0
pytestmark = pytest.mark.timeout(180)
"""Seconds; a framework is slow to import, and slower still while other columns of the matrix run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """An example, the sizes of its batches at each provider, and the text it prints for each answer."""

    name: str
    batches: dict[tuple[str, int], int]
    answers: tuple[str, ...]

    @property
    def n_requests(self) -> int:
        return sum(size * n for (_, size), n in self.batches.items())

    def __str__(self) -> str:
        return self.name


EXAMPLES: Final = (
    Example(name="langchain_reviews", batches={("openai", 4): 1}, answers=("Review(product=",) * 4),
    Example(
        name="litellm_models",
        batches={("openai", 3): 1, ("groq", 3): 1},
        answers=(
            "(Asked: What is a queue?)",
            "(Asked: What is a lease?)",
            "(Asked: What is a fencing token?)",
        )
        * 2,
    ),
    Example(name="pydantic_ai_agents", batches={("openai", 3): 2}, answers=("Invoice(subject=",) * 3),
    Example(name="instructor_people", batches={("openai", 3): 1}, answers=("Person(name=",) * 3),
    Example(name="dspy_tickets", batches={("openai", 3): 1}, answers=("billing within 1 h",) * 3),
    Example(name="pydantic_evals_answers", batches={("openai", 3): 2}, answers=("✔",) * 3),
)
EVERY_EXAMPLE = pytest.mark.parametrize("example", EXAMPLES, ids=str)


async def run(example: Example, *options: str, **settings: str) -> tuple[str, str]:
    """Return the output of `batchling run`, and its report of the run."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("BATCHLING_")}
    program = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        "from batchling_client.cli.main import main; main()",
        "run",
        *options,
        f"examples/{example.name}.py:main",
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=ROOT,
        env={**kept, "COLUMNS": "200", **settings},
    )
    try:
        out, err = await asyncio.wait_for(program.communicate(), WITHIN_S)
    finally:
        # Otherwise its calls would join the batches of the next test.
        if program.returncode is None:
            program.kill()
            await program.wait()
    assert program.returncode == 0, err.decode()
    return out.decode(), err.decode()


def check(example: Example, printed: str, told: str) -> None:
    """Check that every answer is printed, and that every request was answered in a batch."""
    for answer, n in Counter(example.answers).items():
        # A report of evaluations has one more line, with the averages.
        assert printed.count(answer) >= n, printed
    assert f"{example.n_requests} of {example.n_requests} requests answered" in told


@EVERY_EXAMPLE
async def test_an_example_needs_one_batch_per_round(
    example: Example, deployment: Deployment, books: Books
) -> None:
    printed, told = await run(
        example, BATCHLING_REDIS_URL=deployment.url, BATCHLING_HOME=str(deployment.home)
    )

    check(example, printed, told)
    assert Counter((batch.provider, batch.n_executed) for batch in books.batches()) == example.batches


@EVERY_EXAMPLE
async def test_an_example_is_rehearsed_without_an_account(
    example: Example, monkeypatch: pytest.MonkeyPatch
) -> None:
    for provider in ("OPENAI", "GROQ", "ANTHROPIC"):
        monkeypatch.delenv(f"{provider}_API_KEY")
    with tempfile.TemporaryDirectory(prefix="bl-") as home:
        printed, told = await run(example, "--sandbox", BATCHLING_HOME=home)

    check(example, printed, told)
