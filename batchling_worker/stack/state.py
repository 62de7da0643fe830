"""The published state of a stack: what runs, since when, and with which settings. Never a key."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

NAMES: Final = ("redis", "worker", "flower")
TOLD_APART: Final = ("BATCHLING_PROVIDERS", "BATCHLING_SEAL_", "BATCHLING_NAMESPACE")
"""Prefixes of settings: callers that differ in one of them must not share a worker."""
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
    "BATCHLING_LOG_FORMAT",
    "BATCHLING_LONGEST_ANSWER_BYTES",
    "BATCHLING_BATCH_ANSWERS_BYTES",
    "BATCHLING_REMOTE_CONTROL",
    "BATCHLING_FLOWER_HOSTS",
    "BATCHLING_FLOWER_WITHOUT_LOGIN",
)
"""The other settings that a worker reads: callers share the worker, and get a warning if theirs differ."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Child:
    """A running child; its start time tells it from a later process with the same pid."""

    pid: int
    started_s: float
    """Seconds since the epoch."""
    label: str
    """Redis and Flower: URL; worker: Celery's node name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """The stack as its supervisor last saw it."""

    supervisor_pid: int
    socket: str
    namespace: str
    digest: str
    """Digest of the settings that the worker was started with."""
    followed: Mapping[str, str] = field(default_factory=dict)
    """Name of a setting -> digest of the value that the worker has, also of a default; absent if unknown."""
    redis: Child | None = None
    worker: Child | None = None
    flower: Child | None = None

    def child(self, name: str) -> Child | None:
        """Return a child by its name in logs and command lines."""
        return {"redis": self.redis, "worker": self.worker, "flower": self.flower}[name]

    def write(self, path: Path) -> None:
        """Replace the file as a whole: a reader sees the old state or the new one."""
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
    """One sentence for the caller if the stack differs from what was asked for."""

    @property
    def redis_url(self) -> str:
        """Empty if the stack is down."""
        return self.redis.label if self.redis else ""

    def to_json(self) -> dict[str, Any]:
        """Return the object that `batchling status --json` prints."""
        return {
            "redis": {"pid": self.redis.pid, "url": self.redis.label} if self.redis else None,
            "workers": [{"pid": self.worker.pid, "hostname": self.worker.label}] if self.worker else [],
            "flower": {"pid": self.flower.pid, "url": self.flower.label} if self.flower else None,
            "home": str(self.home),
            **({"notice": self.notice} if self.notice else {}),
        }


def read(path: Path) -> State | None:
    """Return the published state; None if there is none or it cannot be read."""
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        for name in NAMES:
            fields[name] = Child(**fields[name]) if fields[name] else None
        return State(**fields)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def namespace_of(environment: Mapping[str, str]) -> str:
    """Return the namespace that a worker of this environment serves."""
    return next(
        (value for name, value in environment.items() if name.upper() == "BATCHLING_NAMESPACE" and value),
        "default",
    )


def digest_of(environment: Mapping[str, str]) -> str:
    """Return a digest that differs if environments must not share a worker; holds no value; empty means unset."""
    named = sorted(
        (name.upper(), value)
        for name, value in environment.items()
        if name.upper().startswith(TOLD_APART) and value
    )
    return hashlib.sha256(json.dumps(named).encode()).hexdigest()


def value_digest(value: str) -> str:
    """Return the digest of a setting's value, the same for 30 and 30.0; the value cannot be read from it."""
    try:
        spelled = repr(float(value))
    except ValueError:
        spelled = value.strip().lower()
    return hashlib.sha256(spelled.encode()).hexdigest()


def differing(running: State, environment: Mapping[str, str]) -> list[str]:
    """Return the settings of an environment for which the running worker has other values."""
    given = {name.upper(): value for name, value in environment.items() if value}
    return [
        name
        for name, digest in running.followed.items()
        if name in given and value_digest(given[name]) != digest
    ]
