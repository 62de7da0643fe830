"""Where `celery -A batchling_worker` finds the app."""

from __future__ import annotations

from .app import app_or_exit

__all__ = ["app"]

app = app_or_exit()
