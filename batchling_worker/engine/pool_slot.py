"""Lets a step that waits for a silent provider free its pool slot and continue without one."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import Final

_let_go: Final[ContextVar[Callable[[], None] | None]] = ContextVar("slot", default=None)


def take(let_go: Callable[[], None]) -> None:
    """Register how the step that runs in this context frees its slot."""
    _let_go.set(let_go)


def let_go() -> None:
    """Free the slot for other steps; this step runs on under its lease."""
    release = _let_go.get()
    if release is not None:
        release()
