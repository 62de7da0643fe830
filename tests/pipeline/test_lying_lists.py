"""Lists that are out of date, or name other files or none: each answer comes from its batch, once and paid once."""

from __future__ import annotations

import pytest

from batchling_worker import providers
from batchling_worker.dialects.poll_many import LEAST_IN_LIST
from batchling_worker.sandbox.world.faults import (
    EmptyPage,
    Fault,
    ListWithOtherIds,
    ListWithoutFileIds,
    StaleList,
)
from tests.deployment import Deployment
from tests.form import names

N_BATCHES = LEAST_IN_LIST + 3
LIES: dict[str, Fault] = {
    "stands still": StaleList(times=None),
    "names other files": ListWithOtherIds(times=None),
    "names no files": ListWithoutFileIds(times=None),
    "has empty pages": EmptyPage(times=20),
    "has empty pages without a cursor": EmptyPage(times=20, cursor=False),
}


@pytest.mark.parametrize("name", names())
@pytest.mark.parametrize("lie", LIES)
async def test_a_list_that_lies_costs_no_answer_and_no_second_batch(
    deployment: Deployment, name: str, lie: str
) -> None:
    deployment.sandbox.faults.add(LIES[lie])
    deployment.sandbox.speeds.set({"*": 0.5})
    # A create that is torn off by a short lease would be searched for in that list, until it tells the truth.
    deployment.env["BATCHLING_LEASE_SECONDS"] = "10"
    n_rows = max(2, providers.load(name).facts.min_rows)
    ids = await deployment.ask(N_BATCHES * n_rows, provider=name, rows=n_rows)
    deployment.fork()

    results = await deployment.answered(ids, within_s=90.0, hurried=True)

    assert {result.status for result in results} == {200}
    batches = await deployment.settled()
    assert [batch.n_requeued for batch in batches] == [0] * N_BATCHES
    assert deployment.billed() == dict.fromkeys(ids, 1)
