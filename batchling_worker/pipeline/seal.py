"""Seal: an open batch is closed for ever to new requests."""

from __future__ import annotations

from batchling_client.wire.scripts import DueBatch

from ..errors import StaleClaim
from ..store import Store
from ..telemetry import Telemetry


async def seal(store: Store, due: DueBatch, telemetry: Telemetry) -> bool:
    """Seal a claimed open batch whose linger is over; return False if another worker was first."""
    lane_id, spec = await store.lane_of(due.batch_id)
    try:
        await store.claim(due.batch_id, due.token).seal(lane_id)
    except StaleClaim:
        return False
    provider, model = (spec.provider, spec.model) if spec is not None else ("", "")
    telemetry.log("batch_sealed", batch_id=due.batch_id, provider=provider, model=model, lane_id=lane_id)
    return True
