"""A batch that cannot be submitted, or found again after its create, has an end: its callers get the last reason."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest

from batchling_client.wire.keys import BatchId, Mailbox, RequestId
from batchling_client.wire.records.batch import Batch
from batchling_client.wire.states import BatchState, Verdict
from batchling_worker.sandbox.world.faults import (
    DropMetadata,
    Fault,
    HideInputFileId,
    RefuseCreate,
    RefusePoll,
    RefuseUpload,
    StickBatch,
)
from batchling_worker.sandbox.world.lies import EmptyPage
from tests.deployment import Deployment

from .hand import Hand
from .test_rereading import asked, stepped, to_its_end

LONG_AGO = 1_000_000
UNABLE: dict[str, tuple[Fault, str]] = {
    "uploads are refused": (RefuseUpload(status=500, times=None), "500"),
    "creates fail": (RefuseCreate(status=503, times=None), "503"),
    "creates are refused for now": (RefuseCreate(status=429, times=None), "429"),
}
UNKNOWN: dict[str, tuple[list[Fault], str]] = {
    "searches are refused": ([RefusePoll(status=500, times=None)], "500"),
    "the list repeats a page": ([EmptyPage(times=None)], "or the same again"),
    "the batch runs on and shows nothing": (
        [DropMetadata(), HideInputFileId(times=None), StickBatch(state="in_progress", seconds=600.0)],
        "shows no label",
    ),
}


@pytest.fixture
async def hand(deployment: Deployment) -> AsyncIterator[Hand]:
    async with Hand(deployment) as steps:
        yield steps


async def long_after(deployment: Deployment, hand: Hand, batch_id: BatchId) -> Batch:
    """The batch at its end, after it could not be submitted for very long."""
    assert (await hand.batch(batch_id)).unable_since is not None
    key = deployment.keys.batch(batch_id)
    await deployment.redis.execute_command("HSET", key, "unable_since", LONG_AGO)
    return await to_its_end(hand, batch_id)


async def code_of(deployment: Deployment, ids: list[RequestId]) -> str:
    """The code of the error that every caller got."""
    [packed] = {(one.status, one.body) for one in await deployment.results(ids) if one is not None}
    assert packed[0] == 504
    code: str = json.loads(packed[1])["error"]["code"]
    return code


async def test_requests_that_are_given_up_while_uploads_fail_are_not_run_later(
    deployment: Deployment, hand: Hand
) -> None:
    deployment.sandbox.faults.add(RefuseUpload(status=503, times=None))
    batch_id, ids = await asked(deployment, 3)
    await stepped(hand, batch_id, until_error="503")

    for one in ids[:2]:
        flying = await deployment.redis.execute_command("GET", deployment.keys.request(one))
        mailbox = Mailbox(flying.decode().rpartition("|")[2].partition(":")[0])
        withdrawn = await deployment.scripts.withdraw(request_id=one, batch_id=batch_id, mailbox=mailbox)
        assert withdrawn is Verdict.OK

    deployment.sandbox.faults.clear()
    await to_its_end(hand, batch_id)
    assert deployment.billed() == {ids[2]: 1}


@pytest.mark.parametrize("why", UNABLE)
async def test_callers_get_the_last_reason_when_a_batch_could_not_be_submitted_for_a_whole_window(
    deployment: Deployment, hand: Hand, why: str
) -> None:
    fault, words = UNABLE[why]
    deployment.sandbox.faults.add(fault)
    batch_id, ids = await asked(deployment, 3)
    await stepped(hand, batch_id, until_error=words)

    batch = await long_after(deployment, hand, batch_id)

    assert batch.state is BatchState.FAILED
    assert f"could not submit batch {batch_id} to groq, so nothing was paid" in batch.error
    assert await code_of(deployment, ids) == "batch_not_submitted"
    assert deployment.sandbox.batches() == []


@pytest.mark.parametrize("why", UNKNOWN)
async def test_a_batch_that_cannot_be_found_again_ends_with_its_label_and_is_not_created_again(
    deployment: Deployment, hand: Hand, why: str
) -> None:
    faults, words = UNKNOWN[why]
    deployment.sandbox.faults.add(*faults)
    batch_id, ids = await asked(deployment, 3)
    await hand.bring(batch_id, BatchState.SUBMITTING)
    hand.torn_at = ""
    searched = await stepped(hand, batch_id, until_error=words)
    assert searched.state is BatchState.SUBMITTING

    batch = await long_after(deployment, hand, batch_id)

    assert batch.state is BatchState.FAILED
    assert "Nothing was created again" in batch.error
    assert batch.label in batch.error
    assert await code_of(deployment, ids) == "batch_not_found_again"
    assert len(deployment.sandbox.batches()) == 1


async def test_a_batch_that_could_not_be_submitted_for_a_while_is_answered_all_the_same(
    deployment: Deployment, hand: Hand
) -> None:
    deployment.sandbox.faults.add(RefuseUpload(status=500, times=3))
    batch_id, ids = await asked(deployment, 3)
    held = await stepped(hand, batch_id, until_error="500")
    assert held.unable_since is not None

    batch = await to_its_end(hand, batch_id)

    assert batch.n_succeeded == 3
    assert deployment.billed() == dict.fromkeys(ids, 1)
