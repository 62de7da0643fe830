"""Explains why a call has no answer at its deadline: what the batches of its run wait for then."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from ..wire.records.batch import Batch
from ..wire.records.row_and_result import LaneSpec
from . import wait_reasons

LOOK_S = 2.0
"""A look may take so long: the call has passed its deadline already."""
FRESH_S: Final = 2.0
"""So long a look counts for all calls of an event loop: thousands may pass their deadline together."""


class Overdue:
    """The latest look of one event loop at the batches of its run."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._batches: Sequence[Batch] = ()
        self._stale_at = 0.0

    async def why(self, look: Callable[[], Awaitable[Sequence[Batch]]], spec: LaneSpec) -> str:
        """Return why a request of that lane waits, in one sentence; '' where that cannot be seen now."""
        now = asyncio.get_running_loop().time
        async with self._lock:
            if now() >= self._stale_at:
                try:
                    async with asyncio.timeout(LOOK_S):
                        self._batches = await look()
                except Exception:  # noqa: BLE001 - Redis may be away, which is a reason that the session says itself
                    self._batches = ()
                self._stale_at = now() + FRESH_S
        return wait_reasons.of_lane(self._batches, spec)
