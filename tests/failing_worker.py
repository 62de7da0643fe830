"""A worker that dies at a crash point, or whose messages are lost or doubled: `celery -A tests.failing_worker`."""

from __future__ import annotations

import os
from functools import partialmethod
from typing import Any, Final
from unittest import mock

from batchling_worker.celery import app
from batchling_worker.engine.engine import Engine

from .crash_points import crash_point

__all__ = ["app"]

MESSAGES: Final = "TEST_MESSAGES"
TIMES: Final = {"": 1, "dropped": 0, "doubled": 2}

_send = app.send_task
_times = TIMES[os.environ.get(MESSAGES, "")]


def _sends(*args: Any, **kwargs: Any) -> None:
    for _ in range(_times):
        _send(*args, **kwargs)


reaching: Any = partialmethod(Engine.__init__, reach=crash_point(os.environ))
mock.patch.object(Engine, "__init__", reaching).start()
mock.patch.object(app, "send_task", _sends).start()
