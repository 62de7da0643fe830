"""Drops stored answers that do not fit their endpoint, and requests them again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from ..wire import answer_shape
from ..wire.keys import RequestId
from ..wire.records.row_and_result import CorruptRecord, LaneSpec, Result
from ..wire.scripts import Scripts

SUCCESS: Final = b"+"
"""How a stored success begins."""


async def discard_unfit(
    scripts: Scripts, packed_spec: bytes, request_ids: Sequence[RequestId]
) -> set[RequestId]:
    """Drop the stored results that are no answers; return whose they were."""
    keys = scripts.keys
    values: list[Any] = await scripts.redis.mget([keys.result(request_id) for request_id in request_ids])
    endpoint = ""
    unfit: set[RequestId] = set()
    for request_id, packed in zip(request_ids, values, strict=True):
        if not isinstance(packed, bytes) or not packed.startswith(SUCCESS):
            continue
        endpoint = endpoint or _endpoint_of(packed_spec)
        if _is_unfit(endpoint, packed):
            await scripts.discard(request_id=request_id, packed=packed)
            unfit.add(request_id)
    return unfit


def _endpoint_of(packed_spec: bytes) -> str:
    return LaneSpec.decode(packed_spec).endpoint


def _is_unfit(endpoint: str, packed: bytes) -> bool:
    """Return whether a stored success cannot be an answer; the reader refuses a damaged result."""
    try:
        body = Result.decode(packed).body
    except CorruptRecord:
        return False
    return answer_shape.unfit(endpoint, answer_shape.unpacked(body)) is not None
