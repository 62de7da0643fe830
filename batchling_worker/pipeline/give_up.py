"""Give up: a batch whose record cannot be read is left to other workers for a while, then its callers get an error."""

from __future__ import annotations

import contextlib

from batchling_client.wire.records.row_and_result import CorruptRecord, Row
from batchling_client.wire.scripts import RowOut

from ..claim import Claim
from ..provider import error_body
from ..store import Store
from ..telemetry import Telemetry
from .outgoing import refusal

ORIGIN = "batch_unreadable"


async def give_up(store: Store, claim: Claim, telemetry: Telemetry) -> None:
    """End a batch that cannot be read; a caller whose row can be read gets an error, never a guess.

    A caller whose row is damaged too finds out by itself that its batch is over.
    """
    telemetry.warn("batch_unreadable", batch=claim.batch_id)
    if not await claim.unreadable():
        return
    reason = (
        f"The record of batch {claim.batch_id} in Redis is damaged, and was refused: the provider may have run "
        "this request already. Send it again to have it run anew."
    )
    with contextlib.suppress(CorruptRecord):
        async for rows in store.unanswered(claim.batch_id):
            if rows:
                await claim.deliver([_refusal(row, reason) for row in rows])
    await claim.give_up(reason)
    telemetry.warn("batch_given_up", batch=claim.batch_id)


def _refusal(row: Row, reason: str) -> RowOut:
    return refusal(row.request_id, status=502, body=error_body(ORIGIN, reason), origin=ORIGIN, cipher=None)
