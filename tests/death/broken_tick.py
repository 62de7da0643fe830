"""A worker whose tick dies of an unexpected error: `celery -A tests.death.broken_tick worker`."""

from __future__ import annotations

import os
import sys
from unittest import mock

from batchling_worker.celery import app
from batchling_worker.runtime.ticker import Ticker
from batchling_worker.store import Store

__all__ = ["app"]

_once = Ticker.once
_left = [int(os.environ["BATCHLING_TICK_DEATHS"])]


async def _breaks(self: Ticker, store: Store) -> tuple[int, bool]:
    if _left[0] > 0:
        _left[0] -= 1
        # A thread that ends with SystemExit prints nothing.
        sys.exit("an accident")
    return await _once(self, store)


mock.patch.object(Ticker, "once", _breaks).start()
