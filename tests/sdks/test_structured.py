"""Structured output: the SDK's request with a schema goes through a batch, and its answer parses."""

from __future__ import annotations

import pytest

from .asking import Way, answers_to
from .books import Books
from .caller import Caller, Verdict, callers
from .conftest import Saw


@pytest.mark.parametrize("caller", [caller for caller in callers() if caller.structured], ids=str)
async def test_a_structured_answer_is_the_caller_s_own_class(
    caller: Caller, way: Way, key: str, books: Books, saw: Saw
) -> None:
    saw(caller, "structured")
    structured = caller.structured
    assert structured is not None
    prompts = [f"{key[3:]}: question {n}" for n in range(2)]

    found = await answers_to(structured.ask, structured.async_ask, caller, way, key, prompts)

    assert [structured.verdict(answer) for answer in found] == [
        Verdict(reason=prompt, score=1) for prompt in prompts
    ]
    assert len(books.batches()) == 1
