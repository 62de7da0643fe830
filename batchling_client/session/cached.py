"""Drops stored answers that do not fit their endpoint, and requests them again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from ..wire import answer_shape
from ..wire.keys import RequestId
from ..wire.records.row_and_result import CorruptRecord, Result
from ..wire.scripts import Scripts
from .lanes import Lane

SUCCESS: Final = b"+"
"""How a stored success begins."""


async def discard_unfit(scripts: Scripts, lane: Lane, request_ids: Sequence[RequestId]) -> set[RequestId]:
    """Drop the stored results that are no answers; return whose they were."""
    keys = scripts.keys
    values: list[Any] = await scripts.redis.mget([keys.result(request_id) for request_id in request_ids])
    unfit: set[RequestId] = set()
    for request_id, packed in zip(request_ids, values, strict=True):
        if not isinstance(packed, bytes) or not packed.startswith(SUCCESS):
            continue
        if _is_unfit(lane, request_id, packed):
            await scripts.discard(request_id=request_id, packed=packed)
            unfit.add(request_id)
    return unfit


def _is_unfit(lane: Lane, request_id: RequestId, packed: bytes) -> bool:
    """Return whether a stored success cannot be an answer; the reader refuses a damaged result."""
    try:
        body = Result.decode(packed, request_id, lane.cipher).body
    except CorruptRecord:
        return False
    return answer_shape.unfit(lane.spec.endpoint, answer_shape.unpacked(body)) is not None
