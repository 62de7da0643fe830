"""A stage for rehearsals: the sandbox, and an embedded stack of its own whose worker talks to nothing else.

`python -m batchling_worker.rehearsal --home DIR` sets the stage, prints the environment to use as one line of JSON
and clears it all away when its standard input ends, as it does when whoever started it dies.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from . import providers, settings
from .sandbox import Sandbox
from .stack import attach, control
from .stack.errors import StackError

FOLDER: Final = "sandbox"
WRONG_USE: Final = 2
UNREACHABLE: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """The running sandbox, and what a program's environment must hold to play before it."""

    sandbox: Sandbox
    environment: Mapping[str, str]


@contextlib.contextmanager
def stage(home: Path, *, speeds: Mapping[str, float] | None = None) -> Iterator[Stage]:
    """Sandbox and stack below `home/sandbox`, away from the user's own; both gone afterwards.

    Raises `StackError` and `settings.WrongSetting`.
    """
    folder = home.expanduser().absolute() / FOLDER
    # Who then makes a stack there says in a sentence that the directory is not his.
    with contextlib.suppress(PermissionError):
        _clear_left_behind(folder)
    own = folder / str(os.getpid())
    with Sandbox(speeds=speeds) as sandbox:
        kept = {name: value for name, value in os.environ.items() if not _pointed_elsewhere(name)}
        told = {"BATCHLING_HOME": str(own), **sandbox.settings(), **_own_endpoints(sandbox)}
        try:
            running = attach.up(own, environment={**kept, **told})
            # What the program's settings say of providers stays, so that its calls are known by their hosts: where
            # they go is the worker's to say, and it knows no host but the sandbox.
            environment = {"BATCHLING_HOME": str(own), "BATCHLING_REDIS_URL": running.redis_url}
            yield Stage(sandbox=sandbox, environment=environment)
        finally:
            _clear(own)


def _pointed_elsewhere(name: str) -> bool:
    return name.upper().startswith("BATCHLING_PROVIDERS") or name.upper() == "BATCHLING_REDIS_URL"


def _own_endpoints(sandbox: Sandbox) -> dict[str, str]:
    """Settings that put OpenAI's emulator in the place of each endpoint that only settings know."""
    told: dict[str, str] = {}
    for name, said in settings.load().providers.items():
        if name in providers.names():
            continue
        prefix = f"BATCHLING_PROVIDERS__{name.upper()}__"
        told[f"{prefix}BASE_URL"] = f"{sandbox.base_url('openai')}/v1"
        told[f"{prefix}ENDPOINTS"] = ",".join(said.endpoints)
        told[f"{prefix}WINDOWS"] = ",".join(said.windows)
    return told


def _clear_left_behind(folder: Path) -> None:
    """Ends stages whose owner was killed before it could."""
    for own in folder.glob("[0-9]*"):
        try:
            os.kill(int(own.name), 0)
        except ProcessLookupError:
            _clear(own)
        except (PermissionError, ValueError):
            continue


def _clear(own: Path) -> None:
    with contextlib.suppress(StackError):
        control.down(own)
    shutil.rmtree(own, ignore_errors=True)
    with contextlib.suppress(OSError):
        own.parent.rmdir()


def main() -> int:
    """Holds the stage until standard input ends; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m batchling_worker.rehearsal")
    parser.add_argument("--home", type=Path, required=True)
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        with stage(options.home) as held:
            sys.stdout.write(json.dumps(dict(held.environment)) + "\n")
            sys.stdout.flush()
            sys.stdin.buffer.read()
    except settings.WrongSetting as error:
        sys.stderr.write(f"{error}\n")
        return WRONG_USE
    except (StackError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return UNREACHABLE
    return 0


if __name__ == "__main__":
    sys.exit(main())
