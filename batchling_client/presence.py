"""Looks whether a worker is there that can open what this client seals, and says so once when none is."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Final

from .errors import WrongSettings
from .inspection import Inspection
from .wire import sealing
from .wire.connection import UNREACHABLE
from .wire.records import CorruptRecord

_logger = logging.getLogger(__name__)

LOOK_EVERY_S: Final = 0.5
PATIENCE_S: Final = 3.0
"""How long requests wait before their caller is told that no worker is alive."""
EMBEDDED_PATIENCE_S: Final = 15.0
"""The same where the stack was started a moment ago, its worker with it."""

NO_WORKER: Final = (
    "No worker is alive: the requests wait safely in Redis. "
    "Start one with `celery -A batchling_worker worker` (or `batchling up`)."
)
_OTHER_KEY: Final = (
    "No live worker can open the credentials that this client seals: give client and workers the same "
    "BATCHLING_SEAL_PUBLIC_KEY and BATCHLING_SEAL_PRIVATE_KEY (`batchling keys new` prints a pair)."
)


async def fit_worker_lives(inspection: Inspection, public_key: str) -> bool:
    """Whether a worker lives; raises `WrongSettings` when those that live hold another seal key."""
    try:
        workers = await inspection.workers()
    except CorruptRecord:
        # A worker of another version: nothing can be said of its key.
        return True
    if not workers:
        return False
    digest = sealing.digest(public_key)
    if not any(worker.seal_public_key == digest for worker in workers):
        raise WrongSettings(_OTHER_KEY)
    return True


async def watch(
    inspection: Inspection, public_key: str, *, asked: Callable[[], bool], patience_s: float
) -> None:
    """Say one line when requests have waited for `patience_s` and no fit worker lives; return once one does."""
    asked_at: float | None = None
    loop = asyncio.get_running_loop()
    said = ""
    while True:
        with contextlib.suppress(*UNREACHABLE):
            try:
                if await fit_worker_lives(inspection, public_key):
                    return
                line = NO_WORKER
            except WrongSettings as error:
                line = str(error)
            if asked_at is None and asked():
                asked_at = loop.time()
            if asked_at is not None and loop.time() - asked_at >= patience_s and line != said:
                said = line
                _logger.warning("%s", line)
        await asyncio.sleep(LOOK_EVERY_S)
