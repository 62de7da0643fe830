"""The sandbox and an embedded stack for the measurements, as separate processes."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final, Self

import httpx
import psutil

from batchling_worker.stack import attach, control
from batchling_worker.stack.state import Child

MIB: Final = 2**20
PATIENCE_S: Final = 60.0


def clean_environment() -> dict[str, str]:
    """Return the environment without a developer's own settings."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("BATCHLING_") and name not in ("PYTHONPATH", "PYTHONHOME")
    }


class Sandbox(AbstractContextManager["Sandbox"]):
    """The sandbox on a free loopback port; every batch takes `seconds`."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._server: subprocess.Popen[str] | None = None
        self.settings: dict[str, str] = {}

    def __enter__(self) -> Self:
        words = [sys.executable, "-m", "batchling_worker.sandbox", "--seconds", f"*={self._seconds}"]
        self._server = subprocess.Popen(words, env=clean_environment(), stdout=subprocess.PIPE, text=True)
        out: IO[str] | None = self._server.stdout
        # The sandbox prints only these lines, once it serves.
        while out is not None and self.base_url() is None and (line := out.readline()):
            name, _, value = line.removeprefix("export ").strip().partition("=")
            self.settings[name] = value
        if self.base_url() is None:
            self.__exit__(None, None, None)
            raise RuntimeError("the sandbox did not start")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        if self._server is not None:
            self._server.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._server.wait(10)
            self._server.kill()
            self._server.wait(10)

    def base_url(self) -> str | None:
        """Return the URL that replaces https://api.groq.com."""
        return self.settings.get("BATCHLING_PROVIDERS__GROQ__BASE_URL")

    def batches(self) -> list[dict[str, Any]]:
        """Return the batches created since the last reset, as the provider shows them."""
        seen: list[dict[str, Any]] = json.loads(self._ask("GET", "batches"))
        return seen

    def reset(self) -> None:
        """Reset the sandbox, so that a later run does not pay for an earlier one."""
        self._ask("POST", "reset")

    def arm(self, faults: list[dict[str, Any]]) -> None:
        """Arm faults, each an object as in the sandbox's documentation."""
        self._ask("POST", "faults", json.dumps(faults).encode())

    def n_billed_twice(self) -> int:
        """Return how many custom_ids were paid for more than once since the last reset."""
        n: int = json.loads(self._ask("GET", "ledger?rows=0"))["totals"]["n_billed_twice"]
        return n

    def n_calls(self) -> dict[str, int]:
        """Return the number of calls since the last reset, by `provider METHOD route`."""
        calls: dict[str, int] = json.loads(self._ask("GET", "ledger?rows=0"))["calls"]
        return calls

    def limit(self, **limits: int) -> None:
        """Change some of its limits."""
        self._ask("POST", "limits", json.dumps(limits).encode())

    def _ask(self, method: str, word: str, content: bytes | None = None) -> bytes:
        base_url = self.base_url() or ""
        url = f"{base_url.removesuffix('/groq')}/_sandbox/{word}"
        return httpx.request(method, url, content=content, timeout=PATIENCE_S).raise_for_status().content


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """A running embedded stack."""

    home: Path
    environment: dict[str, str]
    redis: psutil.Process
    worker: psutil.Process
    redis_url: str


@contextlib.contextmanager
def embedded_stack(settings: dict[str, str]) -> Iterator[Stack]:
    """Run the stack that a user's first `batchify` starts, in its own directory; stop and remove it at the end."""
    with tempfile.TemporaryDirectory(prefix="batchling-bench-") as directory:
        home = Path(directory)
        environment = {**clean_environment(), **settings, "BATCHLING_HOME": directory}
        try:
            status = attach.up(home, environment=environment)
            yield Stack(
                home=home,
                environment=environment,
                redis=_seen(status.redis),
                worker=_seen(status.worker),
                redis_url=status.redis_url,
            )
        finally:
            control.down(home)


def _seen(child: Child | None) -> psutil.Process:
    if child is None:
        raise RuntimeError("the stack did not come up")
    return psutil.Process(child.pid)


def cpu_s(process: psutil.Process) -> float:
    """Return the user and system time of a process so far, in seconds."""
    used = process.cpu_times()
    return used.user + used.system


def peak_rss_mib(process: psutil.Process) -> float:
    """Return the peak memory of a process in MiB, or its current memory if the system does not report the peak."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        status = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii")
        return int(status.partition("VmHWM:")[2].split()[0]) / 1024
    return process.memory_info().rss / MIB
