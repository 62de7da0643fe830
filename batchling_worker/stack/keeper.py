"""Keeps one child alive: adopts it if it runs already, restarts it if it died, stops it in bounded time."""

from __future__ import annotations

import logging
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import psutil

from ..log_lines import emit
from .state import Child

logger = logging.getLogger("batchling.stack")

FIRST_DELAY_S: Final = 0.2
LONGEST_DELAY_S: Final = 5.0
STEADY_S: Final = 10.0
"""A child that lived this long starts again without delay."""
KILL_PATIENCE_S: Final = 5.0
LOG_LONGEST: Final = 32 * 1024 * 1024
_REWRITES: Final = re.compile(r"\w+-(aof|rdb)-")
_CLOCK_STEP_S: Final = 2.0
"""The tolerance for start times: the kernel derives them from a wall clock, which may be set."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How one child is started."""

    name: str
    argv: Sequence[str]
    environment: Mapping[str, str]
    directory: Path
    log: Path
    label: str
    marks: Sequence[frozenset[str]]
    """Sets of words that only this child's command line holds; one matching set is enough."""
    programs: tuple[str, ...]
    """How the names of executables begin that run this child, in lower case."""
    logs_to_stdout: bool = True


class Owner(Protocol):
    """The user ids of a process."""

    @property
    def real(self) -> int: ...

    @property
    def effective(self) -> int: ...


def observe(pid: int, label: str) -> Child | None:
    """Return the running process of that pid, or None."""
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        return Child(pid=pid, started_s=process.create_time(), label=label)
    except psutil.NoSuchProcess:
        return None


def alive(child: Child) -> bool:
    """Return whether that very child still runs, not a later process with its pid."""
    seen = observe(child.pid, child.label)
    return seen is not None and abs(seen.started_s - child.started_s) < _CLOCK_STEP_S


def stray(recipe: Recipe) -> Child | None:
    """Return a child that no state file names: its supervisor died between starting and recording it."""
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or [""]
        # A title is one word. The child in which Redis rewrites its file does not count: it ends by itself.
        shown = {*words, *words[0].split()}
        if _REWRITES.match(words[0]) or not any(mark <= shown for mark in recipe.marks):
            continue
        with suppress(psutil.Error):
            if is_own(process.uids(), process.exe(), recipe):
                return observe(process.pid, recipe.label)
    return None


def is_own(owner: Owner, executable: str, recipe: Recipe) -> bool:
    """Return whether a process whose command line fits a recipe is a child: everybody may choose a command line.

    An earlier supervisor may have run another build of the program, so its name counts and not its path.
    """
    name = Path(executable).name.lower()
    return {owner.real, owner.effective} == {os.getuid()} and name.startswith(recipe.programs)


class Keeper:
    """One child of the supervisor."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.child: Child | None = None
        self.n_deaths = 0
        self._popen: subprocess.Popen[bytes] | None = None
        self._started_at_s = 0.0
        self._delay_s = 0.0

    def adopt(self, child: Child) -> None:
        """Take over a child that another supervisor started."""
        self.child = child
        emit(logger, logging.INFO, "child_adopted", {"name": self.recipe.name, "pid": child.pid})

    def running(self) -> bool:
        """Return whether the child runs; if it is gone, reap it and set the delay before the next start."""
        if self.child is None:
            return False
        if self._popen.poll() is None if self._popen else alive(self.child):
            return True
        emit(logger, logging.INFO, "child_ended", {"name": self.recipe.name, "pid": self.child.pid})
        self.n_deaths += 1
        lived_s = time.monotonic() - self._started_at_s
        self._delay_s = (
            FIRST_DELAY_S if lived_s > STEADY_S else min(self._delay_s * 2 or FIRST_DELAY_S, LONGEST_DELAY_S)
        )
        self._popen = self.child = None
        return False

    def start_when_due(self) -> None:
        """Start the child, unless it died, or could not be started, too recently."""
        if time.monotonic() - self._started_at_s < self._delay_s:
            return
        try:
            self._start()
        except OSError as error:
            # Such as a full disk: the child starts once there is room, without another `up`.
            self._popen = self.child = None
            self._started_at_s = time.monotonic()
            self._delay_s = FIRST_DELAY_S
            fields = {"name": self.recipe.name, "error": str(error)}
            emit(logger, logging.WARNING, "child_not_started", fields)

    def _start(self) -> None:
        recipe = self.recipe
        with recipe.log.open("ab") as log:
            self._popen = subprocess.Popen(
                recipe.argv,
                env=recipe.environment,
                cwd=recipe.directory,
                stdin=subprocess.DEVNULL,
                stdout=log if recipe.logs_to_stdout else subprocess.DEVNULL,
                stderr=log,
                start_new_session=True,
            )
        self._started_at_s = time.monotonic()
        pid = self._popen.pid
        self.child = observe(pid, recipe.label) or Child(pid=pid, started_s=time.time(), label=recipe.label)
        emit(logger, logging.INFO, "child_started", {"name": recipe.name, "pid": pid})

    def trim_log(self) -> None:
        """Keep the log and its predecessor below `LOG_LONGEST` each; lines written meanwhile may be lost."""
        log = self.recipe.log
        with suppress(OSError):
            if log.stat().st_size > LOG_LONGEST:
                shutil.copyfile(log, log.with_suffix(".log.1"))
                os.truncate(log, 0)


def stop(keepers: Sequence[Keeper], *, patience_s: float) -> None:
    """Ask the children to end; kill those that still run after `patience_s`."""
    deadline = time.monotonic() + patience_s
    _send(keepers, signal.SIGTERM)
    while any(keeper.running() for keeper in keepers) and time.monotonic() < deadline:
        time.sleep(0.02)
    _send(keepers, signal.SIGKILL)
    deadline = time.monotonic() + KILL_PATIENCE_S
    while any(keeper.running() for keeper in keepers) and time.monotonic() < deadline:
        time.sleep(0.02)


def _send(keepers: Sequence[Keeper], number: signal.Signals) -> None:
    for keeper in keepers:
        if keeper.running() and keeper.child is not None:
            # Redis may run as another user, if this stack was started with `sudo` before.
            with suppress(ProcessLookupError, PermissionError):
                os.kill(keeper.child.pid, number)
