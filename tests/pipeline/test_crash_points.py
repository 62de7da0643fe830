"""A worker that dies hard at any named point: every request is answered once and billed once."""

from __future__ import annotations

import pytest

from batchling_worker.crash import EXIT_CODE
from tests.deployment import Deployment

POINTS = (
    "submit.intended",
    "submit.written",
    "submit.uploaded",
    "submit.before_arm",
    "submit.armed",
    "submit.created",
    "submit.committed",
    "poll.ended",
    "collect.chunk",
    "collect.delivered",
    "settle.chunk",
    "settle.walked",
)


@pytest.mark.parametrize("point", POINTS)
async def test_death_at_any_point_answers_and_bills_once(deployment: Deployment, point: str) -> None:
    doomed = deployment.worker(crash_at=point)
    ids = await deployment.ask(300)

    assert await deployment.died(doomed) == EXIT_CODE
    deployment.worker(crash_at=point)

    results = await deployment.answered(ids)
    assert {result.status for result in results} == {200}
    await deployment.settled()
    assert deployment.billed() == dict.fromkeys(ids, 1)
