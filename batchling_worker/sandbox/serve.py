"""The sandbox as a program: `batchling sandbox` and `python -m batchling_worker.sandbox`."""

from __future__ import annotations

import os
import shlex
import signal
import sys
import threading
from collections.abc import Collection, Mapping
from types import FrameType
from typing import TextIO

from batchling_client.wire.deployment.rehearsing import STARTUP

from . import environment
from .server import Sandbox
from .world.world import Limits


def serve(
    port: int = 0,
    *,
    speeds: Mapping[str, float] | None = None,
    limits: Limits | None = None,
    out: TextIO | None = None,
    served: Collection[str] = (),
) -> None:
    """Serve until SIGINT or SIGTERM; once connections are accepted, print the environment for clients.

    It holds settings for client and workers, base URLs and keys for SDKs, and the mark of a rehearsal.

    Call it in the main thread. Raise OSError if the port is taken.
    """
    stopped = threading.Event()

    def stop(number: int, frame: FrameType | None) -> None:
        stopped.set()

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with Sandbox(port, speeds=speeds, limits=limits) as sandbox:
            told = {
                **environment.provider_settings(sandbox.url),
                **environment.variables(sandbox.url, served, os.environ),
            }
            lines = [_export(name, value) for name, value in told.items()]
            print("\n".join(lines), file=out or sys.stdout, flush=True)
            stopped.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _export(name: str, value: str) -> str:
    if name == environment.PYTHONPATH:
        # The reader of these lines may have a PATH of its own.
        return f'export {name}={shlex.quote(str(STARTUP))}"${{{name}:+:${name}}}"'
    return f"export {name}={shlex.quote(value)}"
