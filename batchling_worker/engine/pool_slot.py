"""The pool's slot that a step takes up: one that waits for a silent provider lets go of it, and goes on without."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import Final

_let_go: Final[ContextVar[Callable[[], None] | None]] = ContextVar("slot", default=None)


def take(let_go: Callable[[], None]) -> None:
    """Says how the slot of the step that runs in this context is let go."""
    _let_go.set(let_go)


def let_go() -> None:
    """Gives the slot to other steps; this one runs on under its lease."""
    release = _let_go.get()
    if release is not None:
        release()
