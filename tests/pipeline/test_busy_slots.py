"""More batches are due than the worker has slots for: they wait their turn, and are not claimed again meanwhile."""

from __future__ import annotations

from batchling_worker.sandbox.world.faults import SlowUpload
from tests.deployment import Deployment

N_BATCHES = 40
UPLOAD_S = 0.3
LEASE_S = 1.0
"""Two slots upload for six seconds."""


async def test_what_waits_for_a_slot_is_not_claimed_again(deployment: Deployment) -> None:
    deployment.env["BATCHLING_LEASE_SECONDS"] = str(LEASE_S)
    deployment.sandbox.faults.add(SlowUpload(seconds=UPLOAD_S, times=None))
    ids = await deployment.ask(N_BATCHES, rows=1)
    deployment.worker()

    results = await deployment.answered(ids, within_s=60)

    assert {result.status for result in results} == {200}
    assert "claim_stuck" not in deployment.worker_logs()
    assert deployment.billed() == dict.fromkeys(ids, 1)
