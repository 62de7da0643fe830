"""The end of a worker: its processes hand their batches back, pool children at a signal; its exit code."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from typing import Any, Final

from billiard import pool as billiard_pool
from celery.worker import state

from .step_loop import Runtime

FAILURE: Final = 1
USAGE: Final = 2
HAND_BACK: Final = signal.SIGURG
"""A signal that Celery does not use and that a child ignores until it listens."""

RESULT_PATIENCE: Final = 1
"""How long a child waits for its parent to read its results, in tenths of a second."""


def listen(runtime: Runtime) -> None:
    """Make a pool child hand its batches back at the signal: a warm shutdown would wait for its steps to end."""
    runtime.born()
    # A child waits thirty seconds for its parent to read its last results, which a parent that stops may never do
    # (billiard 4.3). Our children have no results: their work is stored in Redis.
    billiard_pool.GUARANTEE_MESSAGE_CONSUMPTION_RETRY_LIMIT = RESULT_PATIENCE
    signal.signal(HAND_BACK, lambda *_: runtime.hand_back())


def leave(runtime: Runtime, pool: Any) -> None:
    """Make the pool's children hand their batches back, and hand back those of this process."""
    for pid in pool.info.get("processes", ()):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, HAND_BACK)
    runtime.leave()


def stop_worker(exit_code: int) -> None:
    """Stop this worker as SIGTERM would; with a code other than 0 its supervisor starts another."""
    # Celery's own way, in its main thread.
    celery_state: Any = state
    celery_state.should_stop = exit_code


def refuse(sentence: str) -> None:
    """Stop this worker, which cannot run as it was started, and print why."""
    say(sentence)
    stop_worker(USAGE)


def say(sentence: str) -> None:
    """Print to the terminal itself: by now Celery has replaced stderr by its log."""
    stderr = sys.__stderr__ or sys.stderr
    stderr.write(f"{sentence}\n")
