"""The sandbox's clock: real time until a test freezes or advances it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class Clock:
    """Unix seconds that any thread can advance and freeze; only `reset` moves time back."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ahead_s = 0.0
        self._frozen_at: float | None = None

    def now(self) -> float:
        """Return the sandbox's time in unix seconds."""
        with self._lock:
            return self._now()

    def advance(self, seconds: float) -> float:
        """Advance time by `seconds` and return the new time; raise ValueError if negative."""
        if seconds < 0:
            raise ValueError("the sandbox's clock cannot be moved back")
        with self._lock:
            if self._frozen_at is not None:
                self._frozen_at += seconds
            else:
                self._ahead_s += seconds
            return self._now()

    def freeze(self) -> float:
        """Stop time and return it; from then on only `advance` moves it."""
        with self._lock:
            self._frozen_at = self._now()
            return self._frozen_at

    def thaw(self) -> float:
        """Let time run again from where it stopped and return it."""
        with self._lock:
            if self._frozen_at is not None:
                self._ahead_s = self._frozen_at - time.time()
                self._frozen_at = None
            return self._now()

    def reset(self) -> float:
        """Go back to real time and return it."""
        with self._lock:
            self._ahead_s = 0.0
            self._frozen_at = None
            return self._now()

    @property
    def frozen(self) -> bool:
        """Return whether time is frozen."""
        with self._lock:
            return self._frozen_at is not None

    def _now(self) -> float:
        return time.time() + self._ahead_s if self._frozen_at is None else self._frozen_at


class SkewedClock(Clock):
    """A provider's clock, which may be ahead of or behind the sandbox's; only the sandbox's can be moved."""

    def __init__(self, true: Clock, skew_s: Callable[[], float]) -> None:
        super().__init__()
        self._true = true
        self._skew_s = skew_s

    def now(self) -> float:
        """Return the provider's time in unix seconds."""
        return self._true.now() + self._skew_s()
