"""Each framework as its users call it: takes a prompt, returns the framework's own result."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import anthropic
import dspy
import groq
import instructor
import litellm
from instructor.core import InstructorRetryException
from langchain_anthropic import ChatAnthropic
from langchain_core import exceptions as langchain_errors
from langchain_openai import ChatOpenAI
from openai import AsyncOpenAI
from pydantic import BaseModel
from pydantic_ai import Agent
from pydantic_ai.exceptions import ModelHTTPError
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel

from batchling_client import batchify
from tests.sdks.asking import UNSEALED_S

GPT: Final = "gpt-5-mini"
CLAUDE: Final = "claude-haiku-4-5"
LLAMA: Final = "groq/llama-3.1-8b-instant"


class Echo(BaseModel):
    """The type of structured answers; the sandbox puts the prompt into its text."""

    text: str
    score: int


Ask = Callable[[str], Awaitable[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """One way to prompt a framework; `typed` ways return an `Echo`, the others a text that quotes the prompt."""

    name: str
    ask: Ask
    typed: bool = False
    provider: str = "openai"
    endpoint: str = "/v1/chat/completions"
    errors: Mapping[int, type[Exception]] = field(default_factory=dict)
    """Status of a row -> the exception that the framework raises."""

    def __str__(self) -> str:
        return self.name

    def holds(self, answer: Any, prompt: str) -> bool:
        """Return whether an answer is the sandbox's to this prompt, in the type that was asked for."""
        if self.typed:
            return isinstance(answer, Echo) and prompt in answer.text
        return isinstance(answer, str) and prompt in answer


async def together(way: Way, prompts: Sequence[str], *, n_calls: int = 1) -> list[Any]:
    """Send all prompts at once in a block, `n_calls` each; return answers, or exceptions in their place."""
    async with batchify(
        batch_size=len(prompts) * n_calls,
        batch_window_seconds=UNSEALED_S,
        batch_poll_interval_seconds=0.1,
        cache=False,
        live_display=False,
    ):
        return await asyncio.gather(*(way.ask(prompt) for prompt in prompts), return_exceptions=True)


def _said(prompt: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": prompt}]


async def _langchain_text(prompt: str) -> str:
    return str((await ChatOpenAI(model=GPT).ainvoke(prompt)).text)


def _langchain(method: str) -> Ask:
    def ask(prompt: str) -> Awaitable[Any]:
        answer: Awaitable[Any] = (
            ChatOpenAI(model=GPT).with_structured_output(Echo, method=method).ainvoke(prompt)
        )
        return answer

    return ask


async def _langchain_anthropic(prompt: str) -> str:
    return str((await ChatAnthropic(model=CLAUDE, max_tokens=1000).ainvoke(prompt)).text)


def _langchain_anthropic_typed(prompt: str) -> Awaitable[Any]:
    model = ChatAnthropic(model=CLAUDE, max_tokens=1000).with_structured_output(Echo)
    answer: Awaitable[Any] = model.ainvoke(prompt)
    return answer


def _litellm(model: str) -> Ask:
    async def ask(prompt: str) -> str:
        answer = await litellm.acompletion(model=model, messages=_said(prompt))
        return str(answer.choices[0].message.content)

    return ask


async def _litellm_in_a_thread(prompt: str) -> str:
    answer = await asyncio.to_thread(litellm.completion, model=LLAMA, messages=_said(prompt))
    return str(answer.choices[0].message.content)


async def _litellm_typed(prompt: str) -> Echo:
    answer = await litellm.acompletion(model=f"openai/{GPT}", messages=_said(prompt), response_format=Echo)
    return Echo.model_validate_json(answer.choices[0].message.content)


def _pydantic_ai(model: Callable[[], Any]) -> Ask:
    async def ask(prompt: str) -> Any:
        return (await Agent(model(), output_type=Echo).run(prompt)).output

    return ask


async def _instructor(prompt: str) -> Any:
    client = instructor.from_openai(AsyncOpenAI())
    return await client.create(model=GPT, response_model=Echo, messages=_said(prompt))


async def _instructor_json(prompt: str) -> Any:
    client = instructor.from_openai(AsyncOpenAI(), mode=instructor.Mode.JSON_SCHEMA)
    return await client.create(model=GPT, response_model=Echo, messages=_said(prompt))


async def _instructor_groq(prompt: str) -> Any:
    client = instructor.from_groq(groq.AsyncGroq())
    return await client.create(model=LLAMA.removeprefix("groq/"), response_model=Echo, messages=_said(prompt))


def dspy_lm(**settings: Any) -> Any:
    """Return DSPy's model, without its cache."""
    return dspy.LM(f"openai/{GPT}", temperature=1.0, max_tokens=16000, cache=False, **settings)


def _dspy(engine: str) -> Ask:
    async def ask(prompt: str) -> Echo:
        with dspy.context(lm=dspy_lm(engine=engine, num_retries=0), adapter=dspy.JSONAdapter()):
            found = await dspy.Predict("question -> text: str, score: int").acall(question=prompt)
        assert type(found.score) is int
        return Echo(text=found.text, score=found.score)

    return ask


_LITELLM: Final = {
    400: litellm.BadRequestError,
    429: litellm.RateLimitError,
    500: litellm.InternalServerError,
}
_PYDANTIC_AI: Final = dict.fromkeys((400, 429, 500), ModelHTTPError)
_INSTRUCTOR: Final = dict.fromkeys((400, 429, 500), InstructorRetryException)
_LANGCHAIN: Final = {
    400: langchain_errors.ModelInvalidRequestError,
    429: langchain_errors.ModelRateLimitError,
    500: langchain_errors.ModelAPIError,
}
_ANTHROPIC: Final = {
    400: anthropic.BadRequestError,
    429: anthropic.RateLimitError,
    500: anthropic.InternalServerError,
}
_DSPY: Final = {400: dspy.LMInvalidRequestError, 429: dspy.LMRateLimitError, 500: dspy.LMServerError}

WAYS: Final = (
    Way(name="langchain", ask=_langchain_text, errors=_LANGCHAIN),
    Way(name="langchain-json-schema", ask=_langchain("json_schema"), typed=True, errors=_LANGCHAIN),
    Way(name="langchain-tools", ask=_langchain("function_calling"), typed=True, errors=_LANGCHAIN),
    Way(
        name="langchain-anthropic",
        ask=_langchain_anthropic,
        provider="anthropic",
        endpoint="/v1/messages",
        errors=_ANTHROPIC,
    ),
    Way(
        name="langchain-anthropic-tools",
        ask=_langchain_anthropic_typed,
        typed=True,
        provider="anthropic",
        endpoint="/v1/messages",
        errors=_ANTHROPIC,
    ),
    Way(name="litellm-openai", ask=_litellm(f"openai/{GPT}"), errors=_LITELLM),
    Way(name="litellm-typed", ask=_litellm_typed, typed=True, errors=_LITELLM),
    Way(name="litellm-groq", ask=_litellm(LLAMA), provider="groq", errors=_LITELLM),
    Way(name="litellm-thread", ask=_litellm_in_a_thread, provider="groq", errors=_LITELLM),
    Way(
        name="pydantic-ai-chat",
        ask=_pydantic_ai(lambda: OpenAIChatModel(GPT)),
        typed=True,
        errors=_PYDANTIC_AI,
    ),
    Way(
        name="pydantic-ai-responses",
        ask=_pydantic_ai(lambda: OpenAIResponsesModel(GPT)),
        typed=True,
        endpoint="/v1/responses",
        errors=_PYDANTIC_AI,
    ),
    Way(
        name="pydantic-ai-groq",
        ask=_pydantic_ai(lambda: LLAMA.replace("/", ":")),
        typed=True,
        provider="groq",
        errors=_PYDANTIC_AI,
    ),
    Way(name="instructor-tools", ask=_instructor, typed=True, errors=_INSTRUCTOR),
    Way(name="instructor-json-schema", ask=_instructor_json, typed=True, errors=_INSTRUCTOR),
    Way(name="instructor-groq", ask=_instructor_groq, typed=True, provider="groq", errors=_INSTRUCTOR),
    Way(name="dspy", ask=_dspy("auto"), typed=True, errors=_DSPY),
    Way(name="dspy-litellm", ask=_dspy("litellm"), typed=True, errors=_DSPY),
)
