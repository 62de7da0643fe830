"""Removes variables that configure other Celery and Django programs and would configure the worker too."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Final

_PREFIX: Final = "CELERY_"
_OPTIONS: Final = ("BROKER_URL", "RESULT_BACKEND", "CONFIG_MODULE", "LOADER", "SKIP_CHECKS")
"""Celery's command line reads these as its own options, under these names too."""
_BROKERS: Final = ("CELERY_BROKER_URL", "CELERY_BROKER_READ_URL", "CELERY_BROKER_WRITE_URL", "BROKER_URL")
"""Celery prefers these to the broker of an app, each time it connects."""
_KEPT: Final = (
    # Celery sets these itself, for the processes of its pool.
    "CELERY_LOG_",
    # The size of a worker depends on its machine, not on the app it runs.
    "CELERY_WORKER_AUTOSCALE",
    "CELERY_WORKER_CONCURRENCY",
    "CELERY_WORKER_HOSTNAME",
    "CELERY_WORKER_LOGLEVEL",
    "CELERY_WORKER_MAX_MEMORY_PER_CHILD",
    "CELERY_WORKER_MAX_TASKS_PER_CHILD",
    "CELERY_WORKER_POOL",
)


def leave_out(environment: MutableMapping[str, str]) -> str | None:
    """Remove them; return a sentence to show if one of them named a broker."""
    foreign = [
        name
        for name in environment
        if (name.startswith(_PREFIX) and not name.startswith(_KEPT)) or name in _OPTIONS
    ]
    named = [name for name in foreign if environment[name] and name in _BROKERS]
    for name in foreign:
        del environment[name]
    if not named:
        return None
    return (
        f"batchling ignores {', '.join(sorted(named))}: its workers and dashboard use BATCHLING_REDIS_URL, "
        "or the embedded Redis, as their broker."
    )
