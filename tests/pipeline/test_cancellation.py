"""Cancellation at the provider: finished answers are delivered, other callers get an error, outages are waited out."""

from __future__ import annotations

import datetime as dt
import json

from batchling_client.wire.records.batch import Batch
from batchling_client.wire.states import BatchState, Outcome
from batchling_worker.sandbox import Sandbox
from batchling_worker.sandbox.world.faults import ForgetDoneOnCancel, RefuseCancel, SlowUpload, StickBatch
from tests.deployment import Deployment
from tests.waiting import wait_until


async def of_model(deployment: Deployment, model: str) -> Batch:
    [batch] = [batch for batch in await deployment.batches() if batch.spec.model == model]
    return batch


async def in_progress(deployment: Deployment, model: str, n_done: int) -> Batch:
    """The one batch of a model, once the provider says that so many of its rows are done."""

    async def seen() -> bool:
        return (await of_model(deployment, model)).n_done == n_done

    await wait_until(seen, description=f"{n_done} rows are done", within_s=20)
    return await of_model(deployment, model)


async def looked_at(deployment: Deployment, model: str) -> None:
    """Waits for a look at the one batch of a model that begins after this."""
    ends = set[dt.datetime]()

    async def twice() -> bool:
        ends.add((await of_model(deployment, model)).updated_at)
        # As it is now, then the end of a look that may have begun before, then that of the next.
        return len(ends) > 2

    await wait_until(twice, description=f"the batch of {model} is looked at")


async def cancel(deployment: Deployment, batch: Batch) -> None:
    verdict = await deployment.scripts.cancel(
        batch_id=batch.batch_id, lane_id=batch.lane_id, ending=b"{}", error="cancelled by a person"
    )
    assert verdict == "OK"


async def test_finished_rows_are_answered_and_the_others_get_an_error(
    deployment: Deployment, sandbox: Sandbox
) -> None:
    """Rows that the provider has billed and drops at a cancel get an error too, and are not run again."""
    sandbox.faults.add(StickBatch(state="in_progress", done=0.5, times=None))
    sandbox.faults.add(ForgetDoneOnCancel(model="forgetful"))
    ids = await deployment.ask(10, model="honest")
    forgotten = await deployment.ask(10, model="forgetful")
    deployment.worker()
    for model in ("honest", "forgetful"):
        await cancel(deployment, await in_progress(deployment, model, 5))

    results = await deployment.answered(ids)
    refused = await deployment.answered(forgotten)

    assert sorted(result.status for result in results) == [200] * 5 + [499] * 5
    assert {result.origin for result in results if result.status == 499} == {"batch_cancelled"}
    assert {result.status for result in refused} == {499}
    said = {json.loads(result.body)["error"]["message"] for result in refused}
    assert any("was cancelled, as a person or a deadline asked" in words for words in said)
    done = {one for one, result in zip(ids, results, strict=True) if result.status == 200}
    billed = deployment.billed()
    assert {one for one in ids if one in billed} == done
    assert set(billed.values()) == {1}
    await deployment.settled()
    for model, n_succeeded in (("honest", 5), ("forgetful", 0)):
        batch = await of_model(deployment, model)
        assert (batch.state, batch.outcome) == (BatchState.CANCELLED, Outcome.CANCELLED)
        assert (batch.n_succeeded, batch.n_failed, batch.n_requeued) == (n_succeeded, 10 - n_succeeded, 0)


async def test_a_cancel_that_fails_is_tried_again(deployment: Deployment, sandbox: Sandbox) -> None:
    sandbox.faults.add(StickBatch(state="in_progress", done=0.5, times=None))
    asked = {}
    for status in (403, 429, 503):
        sandbox.faults.add(RefuseCancel(status=status, model=f"m{status}"))
        asked[status] = await deployment.ask(4, model=f"m{status}")
    deployment.worker()
    for status in asked:
        await cancel(deployment, await in_progress(deployment, f"m{status}", 2))

    for status, ids in asked.items():
        results = await deployment.answered(ids)
        assert sorted(result.status for result in results) == [200, 200, 499, 499], status

    assert not any(isinstance(fault, RefuseCancel) for fault in sandbox.faults.armed())


async def test_a_batch_that_cannot_be_cancelled_completes_and_is_answered(
    deployment: Deployment, sandbox: Sandbox
) -> None:
    """As where the cancellation meets a batch that has just been completed (400), or a key without the right (403)."""
    sandbox.faults.add(StickBatch(state="in_progress", seconds=3600, times=None))
    asked = {}
    for status in (400, 403):
        sandbox.faults.add(RefuseCancel(status=status, model=f"m{status}", times=None))
        asked[status] = await deployment.ask(4, model=f"m{status}")
    deployment.worker()
    for status in asked:
        batch = await in_progress(deployment, f"m{status}", 4)
        # As if it had been denied for long: one refusal more must not be taken for the batch's own.
        long_denied = ("denied_since", 1, "n_denied", 50, "cancel_requested", 1)
        await deployment.redis.execute_command("HSET", deployment.keys.batch(batch.batch_id), *long_denied)
        await looked_at(deployment, f"m{status}")
    sandbox.clock.advance(3600)

    for ids in asked.values():
        assert {result.status for result in await deployment.answered(ids)} == {200}

    assert sandbox.faults.n_struck(RefuseCancel) >= len(asked)
    assert {(batch.state, batch.cancel_requested) for batch in await deployment.settled()} == {
        (BatchState.SETTLED, True)
    }
    assert deployment.billed() == {one: 1 for ids in asked.values() for one in ids}


async def test_a_cancel_while_the_submission_is_under_way_reaches_the_batch_it_makes(
    deployment: Deployment, sandbox: Sandbox
) -> None:
    sandbox.faults.add(SlowUpload(seconds=1.5), StickBatch(state="in_progress", done=0.0))
    ids = await deployment.ask(3)
    deployment.worker()

    async def submitting() -> bool:
        return (await deployment.batches())[0].state is BatchState.SUBMITTING

    await wait_until(submitting, description="the submission is under way", within_s=20)
    await cancel(deployment, (await deployment.batches())[0])

    results = await deployment.answered(ids)

    assert {(result.status, result.origin) for result in results} == {(499, "batch_cancelled")}
    assert deployment.billed() == {}
    [batch] = await deployment.settled()
    assert batch.state is BatchState.CANCELLED
