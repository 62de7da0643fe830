"""Shows the progress of a run while its block is open, and prints a summary line when it closes."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import logging
import sys
from collections.abc import Sequence
from typing import Final, Protocol

from redis.asyncio import Redis

from ..views import inspection
from ..wire.deployment.cancellation import is_cancelled
from ..wire.keys import BatchId, Keys, RunId
from ..wire.records.batch import Batch
from ..wire.states import BatchState
from . import batch_lines, wait_reasons
from .folding import folded, width_of

logger = logging.getLogger("batchling")

LOOK_S: Final = 1.0
LONGEST_LOOK_S: Final = 5.0
PACE: Final = 1000
"""The number of running batches that are read per second: reading thousands takes most of a second."""
LAST_LOOK_S: Final = 1.0
"""How long the last look may take: a block's end must not wait for its display."""


class Shown(Protocol):
    """A run, as the display sees it."""

    @property
    def id(self) -> RunId: ...
    @property
    def name(self) -> str | None: ...
    @property
    def redis(self) -> Redis: ...
    @property
    def keys(self) -> Keys: ...
    @property
    def n_reused(self) -> int: ...
    def summary(self) -> str: ...
    def set_reasons(self, reasons: Sequence[str]) -> None:
        """Store why the run's batches wait."""
        ...


class Screen(Protocol):
    """Where looks at a run are shown."""

    def draw(self, batches: Sequence[Batch], now: dt.datetime, n_reused: int = 0) -> None:
        """Show the current batches, oldest first, and how many requests earlier runs had made."""
        ...

    def close(self) -> None:
        """Leave the terminal as it was."""
        ...


async def show(run: Shown, live: bool) -> None:
    """Show the run about once a second until cancelled; errors of the display are logged and not raised."""
    with contextlib.suppress(Exception):
        screen = _screen(live)
        try:
            await _follow(run, screen)
        finally:
            screen.close()


def warn(line: str) -> None:
    """Print a line that somebody should act on: as a warning if the program has set up logging, else on stderr."""
    if logger.hasHandlers():
        logger.warning("%s", line)
    elif sys.stderr is not None:
        _print(line)


def report(run: Shown) -> None:
    """Print the run's summary in one line; print nothing if it caught no request."""
    try:
        say(run.summary())
    except Exception as error:  # noqa: BLE001 - a failing summary must not break the program
        logger.debug("report_failed error=%s", type(error).__name__)


def say(line: str) -> None:
    """Print a line for the user: through logging if the program has set it up, else on stderr."""
    if logger.isEnabledFor(logging.INFO) and logger.hasHandlers():
        logger.info("%s", line)
    elif sys.stderr is not None:
        _print(line)


def _print(line: str) -> None:
    line = folded(f"batchling: {line}", width_of(sys.stderr))
    print(line, file=sys.stderr, flush=True)  # noqa: T201 - stderr is the display


async def _follow(run: Shown, screen: Screen) -> None:
    watch = Watch(inspection.Inspection(run.redis, run.keys), run.id)
    try:
        while True:
            await _look(run, watch, screen)
            if is_cancelled():
                return
            await asyncio.sleep(min(max(LOOK_S, watch.n_running / PACE), LONGEST_LOOK_S))
    finally:
        with contextlib.suppress(Exception):
            await asyncio.wait_for(_look(run, watch, screen), LAST_LOOK_S)


async def _look(run: Shown, watch: Watch, screen: Screen) -> None:
    try:
        batches = await watch.look()
        run.set_reasons(wait_reasons.reasons(batches))
        screen.draw(batches, dt.datetime.now(dt.UTC), run.n_reused)
    except Exception as error:  # noqa: BLE001 - Redis may be away for a while; the waiters are who must care
        logger.debug("look_failed error=%s", type(error).__name__)


class Watch:
    """Reads a run's batches repeatedly, and skips batches that have not changed."""

    def __init__(self, looking: inspection.Inspection, run_id: RunId) -> None:
        self._looking = looking
        self._run_id = run_id
        self._known: dict[BatchId, Batch] = {}
        self._marks: dict[BatchId, object] = {}

    @property
    def n_running(self) -> int:
        """How many batches the last look found that were not at their end before it."""
        return len(self._marks)

    async def look(self) -> list[Batch]:
        """Return the run's current batches, oldest first, including the batches its requests moved on to."""
        wanted = set(await self._looking.batch_ids_of(self._run_id))
        wanted.update(batch.moved_to for batch in self._known.values() if batch.moved_to is not None)
        running = sorted(batch_id for batch_id in wanted if not self._is_over(batch_id))
        # Taken before the batches are read: a batch that changes in between is read again.
        marks = dict(zip(running, await self._looking.marks(running), strict=True))
        stale = [one for one in running if one not in self._known or self._marks.get(one) != marks[one]]
        for batch in await self._looking.batches_named(stale):
            self._known[batch.batch_id] = batch
        self._marks = marks
        return [self._known[batch_id] for batch_id in sorted(self._known)]

    def _is_over(self, batch_id: BatchId) -> bool:
        batch = self._known.get(batch_id)
        return batch is not None and batch.state.terminal


class LogScreen:
    """A line for each change of a batch's state, and a warning for each new reason to wait that a provider gives."""

    def __init__(self, *, to_stderr: bool) -> None:
        self._say = say if to_stderr else _log_quietly
        self._said: dict[BatchId, BatchState] = {}
        self._n_reused = self._n_reused_said = 0
        self._wait_reasons = wait_reasons.WaitReasons()

    def draw(self, batches: Sequence[Batch], now: dt.datetime, n_reused: int = 0) -> None:
        """Say what is new; the number of reused requests once it has stopped growing."""
        if self._n_reused_said != n_reused == self._n_reused:
            self._n_reused_said = n_reused
            self._say(reused_line(n_reused))
        self._n_reused = n_reused
        for batch in batches:
            if self._said.get(batch.batch_id) is not batch.state:
                self._said[batch.batch_id] = batch.state
                self._say(batch_lines.line_of(batch, now))
        for line in self._wait_reasons.news(batches):
            warn(line)

    def close(self) -> None:
        """Do nothing: plain lines leave nothing to restore."""


def reused_line(n_reused: int) -> str:
    """Say how many requests cost nothing more."""
    return f"from earlier runs  {n_reused:,}"


def _log_quietly(line: str) -> None:
    logger.info("%s", line)


def _screen(live: bool) -> Screen:
    if not live:
        return LogScreen(to_stderr=False)
    if sys.stderr is None or not sys.stderr.isatty():
        return LogScreen(to_stderr=True)
    # rich takes longer to import than the rest of the client: import it for a terminal only.
    from .live_screen import LiveScreen  # noqa: PLC0415

    return LiveScreen(n_lines=10)
