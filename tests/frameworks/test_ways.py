"""Concurrent calls form one batch, answers have the type asked for, and failed rows raise the framework's errors."""

from __future__ import annotations

import asyncio
from typing import Final

import pytest

from batchling_client import errors
from batchling_worker.sandbox import Sandbox
from batchling_worker.sandbox.world.faults import FailBatch
from tests.sdks.books import Books

from .asking import WAYS, Way, together

pytestmark = pytest.mark.timeout(180)
"""A framework imports the most of itself with its first call, beside the other columns of the matrix."""

N_CALLS: Final = 4
EVERY_WAY = pytest.mark.parametrize("way", WAYS, ids=str)
FAILING_WHOLE: Final = [way for way in WAYS if way.provider != "anthropic"]
"""Anthropic's batches cannot fail as a whole."""
KEEPS_NOTHING: Final = frozenset({"dspy", "litellm-groq", "litellm-thread"})
"""Ways whose exceptions have no SDK exception as cause: only their message names the reason."""


@EVERY_WAY
async def test_calls_at_once_are_one_batch_and_each_gets_its_own_answer(
    way: Way, key: str, books: Books
) -> None:
    prompts = [f"{key[3:]}: question {n}" for n in range(N_CALLS)]

    found = await together(way, prompts)

    for prompt, answer in zip(prompts, found, strict=True):
        assert way.holds(answer, prompt), answer
    [batch] = books.batches()
    assert (batch.provider, batch.endpoint) == (way.provider, way.endpoint)
    assert len(books.rows()) == len(books.calls) == N_CALLS


@EVERY_WAY
async def test_a_failed_row_is_the_framework_s_own_exception_and_is_not_sent_again(
    way: Way, key: str, books: Books
) -> None:
    good, bad = f"{key[3:]}: a question", {status: f"{key[3:]}: fault:{status}" for status in way.errors}

    answer, *raised = await together(way, [good, *bad.values()])

    assert way.holds(answer, good), answer
    for error, expected in zip(raised, way.errors.values(), strict=True):
        assert isinstance(error, expected), error
        assert "This request asked the sandbox to fail it." in str(error)
        assert errors.of(error) is None
    assert len(books.batches()) == 1
    assert len(books.rows()) == len(books.calls) == 1 + len(bad)


@pytest.mark.parametrize("way", FAILING_WHOLE, ids=str)
async def test_a_batch_that_failed_as_a_whole_raises_an_error_of_its_own_with_the_reason(
    way: Way, key: str, books: Books, sandbox: Sandbox
) -> None:
    sandbox.faults.add(FailBatch(code="odd", message="The file has gone bad.", provider=way.provider))

    found = await together(way, [f"{key[3:]}: question {n}" for n in range(N_CALLS)])

    for error in found:
        assert isinstance(error, way.errors[400]), error
        assert "The file has gone bad." in str(error)
        ours = errors.of(error)
        assert ours is None if way.name in KEEPS_NOTHING else isinstance(ours, errors.BatchFailed)
    assert len(books.batches()) == 1
    assert books.rows() == []
    assert len(books.calls) == N_CALLS


async def test_ways_of_several_frameworks_share_the_batches_of_a_block(key: str, books: Books) -> None:
    chats = [way for way in WAYS if way.provider == "openai" and way.endpoint == "/v1/chat/completions"]

    async def ask(prompt: str) -> list[object]:
        return list(await asyncio.gather(*(way.ask(prompt) for way in chats)))

    [answers] = await together(Way(name="all", ask=ask), [f"{key[3:]}: a question"], n_calls=len(chats))

    for way, answer in zip(chats, answers, strict=True):
        assert way.holds(answer, key[3:]), answer
    assert len(books.batches()) == 1
    assert len(books.rows()) == len(chats)
