"""What the supervisor publishes: who runs, since when, and with which settings. Never a key."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

NAMES: Final = ("redis", "worker", "flower")
TOLD_APART: Final = ("BATCHLING_PROVIDERS", "BATCHLING_SEAL_", "BATCHLING_NAMESPACE")
"""How the names of the settings begin whose callers must not share a worker."""
FOLLOWED: Final = (
    "BATCHLING_RESULT_TTL_SECONDS",
    "BATCHLING_POLL_INTERVAL_SECONDS",
    "BATCHLING_LEASE_SECONDS",
    "BATCHLING_MAX_ATTEMPTS",
    "BATCHLING_TICK_SECONDS",
    "BATCHLING_RECONCILE_PATIENCE_SECONDS",
    "BATCHLING_RESULTS_PATIENCE_SECONDS",
    "BATCHLING_FSYNC_INTENT",
    "BATCHLING_FSYNC_REPLICAS",
    "BATCHLING_HTTP_SILENCE_SECONDS",
    "BATCHLING_KEEP_FILES",
    "BATCHLING_CRASH_AT",
    "BATCHLING_MESSAGES",
)
"""The other settings that a worker reads: callers share it, and are told where theirs differ."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Child:
    """A running child, told from a later one of the same pid by its start time."""

    pid: int
    started_s: float
    """Since the epoch."""
    label: str
    """Redis and Flower: URL; worker: Celery's node name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """The stack as its supervisor last saw it."""

    supervisor_pid: int
    socket: str
    namespace: str
    digest: str
    """Of the settings that the worker was started with."""
    followed: Mapping[str, str] = field(default_factory=dict)
    """By name of a setting the digest of the value that the worker has, be it the default; unknown where absent."""
    redis: Child | None = None
    worker: Child | None = None
    flower: Child | None = None

    def child(self, name: str) -> Child | None:
        """By the name that logs and command lines call it."""
        return {"redis": self.redis, "worker": self.worker, "flower": self.flower}[name]

    def write(self, path: Path) -> None:
        """Replaces the file as a whole: a reader sees the old state or the new one."""
        draft = path.with_suffix(".draft")
        draft.write_text(json.dumps(asdict(self)), encoding="utf-8")
        draft.replace(path)


@dataclass(frozen=True, slots=True, kw_only=True)
class StackStatus:
    """The stack as it is shown to people and programs."""

    home: Path
    redis: Child | None = None
    worker: Child | None = None
    flower: Child | None = None
    notice: str = ""
    """What the caller should know of a stack that is not quite as he asked: one sentence."""

    @property
    def redis_url(self) -> str:
        """Empty where the stack is down."""
        return self.redis.label if self.redis else ""

    def to_json(self) -> dict[str, Any]:
        """The object that `batchling status --json` prints."""
        return {
            "redis": {"pid": self.redis.pid, "url": self.redis.label} if self.redis else None,
            "workers": [{"pid": self.worker.pid, "hostname": self.worker.label}] if self.worker else [],
            "flower": {"pid": self.flower.pid, "url": self.flower.label} if self.flower else None,
            "home": str(self.home),
            **({"notice": self.notice} if self.notice else {}),
        }


def read(path: Path) -> State | None:
    """The published state; None where there is none, or none that can be read."""
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        for name in NAMES:
            fields[name] = Child(**fields[name]) if fields[name] else None
        return State(**fields)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def namespace_of(environment: Mapping[str, str]) -> str:
    """The deployment that a worker of this environment serves."""
    return next(
        (value for name, value in environment.items() if name.upper() == "BATCHLING_NAMESPACE" and value),
        "default",
    )


def digest_of(environment: Mapping[str, str]) -> str:
    """Tells apart the environments whose callers must not share a worker; keeps no value, and an empty one is none."""
    named = sorted(
        (name.upper(), value)
        for name, value in environment.items()
        if name.upper().startswith(TOLD_APART) and value
    )
    return hashlib.sha256(json.dumps(named).encode()).hexdigest()


def value_digest(value: str) -> str:
    """Of one setting's value, the same for 30 and 30.0; keeps no value."""
    try:
        spelled = repr(float(value))
    except ValueError:
        spelled = value.strip().lower()
    return hashlib.sha256(spelled.encode()).hexdigest()


def differing(running: State, environment: Mapping[str, str]) -> list[str]:
    """The settings that an environment names and that the running worker has other values of."""
    given = {name.upper(): value for name, value in environment.items() if value}
    return [
        name
        for name, digest in running.followed.items()
        if name in given and value_digest(given[name]) != digest
    ]
