"""Where `celery -A batchling_worker` finds the app."""

from __future__ import annotations

from .app import app

__all__ = ["app"]
