"""Runs a command of the embedded stack to its end, beside green threads too."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import tempfile
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final

from ..intercept import green_threads
from ..wire.deployment.cancellation import carry_through

_LOOK_EVERY_S: Final = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """What a command left behind."""

    code: int | None
    out: bytes
    err: bytes


async def run(*words: str, env: Mapping[str, str], within_s: float) -> Ended:
    """Run it; raise TimeoutError, once it is killed, and OSError or RuntimeError where it cannot be started."""
    command = (sys.executable, "-P", "-m", "batchling_worker.stack", *words, "--json")
    if green_threads.replaced():
        return await _run_by_looks(command, env, within_s)
    process = await asyncio.create_subprocess_exec(
        *command, stdin=DEVNULL, stdout=PIPE, stderr=PIPE, env=dict(env)
    )
    try:
        async with asyncio.timeout(within_s):
            out, err = await process.communicate()
    except (TimeoutError, asyncio.CancelledError):
        # The loop may close next, and a child watcher on a closed loop prints a traceback.
        await carry_through(partial(_kill, process))
        raise
    return Ended(code=process.returncode, out=out, err=err)


async def _run_by_looks(command: tuple[str, ...], env: Mapping[str, str], within_s: float) -> Ended:
    """Do without `subprocess`: gevent's starts processes in the main thread only."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        number: int = green_threads.original("os").posix_spawn(
            command[0],
            command,
            env,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_DUP2, out.fileno(), 1),
                (os.POSIX_SPAWN_DUP2, err.fileno(), 2),
            ],
        )
        try:
            async with asyncio.timeout(within_s):
                while (code := _code_of(number)) is None:  # noqa: ASYNC110 - such a process has no event
                    await asyncio.sleep(_LOOK_EVERY_S)
        except (TimeoutError, asyncio.CancelledError):
            with contextlib.suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)
            raise
        for file in (out, err):
            file.seek(0)
        return Ended(code=code, out=out.read(), err=err.read())


def _code_of(number: int) -> int | None:
    """Return the exit code of a child process, or None while it runs."""
    try:
        ended, status = green_threads.original("os").waitpid(number, os.WNOHANG)
    except ChildProcessError:
        # gevent reaps every child once the program starts a process through it; the output then shows the outcome.
        return 0
    return os.waitstatus_to_exitcode(status) if ended else None


async def _kill(process: Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.kill()
    await process.communicate()
