"""A worker that is told to stop hands its batches back: its own process' at once, pool children's at a signal."""

from __future__ import annotations

import contextlib
import os
import signal
from typing import Any, Final

from billiard import pool as billiard_pool

from .step_loop import Runtime

HAND_BACK: Final = signal.SIGURG
"""A signal that Celery has no use for, and that does nothing to a child which does not listen yet."""

RESULT_PATIENCE: Final = 1
"""In tenths of a second."""


def listen(runtime: Runtime) -> None:
    """Has a pool child hand its batches back at the signal: a warm shutdown would wait for its steps to end."""
    runtime.born()
    # A child waits thirty seconds for its parent to have read the last of its results, which a parent that stops may
    # never do (billiard 4.3). Ours have no results: what they do stands in Redis.
    billiard_pool.GUARANTEE_MESSAGE_CONSUMPTION_RETRY_LIMIT = RESULT_PATIENCE
    signal.signal(HAND_BACK, lambda *_: runtime.hand_back())


def leave(runtime: Runtime, pool: Any) -> None:
    """Has the pool's children hand back what they hold, and hands back what this process holds."""
    for pid in pool.info.get("processes", ()):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, HAND_BACK)
    runtime.leave()
