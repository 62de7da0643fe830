"""Checks what requests need: a live worker that can open this client's credentials, and room in Redis."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from redis.exceptions import RedisError

from ..errors import WrongSettings
from ..views.inspection import Inspection
from ..wire import sealing
from ..wire.deployment.cancellation import is_cancelled
from ..wire.deployment.connection import UNREACHABLE
from ..wire.deployment.rehearsing import SANDBOX
from ..wire.records.row_and_result import CorruptRecord
from ..wire.shown import shown

_logger = logging.getLogger(__name__)

LOOK_EVERY_S: Final = 0.5
AGAIN_EVERY_S: Final = 2.0
"""The same while nothing is amiss."""
STARTING_EVERY_S: Final = 0.05
"""The same while the worker of an embedded stack starts."""
STARTING_S: Final = 10.0
"""How long a plain block waits, at its entry, for the worker of an embedded stack that starts."""
PATIENCE_S: Final = 3.0
"""How long requests wait before batchling warns their caller that no worker is alive."""
STARTED_PATIENCE_S: Final = 15.0
"""The same where a stack or a rehearsal was started a moment ago, its worker with it."""

_NO_WORKER: Final = "No worker is alive: the requests wait safely in Redis. {}"
_START_ONE: Final = "Start one with `celery -A batchling_worker worker`."
_UP: Final = "`batchling up` starts one."
REDIS_FULL: Final = (
    "Redis is full: workers cannot store answers until it has room. Raise its `maxmemory`; nothing is lost "
    "meanwhile."
)
_OTHER_KEY: Final = (
    "A live worker cannot open the credentials that this client seals: give clients and every worker the same "
    "BATCHLING_SEAL_PUBLIC_KEY and BATCHLING_SEAL_PRIVATE_KEY (`batchling keys new` prints a pair)."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Missing:
    """When to warn that no worker is alive, and with what advice."""

    after_s: float = PATIENCE_S
    warning: str = _NO_WORKER.format(_START_ONE)


def missing_worker(redis_url: str | None) -> Missing:
    """Return what fits the deployment at a URL; None = the embedded stack."""
    has_started = not redis_url or bool(os.environ.get(SANDBOX))
    return Missing(
        after_s=STARTED_PATIENCE_S if has_started else PATIENCE_S,
        warning=_NO_WORKER.format(_START_ONE if redis_url else _UP),
    )


async def fit_worker_lives(inspection: Inspection, public_key: str) -> bool:
    """Return whether a worker is alive; raise `WrongSettings` if one could not open what is sealed for this key.

    Any live worker may submit a batch.
    """
    try:
        workers = await inspection.workers()
    except CorruptRecord:
        # A worker of another version: its key is unknown.
        return True
    if not workers:
        return False
    digest = sealing.digest(public_key)
    if not all(worker.can_open(digest) for worker in workers):
        raise WrongSettings(_OTHER_KEY)
    return True


async def first_worker(inspection: Inspection, patience_s: float) -> None:
    """Return once a worker lives, or after `patience_s`; until one does, requests wait safely in Redis."""
    with contextlib.suppress(TimeoutError, *UNREACHABLE, CorruptRecord):
        async with asyncio.timeout(patience_s):
            while True:
                if await inspection.workers():
                    return
                await asyncio.sleep(STARTING_EVERY_S)


async def watch(
    inspection: Inspection, public_key: str, *, asked: Callable[[], bool], missing: Missing
) -> None:
    """Warn once of each thing that requests have waited for in vain for `missing.after_s`; look for ever."""
    loop = asyncio.get_running_loop()
    amiss_since: float | None = None
    said = ""
    while True:
        line = said
        with contextlib.suppress(RedisError, *UNREACHABLE):
            line = await _amiss(inspection, public_key, missing.warning)
        if is_cancelled():
            return
        if not line:
            amiss_since, said = None, ""
        elif amiss_since is None and asked():
            amiss_since = loop.time()
        if line and amiss_since is not None and loop.time() - amiss_since >= missing.after_s and line != said:
            said = line
            _logger.warning("%s", shown(line))
        await asyncio.sleep(LOOK_EVERY_S if line else AGAIN_EVERY_S)


async def _amiss(inspection: Inspection, public_key: str, no_worker: str) -> str:
    """Return what requests would wait for now, '' if nothing is wrong."""
    try:
        if not await fit_worker_lives(inspection, public_key):
            return no_worker
    except WrongSettings as error:
        return str(error)
    return REDIS_FULL if await inspection.is_full() else ""
