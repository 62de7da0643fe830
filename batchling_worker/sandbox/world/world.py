"""The state that all providers of one sandbox share: clock, faults, ledger, limits, speeds and disk."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec

from .clock import Clock, SkewedClock
from .faults import FaultTable, SkewClock
from .ledger import Ledger
from .markers import Markers

FAST_S = 0.6
SLOW_S = 2.0
_FAST_WORDS = (
    "instant",
    "mini",
    "nano",
    "small",
    "flash",
    "haiku",
    "lite",
    "8b",
    "embed",
    "moderation",
    "whisper",
)


class Limits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Limits that providers enforce where they have them; the defaults are published ones (2026-11-23).

    Rows and bytes that are None come from the provider's traits. `max_enqueued_tokens` counts the batches of one key
    and model that have not ended: a batch over it fails its validation, or with `quota_at_create` its create is
    refused with 429. `quota_named`: the message holds the figure. `max_files` limits files without expiry.
    """

    max_rows: int | None = None
    min_rows: int | None = None
    max_bytes: int | None = None
    max_embedding_inputs: int = 50_000
    max_creates_per_hour: int = 2_000
    max_enqueued_tokens: int | None = None
    quota_at_create: bool = False
    quota_named: bool = True
    max_files: int | None = None
    max_stored_bytes: int | None = None
    page_size: int = 20
    cancel_seconds: float = 0.2


class Speeds:
    """Seconds from the creation of a batch to its end, by model; may be used from any thread."""

    def __init__(self, seconds: Mapping[str, float] | None = None) -> None:
        self._lock = threading.Lock()
        self._seconds = dict(seconds or {})

    def set(self, seconds: Mapping[str, float]) -> None:
        """Set the seconds of some models; `"*"` is every model that is not named."""
        with self._lock:
            self._seconds.update(seconds)

    def clear(self) -> None:
        """Restore the built-in speeds."""
        with self._lock:
            self._seconds.clear()

    def of(self, model: str | None) -> float:
        """Return the seconds that a batch of this model takes; small models are fast, others slow."""
        name = model or ""
        with self._lock:
            named = self._seconds.get(name, self._seconds.get("*"))
        if named is not None:
            return named
        return FAST_S if any(word in name for word in _FAST_WORDS) else SLOW_S

    def named(self) -> dict[str, float]:
        """Return the seconds that were set by name."""
        with self._lock:
            return dict(self._seconds)


@dataclass(slots=True)
class Held:
    """The limits in force, shared by all views of one world."""

    limits: Limits = field(default_factory=Limits)


@dataclass(slots=True, kw_only=True)
class World:
    """One sandbox's shared parts; `pool` runs work that would block the event loop."""

    directory: Path
    pool: ThreadPoolExecutor
    held: Held = field(default_factory=Held)
    shuffle: bool = True
    clock: Clock = field(default_factory=Clock)
    faults: FaultTable = field(default_factory=FaultTable)
    ledger: Ledger = field(default_factory=Ledger)
    speeds: Speeds = field(default_factory=Speeds)
    markers: Markers = field(default_factory=Markers)

    @property
    def limits(self) -> Limits:
        """Return the limits in force."""
        return self.held.limits

    @limits.setter
    def limits(self, limits: Limits) -> None:
        self.held.limits = limits

    def seen_by(self, provider: str) -> World:
        """Return the world with the provider's own clock in it."""
        return replace(self, clock=SkewedClock(self.clock, lambda: self._skew_s(provider)))

    def _skew_s(self, provider: str) -> float:
        skew = self.faults.standing(SkewClock, provider)
        return 0.0 if skew is None else skew.seconds
