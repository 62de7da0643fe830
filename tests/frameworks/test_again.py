"""Retries that frameworks make by themselves, each in one more batch, and how to stop them (docs/frameworks.md)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

import dspy
import instructor
import litellm
import pytest
from instructor.core import InstructorRetryException
from langchain_openai import ChatOpenAI
from openai import AsyncOpenAI
from pydantic import BaseModel, field_validator
from pydantic_ai import Agent
from pydantic_ai.exceptions import UnexpectedModelBehavior

from tests.sdks.books import Books

from .asking import GPT, Way, dspy_lm, together

pytestmark = pytest.mark.timeout(180)
"""A framework imports the most of itself with its first call, beside the other columns of the matrix."""

BROKEN: Final = "fault:500"


class Never(BaseModel):
    """A type that no answer matches."""

    text: str

    @field_validator("text")
    @classmethod
    def refuse(cls, text: str) -> str:
        raise ValueError(f"never {len(text)}")


def said(prompt: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": prompt}]


def litellm_retries(n: int) -> Callable[[str], Awaitable[Any]]:
    return lambda prompt: litellm.acompletion(model=f"openai/{GPT}", messages=said(prompt), num_retries=n)


def dspy_retries(**settings: Any) -> Callable[[str], Awaitable[Any]]:
    async def ask(prompt: str) -> Any:
        with dspy.context(lm=dspy_lm(**settings), adapter=dspy.JSONAdapter()):
            return await dspy.Predict("question -> answer").acall(question=prompt)

    return ask


def langchain_with_retry(prompt: str) -> Awaitable[Any]:
    model = ChatOpenAI(model=GPT).with_retry(stop_after_attempt=2, wait_exponential_jitter=False)
    answer: Awaitable[Any] = model.ainvoke(prompt)
    return answer


@pytest.mark.parametrize(
    ("ask", "n_batches"),
    [
        pytest.param(litellm_retries(0), 1, id="litellm num_retries=0"),
        pytest.param(litellm_retries(2), 3, id="litellm num_retries=2"),
        pytest.param(dspy_retries(num_retries=0), 1, id="dspy num_retries=0"),
        pytest.param(dspy_retries(num_retries=1), 2, id="dspy num_retries=1"),
        pytest.param(langchain_with_retry, 2, id="langchain with_retry"),
    ],
)
async def test_each_retry_of_a_framework_waits_for_one_more_batch(
    ask: Callable[[str], Awaitable[Any]], n_batches: int, key: str, books: Books
) -> None:
    [error] = await together(Way(name="again", ask=ask), [f"{key[3:]}: {BROKEN}"])

    assert isinstance(error, Exception)
    assert len(books.batches()) == len(books.rows()) == n_batches


@pytest.mark.parametrize(
    ("retries", "n_batches"), [({}, 4), ({"max_retries": 0}, 1), ({"max_retries": 1}, 2)]
)
async def test_instructor_retries_answers_that_do_not_fit(
    retries: dict[str, int], n_batches: int, key: str, books: Books
) -> None:
    async def ask(prompt: str) -> Any:
        client = instructor.from_openai(AsyncOpenAI())
        return await client.create(model=GPT, response_model=Never, messages=said(prompt), **retries)

    [error] = await together(Way(name="instructor", ask=ask), [f"{key[3:]}: a question"])

    assert isinstance(error, InstructorRetryException), error
    assert len(books.batches()) == len(books.rows()) == n_batches


@pytest.mark.parametrize(("retries", "n_batches"), [({}, 2), ({"retries": 0}, 1), ({"retries": 2}, 3)])
async def test_pydantic_ai_retries_outputs_that_do_not_fit(
    retries: dict[str, int], n_batches: int, key: str, books: Books
) -> None:
    async def ask(prompt: str) -> Any:
        return await Agent(f"openai-chat:{GPT}", output_type=Never, **retries).run(prompt)

    [error] = await together(Way(name="pydantic-ai", ask=ask), [f"{key[3:]}: a question"])

    assert isinstance(error, UnexpectedModelBehavior), error
    assert len(books.batches()) == len(books.rows()) == n_batches


async def test_the_default_adapter_of_dspy_retries_answers_without_its_markers(
    key: str, books: Books
) -> None:
    async def ask(prompt: str) -> Any:
        with dspy.context(lm=dspy_lm(num_retries=0), adapter=dspy.ChatAdapter()):
            return await dspy.Predict("question -> answer").acall(question=prompt)

    [found] = await together(Way(name="dspy", ask=ask), [f"{key[3:]}: a question"])

    assert key[3:] in found.answer
    assert len(books.batches()) == len(books.rows()) == 2
