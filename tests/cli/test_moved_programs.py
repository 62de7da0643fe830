"""Programs as people bring them from the original, in-process batchling: their shapes, with the SDKs they use."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable

import anthropic
import groq
import openai
import pytest
import together
from google import genai
from mistralai.client import Mistral
from mistralai.client.models import UserMessage
from pydantic import BaseModel

from batchling import DryRunEarlyExit, batchify
from batchling_worker.sandbox import Sandbox
from tests.deployment import MODEL, SLOW_MODEL

QUESTION = "What is the capital of France?"
KEY = "a-key-of-a-test"
# The class of google-genai's own session, with aiohttp installed.
pytestmark = pytest.mark.filterwarnings("ignore:Inheritance class:DeprecationWarning")


class Painting(BaseModel):
    """What is asked of a picture."""

    author: str
    tags: list[str]


@pytest.fixture(autouse=True)
def settings(shared_env: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in shared_env.items():
        if name.startswith("BATCHLING_"):
            monkeypatch.setenv(name, value)
    for name in ("OPENAI", "ANTHROPIC", "GROQ", "MISTRAL", "TOGETHER", "GEMINI"):
        monkeypatch.setenv(f"{name}_API_KEY", KEY)


async def ask_openai() -> str:
    return (await openai.AsyncOpenAI().responses.create(model="gpt-4o-mini", input=QUESTION)).output_text


async def ask_anthropic() -> str:
    reply = await anthropic.AsyncAnthropic().messages.create(
        model="claude-haiku-4-5", max_tokens=64, messages=[{"role": "user", "content": QUESTION}]
    )
    return "".join(part.text for part in reply.content if part.type == "text")


async def ask_gemini() -> str:
    client = genai.Client(api_key=KEY).aio
    reply = await client.models.generate_content(model="gemini-2.5-flash-lite", contents=QUESTION)
    return reply.text or ""


async def ask_groq(model: str = MODEL) -> str:
    reply = await groq.AsyncGroq().chat.completions.create(
        model=model, messages=[{"role": "user", "content": QUESTION}]
    )
    return reply.choices[0].message.content or ""


async def ask_mistral() -> str:
    reply = await Mistral(api_key=os.environ["MISTRAL_API_KEY"]).chat.complete_async(
        model="mistral-small-latest", messages=[UserMessage(content=QUESTION)], stream=False
    )
    message = reply.choices[0].message
    return str(message and message.content)


async def ask_together() -> str:
    reply = await together.AsyncTogether().chat.completions.create(
        model="google/gemma-3n-E4B-it", messages=[{"role": "user", "content": QUESTION}]
    )
    message = reply.choices[0].message
    return str(message and message.content)


async def ask_compatible(base_url: str, model: str) -> str:
    reply = await openai.AsyncOpenAI(api_key=KEY, base_url=base_url).chat.completions.create(
        model=model, messages=[{"role": "user", "content": QUESTION}]
    )
    return reply.choices[0].message.content or ""


ASKED: dict[str, Callable[[], Awaitable[str]]] = {
    "openai": ask_openai,
    "anthropic": ask_anthropic,
    "gemini": ask_gemini,
    "groq": ask_groq,
    "mistral": ask_mistral,
    "together": ask_together,
    "xai": lambda: ask_compatible("https://api.x.ai/v1", "grok-4"),
    "doubleword": lambda: ask_compatible("https://api.doubleword.ai/v1", "Qwen/Qwen3-30B"),
    "sference": lambda: ask_compatible("https://api.sference.com/v1", "llama"),
}


@pytest.mark.long
@pytest.mark.timeout(180)
async def test_many_providers_are_asked_at_once_and_answer_in_their_own_time(sandbox_of_all: Sandbox) -> None:
    """The shapes of one list of providers, and of a race between them."""
    async with batchify(batch_window_seconds=0.1, batch_poll_interval_seconds=0.1) as run:
        answers = await asyncio.gather(*(ask() for ask in ASKED.values()))
        first = [await one for one in asyncio.as_completed([ask() for ask in ASKED.values()])]

    assert dict(zip(ASKED, answers, strict=True)).keys() == ASKED.keys()
    assert all(answers)
    assert len(first) == len(ASKED)
    assert (run.progress.n_succeeded, run.progress.n_passed) == (2 * len(ASKED), 0)
    assert sandbox_of_all.ledger().totals.n_realtime == 0


async def test_a_client_from_before_the_block_parses_its_answers() -> None:
    client = openai.AsyncOpenAI()

    async def describe(url: str) -> Painting | None:
        reply = await client.responses.parse(
            model="gpt-5-nano",
            input=[
                {"role": "user", "content": [{"type": "input_image", "image_url": url, "detail": "auto"}]}
            ],
            text_format=Painting,
        )
        return reply.output_parsed

    async with batchify(batch_size=3, batch_window_seconds=5.0, batch_poll_interval_seconds=0.1):
        found = await asyncio.gather(*(describe(f"https://example.org/{n}.jpg") for n in range(3)))

    assert [type(one) for one in found] == [Painting] * 3


async def test_one_question_to_two_models_comes_back_batch_by_batch_and_anew_without_the_cache() -> None:
    async def asked_twice() -> int:
        async with batchify(50, 0.1, 0.1, "24h", dry_run=False, cache=False, live_display=False) as run:
            for one in asyncio.as_completed([ask_groq(model) for model in (MODEL, SLOW_MODEL)]):
                assert await one
        return run.progress.n_reused

    assert [await asked_twice(), await asked_twice()] == [0, 0]


async def test_the_dry_run_of_such_a_program_ends_it() -> None:
    with pytest.raises(DryRunEarlyExit):
        async with batchify(dry_run=True):
            await asyncio.gather(*(ask() for ask in ASKED.values()))
