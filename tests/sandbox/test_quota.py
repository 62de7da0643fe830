"""The sandbox's quota of enqueued tokens: what it counts, when it refuses, and in which words."""

from __future__ import annotations

from typing import Any

import pytest

from batchling_worker.sandbox import Limits, Sandbox

from .caller import Caller, line

WORDS = "Please try again once some in_progress batches have been completed."


def rows(model: str = "gpt-4o-mini") -> list[dict[str, Any]]:
    """Return a row of about 280 tokens."""
    return [line("a", "x" * 1000, model)]


async def state_of(caller: Caller, batch_id: str) -> dict[str, Any]:
    batch: dict[str, Any] = (await caller.http.get(f"/batches/{batch_id}")).json()
    return batch


async def test_a_batch_that_does_not_fit_is_taken_and_fails_its_validation(
    sandbox: Sandbox, caller: Caller
) -> None:
    sandbox.limits = Limits(max_enqueued_tokens=400)
    first = await caller.create(rows())
    sandbox.clock.advance(0.1)
    # Two batches read at once may take the room in any order: wait until the first has taken it.
    assert (await state_of(caller, first))["status"] == "in_progress"
    second = await caller.create(rows())
    sandbox.clock.advance(0.3)
    failed = await state_of(caller, second)
    assert (failed["status"], (await state_of(caller, first))["status"]) == ("failed", "in_progress")
    [error] = failed["errors"]["data"] if isinstance(failed["errors"], dict) else failed["errors"]
    assert error["code"] == "token_limit_exceeded"
    assert "Limit: 400 enqueued tokens." in error["message"]
    assert error["message"].endswith(WORDS)
    sandbox.clock.advance(10)
    assert (await state_of(caller, first))["status"] == "completed"
    third = await caller.create(rows())
    sandbox.clock.advance(10)
    assert (await state_of(caller, third))["status"] == "completed", "what has ended counts no more"


async def test_the_quota_is_one_of_each_key_and_model(sandbox: Sandbox, caller: Caller) -> None:
    sandbox.limits = Limits(max_enqueued_tokens=400)
    await caller.create(rows())
    other_model = await caller.create(rows("gpt-4.1-mini"))
    caller.http.headers["Authorization"] = "Bearer another"
    other_key = await caller.create(rows())
    sandbox.clock.advance(0.3)
    assert (await state_of(caller, other_key))["status"] == "in_progress"
    caller.http.headers["Authorization"] = "Bearer key"
    assert (await state_of(caller, other_model))["status"] == "in_progress"


@pytest.mark.parametrize("named", [True, False])
async def test_a_create_over_the_quota_is_refused_where_it_is_checked_there(
    sandbox: Sandbox, caller: Caller, named: bool
) -> None:
    sandbox.limits = Limits(max_enqueued_tokens=400, quota_at_create=True, quota_named=named)
    first = await caller.create(rows())
    file_id = (await caller.upload(rows())).json()["id"]
    refused = await caller.post_batch(file_id)
    assert refused.status_code == 429
    message = refused.json()["error"]["message"]
    assert ("Limit: 400 enqueued tokens." in message) is named
    assert message.startswith("Enqueued token limit reached")
    assert len(sandbox.ledger().batches) == 1
    sandbox.clock.advance(10)
    assert (await state_of(caller, first))["status"] == "completed"
    assert (await caller.post_batch(file_id)).status_code == 200
