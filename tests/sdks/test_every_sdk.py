"""Each call of each SDK: typed answers from one batch, the SDK's exceptions, nothing sent twice or past the batch."""

from __future__ import annotations

from typing import Any

import pytest

from batchling_client import errors
from batchling_worker.sandbox import Sandbox
from batchling_worker.sandbox.world.faults import FailBatch, RefuseCreate

from .asking import Way, answers
from .books import Books
from .caller import BAD_REQUEST, Caller, callers, named
from .conftest import Saw

N_CALLS = 4
MANY = pytest.mark.parametrize("caller", callers(), ids=str)


def told(error: Any, reason: str) -> bool:
    """Return whether an exception holds these words; openai leaves out errors that are not in its own shape."""
    return reason in str(error) or reason in str(getattr(error, "body", ""))


@MANY
async def test_calls_at_once_are_one_batch_and_each_gets_its_own_typed_answer(
    caller: Caller, way: Way, key: str, books: Books, saw: Saw
) -> None:
    saw(caller, way)
    prompts = [f"{key[3:]}: question {n}" for n in range(N_CALLS)]

    found = await answers(caller, way, key, prompts)

    for prompt, answer in zip(prompts, found, strict=True):
        assert caller.holds(answer, prompt), answer
    [batch] = books.batches()
    assert batch.provider == caller.provider
    assert len(books.rows()) == len(books.calls) == N_CALLS


@MANY
async def test_rows_that_failed_for_good_are_the_sdk_s_own_exceptions_and_sent_once(
    caller: Caller, way: Way, key: str, books: Books, saw: Saw
) -> None:
    for status in caller.row_statuses:
        saw(caller, str(status))
    good, bad = (
        f"{key[3:]}: a question",
        {status: f"{key[3:]}: fault:{status}" for status in caller.row_statuses},
    )

    answer, *raised = await answers(caller, way, key, [good, *bad.values()])

    assert caller.holds(answer, good), answer
    for status, error in zip(bad, raised, strict=True):
        assert type(error) is named(caller.errors[status]), error
        assert caller.status(error) == status
        assert errors.of(error) is None
    assert len(books.batches()) == 1
    assert len(books.rows()) == len(books.calls) == 1 + len(bad)


@MANY
async def test_a_create_that_is_refused_is_the_sdk_s_own_exception_with_the_provider_s_reason(
    caller: Caller, way: Way, key: str, books: Books, sandbox: Sandbox, saw: Saw
) -> None:
    saw(caller, "refused batch")
    sandbox.faults.add(RefuseCreate(status=400, message="No batches on Sundays.", provider=caller.provider))

    found = await answers(caller, way, key, [f"{key[3:]}: question {n}" for n in range(N_CALLS)])

    for error in found:
        assert type(error) is named(caller.errors[BAD_REQUEST]), error
        assert told(error, "No batches on Sundays."), error
    assert books.batches() == []
    assert len(books.calls) == N_CALLS


@pytest.mark.parametrize(
    "caller", [caller for caller in callers() if caller.told_of_failure != "never"], ids=str
)
async def test_a_batch_that_failed_as_a_whole_is_the_sdk_s_own_exception_with_the_provider_s_reason(
    caller: Caller, way: Way, key: str, books: Books, sandbox: Sandbox, saw: Saw
) -> None:
    saw(caller, "failed batch")
    sandbox.faults.add(FailBatch(code="odd", message="The file has gone bad.", provider=caller.provider))

    found = await answers(caller, way, key, [f"{key[3:]}: question {n}" for n in range(N_CALLS)])

    for error in found:
        assert type(error) is named(caller.errors[BAD_REQUEST]), error
        assert told(error, "The file has gone bad.") == ("without a reason" not in caller.told_of_failure)
        ours = errors.of(error)
        assert isinstance(ours, errors.BatchFailed) == caller.told_of_failure.startswith("by us")
    assert len(books.batches()) == 1
    assert books.rows() == []
    assert len(books.calls) == N_CALLS
