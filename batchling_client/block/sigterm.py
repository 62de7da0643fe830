"""Reports what continues when a program inside an open block is ended by SIGTERM, as by a supervisor or a cluster."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Final

_watching: Final[list[Callable[[], None]]] = []


def watch(terminated: Callable[[], None]) -> None:
    """Call `terminated` at SIGTERM before the process ends, if this is the main thread and no other handler is set."""
    if threading.current_thread() is not threading.main_thread():
        return
    if signal.getsignal(signal.SIGTERM) not in (signal.SIG_DFL, _terminate):
        return
    _watching.append(terminated)
    signal.signal(signal.SIGTERM, _terminate)


def let_go(terminated: Callable[[], None]) -> None:
    """End a `watch`; the last one to end restores the earlier handler of SIGTERM."""
    if terminated not in _watching:
        return
    _watching.remove(terminated)
    is_main = threading.current_thread() is threading.main_thread()
    if is_main and not _watching and signal.getsignal(signal.SIGTERM) is _terminate:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _terminate(number: int, _frame: FrameType | None) -> None:
    """Report for every block, and end as the process would have ended without us."""
    signal.signal(number, signal.SIG_DFL)
    for terminated in _watching:
        # Whatever fails here, the process was told to end.
        with contextlib.suppress(Exception):
            terminated()
    os.kill(os.getpid(), number)
