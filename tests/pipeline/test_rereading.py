"""Results are read again before a request is run again: a row that they lack may have been answered and paid for."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest

from batchling_client.operate import steering
from batchling_client.views.inspection import Inspection
from batchling_client.wire.keys import BatchId, RequestId
from batchling_client.wire.records.batch import Batch
from batchling_client.wire.states import BatchState
from batchling_worker.dialects.openai import batch_object
from batchling_worker.provider import Ending
from batchling_worker.sandbox.world.faults import (
    EmptyFiles,
    FailRows,
    Fault,
    LateFileIds,
    LoseRows,
    RefuseDownload,
    SpoilRows,
)
from tests.deployment import CANARY, Deployment
from tests.waiting import wait_until

from .hand import Hand

HTML = "<!DOCTYPE html><html><body><h1>We will be right back</h1></body></html>\n"
ERROR = '{"error": {"message": "The server had an error.", "type": "server_error"}}'
NO_RESULT_FILE = {
    "a page of a gateway": RefuseDownload(status=200, body=HTML),
    "an error object": RefuseDownload(status=200, body=ERROR),
    "an error object on several lines": RefuseDownload(status=200, body='{\n "error":\n {}\n}\n'),
    "JSON but not an object": RefuseDownload(status=200, body="[]"),
    "nothing at all": RefuseDownload(status=200, body=""),
}
UNREADABLE_FOR_GOOD: dict[str, Fault] = {
    "500": RefuseDownload(status=500, times=None),
    "404": RefuseDownload(status=404, times=None),
    "a page of a gateway": RefuseDownload(status=200, body=HTML, times=None),
}


@pytest.fixture
async def hand(deployment: Deployment) -> AsyncIterator[Hand]:
    async with Hand(deployment) as steps:
        yield steps


async def asked(deployment: Deployment, n: int) -> tuple[BatchId, list[RequestId]]:
    ids = await deployment.ask(n, provider="groq")
    [batch] = await deployment.batches()
    return batch.batch_id, ids


async def stepped(hand: Hand, batch_id: BatchId, *, until_error: str) -> Batch:
    """Steps of the batch, until it says that."""

    async def says() -> bool:
        if until_error in (await hand.batch(batch_id)).error:
            return True
        await hand.step(batch_id)
        return False

    await wait_until(says, description=until_error)
    return await hand.batch(batch_id)


async def one_step(hand: Hand, batch_id: BatchId) -> None:
    """The next step of a batch, whatever it is."""
    if (await hand.batch(batch_id)).collected_at is not None:
        await hand.engine.settle(await hand.claim(batch_id))
    else:
        await hand.step(batch_id)


async def to_its_end(hand: Hand, batch_id: BatchId) -> Batch:
    async def over() -> bool:
        batch = await hand.batch(batch_id)
        if batch.state.terminal:
            return True
        await one_step(hand, batch_id)
        return False

    await wait_until(over, description="the batch is over")
    return await hand.batch(batch_id)


async def retried(deployment: Deployment, batch_id: BatchId) -> steering.Retried:
    inspection = Inspection(deployment.redis, deployment.keys)
    return await steering.retry(inspection, deployment.scripts, batch_id)


async def delete_file(deployment: Deployment, file_id: str) -> None:
    """The file is gone at the provider, for good."""
    headers = {"authorization": f"Bearer {CANARY}"}
    async with httpx.AsyncClient(headers=headers) as http:
        gone = await http.delete(f"{deployment.sandbox.url}/groq/openai/v1/files/{file_id}")
        gone.raise_for_status()


@pytest.mark.parametrize("download", NO_RESULT_FILE)
async def test_a_download_that_is_not_a_result_file_is_read_again(
    deployment: Deployment, hand: Hand, download: str
) -> None:
    deployment.sandbox.faults.add(NO_RESULT_FILE[download])
    batch_id, ids = await asked(deployment, 5)

    batch = await to_its_end(hand, batch_id)

    assert (batch.n_succeeded, batch.n_requeued, batch.error) == (5, 0, "")
    assert deployment.billed() == dict.fromkeys(ids, 1)


async def test_file_ids_that_come_late_cost_nothing_whatever_the_workers_clock_says(
    deployment: Deployment, hand: Hand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_object, "LATE_FILES_S", -1e9)
    deployment.sandbox.faults.add(LateFileIds(seconds=1.0))
    batch_id, ids = await asked(deployment, 5)

    batch = await to_its_end(hand, batch_id)

    assert (batch.n_succeeded, batch.n_requeued, batch.error) == (5, 0, "")
    assert deployment.billed() == dict.fromkeys(ids, 1)


async def test_an_unreadable_file_does_not_hold_up_the_rows_of_the_other(
    deployment: Deployment, hand: Hand
) -> None:
    deployment.sandbox.faults.add(FailRows(n=3, status=400), RefuseDownload(status=500, after=1, times=None))
    batch_id, ids = await asked(deployment, 300)

    await stepped(hand, batch_id, until_error="results cannot be read yet")

    answered = [one for one in await deployment.results(ids) if one is not None]
    assert [result.status for result in answered] == [200] * 297
    deployment.sandbox.faults.clear()
    batch = await to_its_end(hand, batch_id)
    assert (batch.n_succeeded, batch.n_failed, batch.n_requeued) == (297, 3, 0)
    assert deployment.billed() == dict.fromkeys(ids, 1)


async def test_rows_of_an_error_file_that_stays_unreadable_are_run_again_where_all_answers_were_read(
    deployment: Deployment, hand: Hand
) -> None:
    deployment.sandbox.faults.add(FailRows(n=3, status=400), RefuseDownload(status=500, after=1, times=None))
    batch_id, _ = await asked(deployment, 10)

    batch = await to_its_end(hand, batch_id)

    assert (batch.n_succeeded, batch.n_failed, batch.n_requeued) == (7, 0, 3)


async def test_rows_that_are_missing_from_readable_files_are_run_again_after_several_readings(
    deployment: Deployment, hand: Hand
) -> None:
    deployment.sandbox.faults.add(LoseRows(n=2))
    batch_id, _ = await asked(deployment, 10)

    said = await stepped(hand, batch_id, until_error="2 requests are in no result file yet")
    batch = await to_its_end(hand, batch_id)

    assert said.n_requeued == 0
    assert (batch.n_succeeded, batch.n_requeued, batch.error) == (8, 2, "")


@pytest.mark.parametrize("damage", UNREADABLE_FOR_GOOD)
async def test_a_batch_whose_answers_are_counted_and_unreadable_is_held_and_read_at_a_retry(
    deployment: Deployment, hand: Hand, damage: str
) -> None:
    deployment.sandbox.faults.add(UNREADABLE_FOR_GOOD[damage])
    batch_id, ids = await asked(deployment, 5)

    held = await stepped(hand, batch_id, until_error="Nothing is run again")
    await hand.step(batch_id)

    assert f"groq has 5 answers in batch {held.provider_batch_id} that cannot be read" in held.error
    assert ".." not in held.error
    assert f"`batchling retry {batch_id}`" in held.error
    assert (await hand.batch(batch_id)).state is BatchState.ENDED
    assert await deployment.results(ids) == [None] * 5
    deployment.sandbox.faults.clear()
    assert (await retried(deployment, batch_id)).batch_ids == (batch_id,)
    batch = await to_its_end(hand, batch_id)
    assert (batch.n_succeeded, batch.error) == (5, "")
    assert deployment.billed() == dict.fromkeys(ids, 1)


async def test_rows_that_one_file_refuses_do_not_wait_with_a_batch_that_is_held_for_the_other(
    deployment: Deployment, hand: Hand
) -> None:
    deployment.sandbox.faults.add(FailRows(n=3, status=500))
    batch_id, ids = await asked(deployment, 5)
    await hand.bring(batch_id, BatchState.ENDED)
    output, _ = Ending.decode((await hand.batch(batch_id)).ending).results
    await delete_file(deployment, output)

    await stepped(hand, batch_id, until_error="Nothing is run again")

    [again] = [batch.batch_id for batch in await deployment.batches() if batch.batch_id != batch_id]
    assert (await to_its_end(hand, again)).n_succeeded == 3
    await hand.step(batch_id)
    held = await hand.batch(batch_id)
    assert (held.held_since is not None, held.n_requeued) == (True, 3)
    assert [result is None for result in await deployment.results(ids)].count(True) == 2
    assert deployment.sandbox.ledger().billed() == dict.fromkeys(ids, 1)


@pytest.mark.parametrize(
    "damage",
    [
        LoseRows(n=5),
        SpoilRows(n=5, lines=('{"custom_id":"request-1","response":{"status_code":200,"body":{"a":1}}}',)),
    ],
    ids=["no row at all", "foreign custom_ids"],
)
async def test_a_batch_none_of_whose_counted_answers_is_found_is_never_run_again(
    deployment: Deployment, hand: Hand, damage: Fault
) -> None:
    deployment.sandbox.faults.add(damage)
    batch_id, ids = await asked(deployment, 5)

    held = await stepped(hand, batch_id, until_error="no result names a request of this batch")
    await deployment.scripts.cancel(
        batch_id=batch_id, lane_id=held.lane_id, ending=b"{}", error="Given up by hand."
    )
    await to_its_end(hand, batch_id)

    assert held.held_since is not None
    assert [result.status for result in await deployment.answered(ids)] == [499] * 5
    assert len(await deployment.batches()) == 1
    assert deployment.billed() == dict.fromkeys(ids, 1)


async def test_held_results_are_given_up_when_their_provider_no_longer_keeps_them(
    deployment: Deployment, hand: Hand
) -> None:
    deployment.sandbox.faults.add(RefuseDownload(status=500, times=None))
    batch_id, ids = await asked(deployment, 2)
    await stepped(hand, batch_id, until_error="Nothing is run again")

    await deployment.redis.execute_command(
        "HSET", deployment.keys.batch(batch_id), "submitted_at", 1, "created_at", 1
    )
    batch = await to_its_end(hand, batch_id)

    assert batch.state is BatchState.FAILED
    results = await deployment.answered(ids)
    assert {result.status for result in results} == {502}
    assert b"2 answers in batch" in results[0].body
    assert len(await deployment.batches()) == 1


async def test_empty_files_beside_the_answers_ask_for_no_second_reading(
    deployment: Deployment, hand: Hand
) -> None:
    deployment.sandbox.faults.add(EmptyFiles())
    batch_id, _ = await asked(deployment, 5)

    batch = await to_its_end(hand, batch_id)

    assert (batch.n_succeeded, batch.n_unread) == (5, 0)
