"""Makes forks safe: a fork copies one thread, so a lock held by another thread would stay locked in the child."""

from __future__ import annotations

import asyncio
import os
import threading
from typing import Final

LONGEST_S: Final = 5.0
"""How long a fork waits for a loop to finish its current callback."""


def still_at_forks(loop: asyncio.AbstractEventLoop) -> None:
    """From now on, hold the thread of this loop between two callbacks while another thread of the process forks.

    A pool child that was forked in the middle of an import could never again import that module, so each of its
    calls to a provider would fail.
    """
    pid = os.getpid()
    still, forked = threading.Event(), threading.Event()

    def stand() -> None:
        still.set()
        forked.wait(LONGEST_S)

    def before() -> None:
        if os.getpid() == pid and loop.is_running():
            still.clear()
            forked.clear()
            loop.call_soon_threadsafe(stand)
            still.wait(LONGEST_S)

    os.register_at_fork(before=before, after_in_parent=forked.set)
