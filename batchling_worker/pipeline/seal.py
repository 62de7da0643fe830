"""Seal: an open batch is closed for ever to new requests."""

from __future__ import annotations

from batchling_client.wire.scripts import Claim
from batchling_client.wire.states import Verdict

from ..store import Held, Store
from ..telemetry import Telemetry


async def seal(store: Store, claim: Claim, telemetry: Telemetry) -> bool:
    """Seal a claimed open batch whose linger is over; return False if another worker was first."""
    lane_id = await store.lane_of(claim.batch_id)
    verdict = await store.seal(Held(batch_id=claim.batch_id, token=claim.token), lane_id)
    if verdict is not Verdict.OK:
        return False
    telemetry.log("batch_sealed", batch_id=claim.batch_id, lane_id=lane_id)
    return True
