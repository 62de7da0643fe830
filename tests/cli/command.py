"""The `batchling` command as a process of its own."""

from __future__ import annotations

import asyncio
import os
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

PROGRAM = "from batchling_client.cli.main import main; main()"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    code: int
    out: str
    err: str

    @property
    def sentence(self) -> str:
        """The one line on stderr, where that is all there is."""
        lines = self.err.strip().splitlines()
        assert len(lines) == 1, self.err
        assert lines[0].startswith("batchling: ")
        assert lines[0].endswith((".", "?"))
        return lines[0]


def clean_environment() -> dict[str, str]:
    """Return this process's environment without batchling settings and without API keys."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("BATCHLING_") and not name.endswith("_API_KEY")
    }


def contents(folder: Path) -> list[str]:
    """Return what was left in a folder."""
    return sorted(path.name for path in folder.iterdir())


async def start(*words: str, env: Mapping[str, str], prelude: str = "") -> Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", prelude + PROGRAM, *words),
        stdin=DEVNULL,
        stdout=PIPE,
        stderr=PIPE,
        env=dict(env),
    )


async def batchling(
    *words: str, env: Mapping[str, str], prelude: str = "", within_s: float = 45.0
) -> Finished:
    """Run a command to its end."""
    process = await start(*words, env=env, prelude=prelude)
    return await ended(process, within_s=within_s)


async def ended(process: Process, *, within_s: float = 45.0) -> Finished:
    try:
        out, err = await asyncio.wait_for(process.communicate(), within_s)
    except TimeoutError:
        process.kill()
        out, err = await process.communicate()
        raise AssertionError(f"not ended in time: {out.decode()} {err.decode()}") from None
    return Finished(code=process.returncode or 0, out=out.decode(), err=err.decode())
