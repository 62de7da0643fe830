"""Files at the provider are deleted once nobody needs them, and never while an answer may yet come out of them."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import AsyncIterator
from typing import Any

import pytest

from batchling_client.wire.keys import BatchId
from batchling_client.wire.states import BatchState
from batchling_worker.sandbox.world.faults import Fault, LoseRows, RefuseCreate, RefuseDownload
from tests.deployment import CANARY, MODEL, Deployment
from tests.waiting import wait_until

from .hand import Hand
from .test_rereading import asked, to_its_end

IN_DOUBT: dict[str, Fault] = {
    "rows that are in no file": LoseRows(n=1),
    "a file that was never read": RefuseDownload(status=500, times=None),
}


@pytest.fixture
async def hand(deployment: Deployment) -> AsyncIterator[Hand]:
    async with Hand(deployment) as steps:
        yield steps


def files(deployment: Deployment) -> list[str]:
    """The purposes of the files that lie at the provider, sorted."""
    url = f"{deployment.sandbox.base_url('groq')}/openai/v1/files"
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {CANARY}"})
    with urllib.request.urlopen(request) as reply:
        said: dict[str, Any] = json.load(reply)
    return sorted(file["purpose"] for file in said["data"])


async def delete_all(deployment: Deployment, hand: Hand) -> None:
    """Time passes until every spent file is due, and a worker deletes them."""
    spent = deployment.keys.spent_files
    for member in await deployment.redis.zrange(spent, 0, -1):
        await deployment.redis.execute_command("ZADD", spent, "XX", 0, member)
    await hand.engine.delete_files(await hand.store.claim_spent())


async def left(deployment: Deployment) -> list[str]:
    members: Any = await deployment.redis.zrange(deployment.keys.spent_files, 0, -1)
    return [member.decode() for member in members]


async def test_input_and_results_are_deleted_after_all_was_delivered(
    deployment: Deployment, hand: Hand
) -> None:
    batch_id, ids = await asked(deployment, 3)
    await to_its_end(hand, batch_id)
    assert files(deployment) == ["batch", "batch_output"]

    await delete_all(deployment, hand)

    assert files(deployment) == []
    assert await left(deployment) == []
    assert len(await deployment.results(ids)) == 3


async def test_files_stay_while_their_batch_is_not_settled(deployment: Deployment, hand: Hand) -> None:
    batch_id, _ = await asked(deployment, 3)
    await hand.bring(batch_id, BatchState.ENDED)
    await hand.step(batch_id)
    assert len(await left(deployment)) == 2

    await delete_all(deployment, hand)

    assert files(deployment) == ["batch", "batch_output"]
    assert len(await left(deployment)) == 2


@pytest.mark.parametrize("why", IN_DOUBT)
async def test_files_of_a_batch_in_doubt_are_kept(deployment: Deployment, hand: Hand, why: str) -> None:
    deployment.sandbox.faults.add(IN_DOUBT[why])
    batch_id, _ = await asked(deployment, 3)

    async def read_often() -> bool:
        batch = await hand.batch(batch_id)
        if batch.state.terminal or batch.held_since is not None:
            return True
        if batch.collected_at is not None:
            await hand.engine.settle(await hand.claim(batch_id))
        else:
            await hand.step(batch_id)
        return False

    await wait_until(read_often, description="the batch is settled or held")
    assert await left(deployment) == []


async def test_an_input_file_of_which_surely_no_batch_was_made_is_deleted(
    deployment: Deployment, hand: Hand
) -> None:
    deployment.sandbox.faults.add(RefuseCreate(status=400, times=1))
    batch_id, _ = await asked(deployment, 3)
    batch = await to_its_end(hand, batch_id)
    assert (batch.state, batch.provider_batch_id) == (BatchState.FAILED, None)

    await delete_all(deployment, hand)

    assert files(deployment) == []


async def test_a_key_that_is_gone_costs_the_delete_and_nothing_else(
    deployment: Deployment, hand: Hand
) -> None:
    batch_id, ids = await asked(deployment, 3)
    await to_its_end(hand, batch_id)
    for key in await deployment.redis.keys(deployment.keys.credential("*")):
        await deployment.redis.delete(key)

    await delete_all(deployment, hand)

    assert await left(deployment) == []
    assert files(deployment) == ["batch", "batch_output"]
    assert [one.status for one in await deployment.results(ids) if one is not None] == [200] * 3


async def test_an_unknown_member_is_taken_out(deployment: Deployment, hand: Hand) -> None:
    for member in ("inputs:nobody", "nonsense", "results:"):
        await deployment.redis.zadd(deployment.keys.spent_files, {member: 0})
    await delete_all(deployment, hand)
    assert await left(deployment) == []


@pytest.mark.parametrize("keeps", [False, True])
async def test_a_worker_deletes_input_files_unless_the_settings_keep_them(
    deployment: Deployment, keeps: bool
) -> None:
    deployment.worker(keep_files=str(keeps).lower())
    ids = await deployment.ask(3, provider="groq")

    async def answered() -> bool:
        return all(one is not None for one in await deployment.results(ids))

    await wait_until(answered, description="all are answered", within_s=60.0)
    if keeps:
        assert await left(deployment) == []
        return
    await wait_until(
        lambda: files(deployment) == ["batch_output"], description="the input is gone", within_s=60.0
    )


async def test_equal_files_of_a_batch_that_runs_are_in_use(deployment: Deployment, hand: Hand) -> None:
    batch_id, _ = await asked(deployment, 3)
    await hand.bring(batch_id, BatchState.SUBMITTED)
    batch = await hand.batch(batch_id)
    assert batch.spec.model == MODEL
    assert await hand.store.uses_file(batch.input_file_id, BatchId("another"))
    assert not await hand.store.uses_file(batch.input_file_id, batch_id)
    assert not await hand.store.uses_file("file-unknown", BatchId("another"))
