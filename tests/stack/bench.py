"""One embedded stack under test, and what is needed to hurt it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from batchling_worker.stack import attach, control, lock, resp
from batchling_worker.stack.keeper import Recipe
from batchling_worker.stack.layout import Layout
from batchling_worker.stack.recipes import Recipes
from batchling_worker.stack.state import StackStatus

from ..waiting import wait_until


@dataclass(slots=True)
class Bench:
    """Starts, looks at, hurts and stops the stack of one home."""

    home: Path
    environment: Mapping[str, str] = field(repr=False)

    @property
    def layout(self) -> Layout:
        return Layout(self.home)

    def up(self, *, flower: bool = False, **settings: str) -> StackStatus:
        return attach.up(self.home, flower=flower, environment={**self.environment, **settings})

    def status(self) -> StackStatus:
        return control.status(self.home)

    def pids(self) -> tuple[int, int]:
        """Return the pids of Redis and the worker; 0 if it does not run."""
        seen = self.status()
        return (seen.redis.pid if seen.redis else 0, seen.worker.pid if seen.worker else 0)

    def redis_recipe(self) -> Recipe:
        """As the next supervisor would start Redis."""
        return Recipes(self.layout, self.layout.socket(), self.environment).redis("redis-server")

    def supervisor_pid(self) -> int:
        return lock.holder(self.layout.supervisor_lock) or 0

    def ask(self, *words: str) -> str:
        redis = self.status().redis
        assert redis is not None
        return resp.ask(Path(redis.label.removeprefix("unix://")), *words)

    def says(self, answer: str, *words: str) -> bool:
        """Whether Redis gives this answer now."""
        try:
            return self.ask(*words) == answer
        except resp.NoAnswer:
            return False

    async def answers(self, answer: str, *words: str) -> None:
        """Wait until Redis gives this answer: after its start it may still open its socket or read its file."""

        await wait_until(
            lambda: self.says(answer, *words),
            description=f"Redis answers {answer!r} to {' '.join(words)}",
            within_s=20,
        )

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-P", "-m", "batchling_worker.stack", *words, "--home", str(self.home)]

    def run(self, *words: str, **settings: str) -> subprocess.CompletedProcess[str]:
        environment = {**self.environment, **settings}
        return subprocess.run(
            self.command(*words), env=environment, capture_output=True, text=True, timeout=50
        )

    def everything(self) -> list[list[str]]:
        """The command lines of all processes that belong to this home."""
        return list(self._processes().values())

    def worker_pids(self) -> list[int]:
        """The workers of this home, those that no state tells of too."""
        return [pid for pid, words in self._processes().items() if "worker" in words]

    def _processes(self) -> dict[int, list[str]]:
        found = {}
        for process in psutil.process_iter(["cmdline", "status"]):
            words = process.info["cmdline"] or []
            if str(self.home) in " ".join(words) and process.info["status"] != psutil.STATUS_ZOMBIE:
                found[process.pid] = words
        return found

    async def mended(self, *, without: int) -> None:
        """Wait until Redis and a worker run again, neither with the pid of the killed process."""

        def whole() -> bool:
            pids = self.pids()
            return all(pids) and without not in pids and self.says("PONG", "PING")

        await wait_until(whole, description=f"the stack runs again without pid {without}", within_s=20)


def kill(pid: int, number: signal.Signals = signal.SIGKILL) -> None:
    os.kill(pid, number)


def shown(status: StackStatus) -> str:
    return json.dumps(status.to_json())
