"""A worker whose tick dies of an unexpected error: `celery -A tests.death.broken_tick worker`."""

from __future__ import annotations

import os
import sys
from unittest import mock

from batchling_worker.celery import app
from batchling_worker.runtime.tick import Tick

__all__ = ["app"]

_once = Tick.once
_left = [int(os.environ["BATCHLING_TICK_DEATHS"])]


async def _breaks(self: Tick) -> tuple[int, bool]:
    if _left[0] > 0:
        _left[0] -= 1
        # A thread that ends with SystemExit prints nothing.
        sys.exit("an accident")
    return await _once(self)


mock.patch.object(Tick, "once", _breaks).start()
