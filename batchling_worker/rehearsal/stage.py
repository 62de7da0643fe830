"""A stage for rehearsals: the sandbox, and an embedded stack of its own whose worker calls only the sandbox.

`python -m batchling_worker.rehearsal.stage --home DIR` sets it up, prints the environment to use as one line of JSON
and removes it when its standard input ends, as it does when the process that started it dies.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Final

from batchling_client.wire.deployment import setting_files
from batchling_client.wire.deployment.rehearsing import SAID

from .. import providers, settings
from ..sandbox import Sandbox, environment
from ..stack import attach, control
from ..stack.errors import StackError

FOLDER: Final = "sandbox"
WRONG_USE: Final = 2
UNREACHABLE: Final = 3
_QUICK: Final = {
    "BATCHLING_POLL_INTERVAL_SECONDS": "0.5",
    "BATCHLING_PROVIDERS__AZURE__POLL_INTERVAL_SECONDS": "0.5",
}
"""How often the worker looks at a batch: the sandbox ends it in seconds, so the pace for real providers is too slow."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """The running sandbox, and the environment that a program needs to use it."""

    sandbox: Sandbox
    environment: Mapping[str, str]


@contextlib.contextmanager
def stage(
    home: Path, *, port: int = 0, speeds: Mapping[str, float] | None = None, served: Sequence[str] = ()
) -> Iterator[Stage]:
    """Run sandbox and stack below `home/sandbox`, apart from the user's own; remove both afterwards.

    `served` are the providers that programs may call, by default all.
    Raises `StackError` and `settings.WrongSetting`.
    """
    folder = home.expanduser().absolute() / FOLDER
    # A stack that is made there then reports in a sentence that the directory belongs to somebody else.
    with contextlib.suppress(PermissionError):
        _clear_left_behind(folder)
    own = folder / str(os.getpid())
    with Sandbox(port, speeds=speeds) as sandbox:
        kept = {name: value for name, value in os.environ.items() if not _pointed_elsewhere(name)}
        pointed = {**environment.provider_settings(sandbox.url), **_own_endpoints(sandbox)}
        told = {"BATCHLING_HOME": str(own), **pointed}
        try:
            running = attach.up(own, environment={**_QUICK, **kept, **told})
            (own / SAID).mkdir(mode=0o700)
            # The program's provider settings stay, so that its calls are recognized by their hosts. The worker
            # decides where they go, and it knows only the sandbox's host.
            seen = {"BATCHLING_HOME": str(own), "BATCHLING_REDIS_URL": running.redis_url}
            seen |= environment.variables(sandbox.url, served, os.environ)
            yield Stage(sandbox=sandbox, environment=seen)
        finally:
            _clear(own)


def perform(
    home: Path,
    command: Sequence[str],
    *,
    port: int = 0,
    speeds: Mapping[str, float] | None = None,
    served: Sequence[str] = (),
) -> int:
    """Run a command against the sandbox and return its exit code, 128 + N if signal N ended it.

    It has this process' terminal. Raises what `stage` raises, and OSError where the command cannot be started.
    """
    with stage(home, port=port, speeds=speeds, served=served) as held:
        kept = {name: value for name, value in os.environ.items() if name.upper() not in setting_files.URL}
        with _signals_passed_on() as running:
            program = subprocess.Popen(command, env={**kept, **held.environment})
            running.append(program)
            code = program.wait()
    return code if code >= 0 else 128 - code


def ignores_environment(command: Sequence[str]) -> bool:
    """Return whether a command runs Python with an option that keeps it from joining the rehearsal."""
    if not re.fullmatch(r"python[\d.]*", Path(command[0]).name):
        return False
    words = iter(command[1:])
    for word in words:
        if not re.fullmatch(r"-[a-zA-Z]+.*", word):
            return False
        letters = re.split("[cmWX]", word[1:], maxsplit=1)[0]
        if {"I", "E", "S"} & set(letters):
            return True
        if word[len(letters) + 1 : len(letters) + 2] in ("c", "m"):
            return False
        if word in ("-W", "-X"):
            next(words, "")
    return False


@contextlib.contextmanager
def _signals_passed_on() -> Iterator[list[subprocess.Popen[bytes]]]:
    """Leave signals to the program, which this process must outlive: a terminal sends Ctrl-C to both."""
    running: list[subprocess.Popen[bytes]] = []

    def pass_on(number: int, frame: FrameType | None) -> None:
        for program in running:
            program.send_signal(number)

    def leave(number: int, frame: FrameType | None) -> None:
        """Ignore the signal: the terminal has sent it to the program too."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        if not sys.stdin.isatty():
            pass_on(number, frame)

    handlers = {
        signal.SIGINT: interrupt,
        signal.SIGQUIT: leave,
        signal.SIGTERM: pass_on,
        signal.SIGHUP: pass_on,
    }
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield running
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _pointed_elsewhere(name: str) -> bool:
    return name.upper().startswith("BATCHLING_PROVIDERS") or name.upper() in setting_files.URL


def _own_endpoints(sandbox: Sandbox) -> dict[str, str]:
    """Return settings that replace each endpoint known only from settings by OpenAI's emulator."""
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
    """End stages whose owner was killed before it could end them."""
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
    """Hold the stage until standard input ends; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m batchling_worker.rehearsal.stage")
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
