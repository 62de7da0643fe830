"""Connects this process to a sandbox and a stack of its own, to rehearse programs without an account."""

from __future__ import annotations

import contextlib
import importlib.util
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Final

import msgspec

from ..block import sandboxed
from ..errors import QueueUnreachable, WrongSettings
from ..session import redis_outage
from ..wire.deployment.installing import install
from ..wire.deployment.rehearsing import environment_of
from . import target

STOP_S: Final = 90.0
WRONG_USE: Final = 2
"""How the stage ends where a setting of the worker's is not usable."""


SAYS: Final = "Rehearsal: a local sandbox makes up every answer, and nothing is paid."
NEEDED: Final = {
    "worker": ("batchling_worker", "celery", "httpx", "kombu"),
    "embedded": ("psutil",),
    "sandbox": ("aiohttp", "multidict"),
}
"""Extra -> what of it a rehearsal imports."""


@contextlib.contextmanager
def rehearsal(home: Path) -> Iterator[None]:
    """Run sandbox and stack while the context is open; the environment points at them and holds no real API key.

    They end with this process, however it ends. Raises `WrongSettings` or `QueueUnreachable`.
    """
    missing = [extra for extra, modules in NEEDED.items() if not all(map(_is_there, modules))]
    if missing:
        raise WrongSettings(
            f"A rehearsal needs what {_words(missing)} of batchling would install: run {install(','.join(missing))}."
        )
    at_once = sys.stderr is not None and sys.stderr.isatty()
    if at_once:
        # The sandbox takes a few seconds to start, and a person waits.
        target.say(SAYS)
    with (
        tempfile.TemporaryFile() as complaints,
        subprocess.Popen(
            [sys.executable, "-m", "batchling_worker.rehearsal.stage", "--home", str(home)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # A file takes any amount of output; a pipe that nobody reads would block the process.
            stderr=complaints,
            # Ctrl-C is for the rehearsed program; the sandbox process ends after it.
            start_new_session=True,
        ) as stage,
    ):
        try:
            with environment_of(_settings_of(stage, complaints)):
                if not at_once:
                    target.say(SAYS)
                sandboxed.heed()
                try:
                    yield
                finally:
                    sandboxed.over()
        finally:
            # A thread that outlives the program may still wait for an answer.
            redis_outage.expect_end()
            if stage.stdin is not None:
                stage.stdin.close()
            try:
                stage.wait(STOP_S)
            except subprocess.TimeoutExpired:
                stage.kill()


def _is_there(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def _words(extras: Sequence[str]) -> str:
    words = " and ".join(filter(None, (", ".join(extras[:-1]), extras[-1])))
    return f"the extra{'s' if len(extras) > 1 else ''} {words}"


def _settings_of(stage: subprocess.Popen[bytes], complaints: IO[bytes]) -> dict[str, str]:
    """Return the environment that the sandbox process prints."""
    line = stage.stdout.readline() if stage.stdout is not None else b""
    if not line:
        complaints.seek(0)
        reason = complaints.read().decode("utf-8", "replace").strip().rpartition("\n")[2]
        if reason and stage.wait(STOP_S) == WRONG_USE:
            raise WrongSettings(reason)
        raise QueueUnreachable(
            f"The sandbox and its stack did not start: {reason or 'they ended without a message.'}"
        )
    return msgspec.json.decode(line, type=dict[str, str])
