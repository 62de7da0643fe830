"""Rows that a provider hands out while its batch runs are answered then, once, and cost the batch nothing."""

from __future__ import annotations

import datetime as dt
from collections import Counter

import pytest

from batchling_client.wire.keys import RequestId
from batchling_client.wire.records.row_and_result import Result
from batchling_client.wire.states import BatchState
from batchling_worker import providers
from batchling_worker.sandbox.world.faults import (
    FailRows,
    HealRows,
    RefuseDownload,
    SlowDownload,
    StickBatch,
    TruncateDownload,
)
from tests.deployment import Deployment
from tests.form import form_of, names
from tests.waiting import wait_until

EARLY = tuple(name for name in names() if providers.load(name).facts.early_results)
N_ROWS = 300
N_DONE = 180
STUCK_S = 3600.0
"""Until the test has this time pass."""


@pytest.fixture(params=EARLY)
def early(request: pytest.FixtureRequest) -> str:
    chosen: str = request.param
    return chosen


def stuck(seconds: float | None = None, model: str | None = None) -> StickBatch:
    return StickBatch(state="in_progress", seconds=seconds, done=N_DONE / N_ROWS, model=model)


async def answered_so_far(deployment: Deployment, ids: list[RequestId]) -> list[Result]:
    return [result for result in await deployment.results(ids) if result is not None]


async def done_is_answered(deployment: Deployment, ids: list[RequestId]) -> None:
    async def some() -> bool:
        return len(await answered_so_far(deployment, ids)) == N_DONE

    await wait_until(some, description="the rows that are done are answered")


async def looked_at(deployment: Deployment, n: int) -> None:
    """Waits for so many more looks at the one batch that runs."""
    looks = set[dt.datetime]()

    async def often() -> bool:
        looks.update(batch.updated_at for batch in await deployment.batches())
        return len(looks) > n

    await wait_until(often, description=f"{n} more looks")


async def test_callers_are_answered_before_their_batch_has_ended(deployment: Deployment, early: str) -> None:
    deployment.sandbox.faults.add(stuck())
    deployment.fork()
    ids = await deployment.ask(N_ROWS, provider=early)

    await done_is_answered(deployment, ids)
    [batch] = await deployment.batches()
    assert batch.state is BatchState.SUBMITTED
    assert (batch.n_succeeded, batch.n_failed, batch.error) == (N_DONE, 0, "")
    assert {result.status for result in await answered_so_far(deployment, ids)} == {200}
    assert set((await deployment.told()).values()) == {1}


async def test_no_answer_is_delivered_or_paid_for_twice(deployment: Deployment, early: str) -> None:
    deployment.sandbox.faults.add(stuck(STUCK_S))
    deployment.fork()
    ids = await deployment.ask(N_ROWS, provider=early)

    await done_is_answered(deployment, ids)
    deployment.sandbox.clock.advance(STUCK_S)
    results = await deployment.answered(ids)
    [batch] = await deployment.settled()
    assert {result.status for result in results} == {200}
    assert (batch.n_succeeded, batch.n_failed, batch.n_requeued) == (N_ROWS, 0, 0)
    assert await deployment.told() == dict.fromkeys(ids, 1)
    assert deployment.billed() == dict.fromkeys(ids, 1)
    assert "early_delivered" in deployment.worker_logs()


async def test_a_row_that_fails_at_first_and_heals_is_never_told_as_failed(
    deployment: Deployment, early: str
) -> None:
    deployment.sandbox.faults.add(stuck(0.5), HealRows(n=60, status=400))
    deployment.fork()
    ids = await deployment.ask(N_ROWS, provider=early)

    assert {result.status for result in await deployment.answered(ids)} == {200}
    [batch] = await deployment.settled()
    assert (batch.n_succeeded, batch.n_failed) == (N_ROWS, 0)
    assert await deployment.told() == dict.fromkeys(ids, 1)


async def test_a_failed_row_is_delivered_when_the_batch_has_ended(deployment: Deployment, early: str) -> None:
    deployment.env["BATCHLING_MAX_ATTEMPTS"] = "1"
    deployment.sandbox.faults.add(stuck(STUCK_S), FailRows(n=N_ROWS - 20, status=400))
    deployment.fork()
    ids = await deployment.ask(N_ROWS, provider=early)

    async def some() -> bool:
        return bool(await answered_so_far(deployment, ids))

    await wait_until(some, description="some are answered early")
    await looked_at(deployment, 5)
    assert {result.status for result in await answered_so_far(deployment, ids)} == {200}
    deployment.sandbox.clock.advance(STUCK_S)
    statuses = Counter(result.status for result in await deployment.answered(ids))
    assert statuses[200] == 20
    # Not every provider tells the status of a row.
    assert {status for status in statuses if status != 200} <= {400, 500}


async def test_results_are_read_again_only_when_the_provider_has_more(
    deployment: Deployment, early: str
) -> None:
    # Strikes at each download, and slows down none.
    deployment.sandbox.faults.add(stuck(), SlowDownload(bytes_per_second=1 << 30, times=None))
    deployment.fork()
    ids = await deployment.ask(N_ROWS, provider=early)

    await done_is_answered(deployment, ids)
    # The last rows may have been done between a look and the read that followed: the next look reads once more.
    await looked_at(deployment, 2)
    n_reads = n_downloads(deployment)
    await looked_at(deployment, 5)
    assert n_reads > 0
    assert n_downloads(deployment) <= n_reads + 1


@pytest.mark.parametrize(
    "fault",
    [
        RefuseDownload(status=500, times=2),
        RefuseDownload(status=404, times=2),
        RefuseDownload(status=400, times=2),
        TruncateDownload(sent=0.3, times=2),
    ],
    ids=["500", "404", "400", "torn"],
)
async def test_an_early_read_that_fails_disturbs_no_look(
    deployment: Deployment, early: str, fault: RefuseDownload | TruncateDownload
) -> None:
    deployment.sandbox.faults.add(stuck(STUCK_S), fault)
    deployment.fork()
    ids = await deployment.ask(N_ROWS, provider=early)

    await wait_until(
        lambda: deployment.sandbox.faults.n_struck(type(fault)) == 2, description="two reads have failed"
    )
    deployment.sandbox.clock.advance(STUCK_S)
    assert {result.status for result in await deployment.answered(ids)} == {200}
    [batch] = await deployment.settled()
    assert (batch.n_succeeded, batch.n_requeued) == (N_ROWS, 0)
    logs = deployment.worker_logs()
    assert "step_stumbled" not in logs
    assert "step_failed" not in logs
    assert await deployment.told() == dict.fromkeys(ids, 1)


async def test_a_long_early_read_keeps_its_batch_and_holds_up_no_other(
    deployment: Deployment, early: str
) -> None:
    form = form_of(early)
    deployment.env["BATCHLING_LEASE_SECONDS"] = "2"
    deployment.sandbox.faults.add(
        stuck(model=form.slow_model),
        # Some six seconds for what is done: three leases.
        SlowDownload(bytes_per_second=N_DONE * 100, model=form.slow_model, times=None),
    )
    deployment.fork()
    slow = await deployment.ask(N_ROWS, provider=early, model=form.slow_model)

    async def reading() -> bool:
        return n_downloads(deployment) > 0

    await wait_until(reading, description="early results are being read")
    n_said = len(deployment.worker_logs())
    quick = await deployment.ask(40, provider=early)
    await deployment.answered(quick)
    assert len(await answered_so_far(deployment, slow)) < N_DONE

    async def all_done() -> bool:
        return len(await answered_so_far(deployment, slow)) == N_DONE

    await wait_until(all_done, description="the long read comes to its end")
    assert "step_stale" not in deployment.worker_logs()[n_said:]
    told = await deployment.told()
    assert (len(told), set(told.values())) == (len(quick) + N_DONE, {1})


def n_downloads(deployment: Deployment) -> int:
    return deployment.sandbox.faults.n_struck(SlowDownload)
