"""How long it took until another process took over the batches of a killed one."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

BEGUN: Final = re.compile(r"^at=\S+ .* event=step_begun .*$", re.MULTILINE)
FIELD: Final = re.compile(r" ?(at|batch_id|token|pid)=(\S+)")
RECONNECT_S: Final = 4.0
"""Seconds that Celery's consumers may wait after Redis is back before they reconnect."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun:
    """A step that a worker's process began."""

    at: float
    batch_id: str
    token: int
    pid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Death:
    """Processes killed at once, and the claims with running steps at that moment."""

    at: float
    pids: frozenset[int]
    running: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovery:
    """One batch that a killed process held."""

    batch_id: str
    died_at: float
    took_s: float
    pid: int
    """The process that began its step again."""
    disturbed: bool
    """Whether another blow fell meanwhile; the bound is promised for one death at a time."""


class Begins:
    """The begun steps in the workers' logs, read as the logs grow."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._read_to: dict[Path, int] = {}
        self.all: list[Begun] = []
        self.pid_of: dict[tuple[str, int], int] = {}
        """Batch and token -> the process that began the step."""

    def read_on(self) -> None:
        """Read the lines written since the last call."""
        for path in sorted(self._home.glob("w*.log")):
            with path.open("rb") as log:
                log.seek(self._read_to.get(path, 0))
                new, _, torn = log.read().rpartition(b"\n")
                self._read_to[path] = log.tell() - len(torn)
            for match in BEGUN.finditer(new.decode(errors="replace")):
                said = dict(FIELD.findall(match[0]))
                at = dt.datetime.fromisoformat(said["at"])
                one = Begun(
                    at=at.timestamp(),
                    batch_id=said["batch_id"],
                    token=int(said["token"]),
                    pid=int(said["pid"]),
                )
                self.all.append(one)
                self.pid_of[one.batch_id, one.token] = one.pid


def recoveries(
    deaths: Sequence[Death], begun: Iterable[Begun], troubles: Sequence[tuple[float, float]]
) -> list[Recovery]:
    """Return when the batch of each claim that died was begun again; `troubles` are spans of other blows."""
    by_batch: dict[str, list[Begun]] = {}
    for one in begun:
        by_batch.setdefault(one.batch_id, []).append(one)
    found = []
    for death in deaths:
        for batch_id, token in death.running:
            steps = by_batch.get(batch_id, [])
            if not any(step.token == token and step.pid in death.pids for step in steps):
                continue
            later = [step for step in steps if step.token > token and step.at >= death.at]
            if not later:
                continue
            again = min(later, key=lambda step: step.at)
            others = [span for span in troubles if span[0] != death.at]
            disturbed = any(since < again.at and until > death.at for since, until in others)
            found.append(
                Recovery(
                    batch_id=batch_id,
                    died_at=death.at,
                    took_s=again.at - death.at,
                    pid=again.pid,
                    disturbed=disturbed,
                )
            )
    return found
