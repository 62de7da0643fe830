"""The sandbox as a program: `batchling sandbox` and `python -m batchling_worker.sandbox`."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Mapping
from types import FrameType
from typing import TextIO

from .server import Sandbox
from .world import Limits


def serve(
    port: int = 0,
    *,
    speeds: Mapping[str, float] | None = None,
    limits: Limits | None = None,
    out: TextIO | None = None,
) -> None:
    """Serve until SIGINT or SIGTERM; once connections are accepted, print the settings that point here.

    Belongs in the main thread; OSError when the port is taken.
    """
    stopped = threading.Event()

    def stop(number: int, frame: FrameType | None) -> None:
        stopped.set()

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with Sandbox(port, speeds=speeds, limits=limits) as sandbox:
            for name, value in sandbox.settings().items():
                print(f"export {name}={value}", file=out or sys.stdout, flush=True)
            stopped.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
