"""Shows the progress of a run while its block is open, and prints a summary when it closes."""

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
from . import printing, wait_reasons
from .log_screen import LogScreen
from .notebook_screen import NotebookScreen, is_notebook
from .picture import Counts, Look
from .printing import logger, say, warn
from .time_left import TimeLeft

__all__ = ["Watch", "close_screens", "report", "say", "show", "warn"]

LOOK_S: Final = 1.0
LONGEST_LOOK_S: Final = 5.0
PACE: Final = 1000
"""The number of running batches that are read per second: reading thousands takes most of a second."""
LAST_LOOK_S: Final = 1.0
"""How long the last looks may take: a block's end must not wait for its display."""
SETTLING_S: Final = 0.05
"""How soon the last look is repeated while a batch whose requests are all answered is being settled."""


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
    def progress(self) -> Counts: ...
    def summary(self) -> str: ...
    def failures(self) -> Sequence[str]:
        """Return why requests failed and how to list them, in lines; nothing if none failed."""
        ...

    def set_reasons(self, reasons: Sequence[str]) -> None:
        """Store why the run's batches wait."""
        ...


class Screen(Protocol):
    """Where looks at a run are shown."""

    @property
    def is_live(self) -> bool:
        """Whether its last picture stays, so that it should be the final one."""
        ...

    def draw(self, look: Look) -> None:
        """Show the current batches, oldest first, and the counts of the run."""
        ...

    def close(self) -> None:
        """Leave the terminal as it was."""
        ...


_concluded: Final[dict[RunId, NotebookScreen]] = {}
"""The outputs of notebooks in which runs were shown that have ended; their summary belongs there."""


_open: Final[list[Screen]] = []


def close_screens() -> None:
    """Leave the terminal as it was, from a signal handler: the process is about to end."""
    for screen in _open:
        with contextlib.suppress(Exception):
            screen.close()


async def show(run: Shown, live: bool) -> None:
    """Show the run about once a second until cancelled; errors of the display are logged and not raised."""
    with contextlib.suppress(Exception):
        screen = _screen(live)
        _open.append(screen)
        try:
            await _follow(run, screen)
        finally:
            _open.remove(screen)
            screen.close()
            if isinstance(screen, NotebookScreen):
                _concluded[run.id] = screen


def report(run: Shown) -> None:
    """Print the run's summary in one line, and below it why requests failed."""
    screen = _concluded.pop(run.id, None)
    try:
        lines = [run.summary(), *run.failures()]
        if screen is not None:
            screen.conclude(lines)
            return
        for line in lines:
            printing.say(line)
    except Exception as error:  # noqa: BLE001 - a failing summary must not break the program
        logger.debug("report_failed error=%s", type(error).__name__)


async def _follow(run: Shown, screen: Screen) -> None:
    looks = _Looks(run, screen)
    try:
        while True:
            await looks.once()
            if is_cancelled():
                return
            await asyncio.sleep(min(max(LOOK_S, looks.n_running / PACE), LONGEST_LOOK_S))
    finally:
        with contextlib.suppress(Exception):
            async with asyncio.timeout(0.8 * LAST_LOOK_S):
                # A worker settles the batch: only Redis shows when.
                while await looks.once() and screen.is_live:  # noqa: ASYNC110
                    await asyncio.sleep(SETTLING_S)


class _Looks:
    """Looks at one run again and again."""

    def __init__(self, run: Shown, screen: Screen) -> None:
        self._run = run
        self._screen = screen
        self._watch = Watch(inspection.Inspection(run.redis, run.keys), run.id)
        self._time_left = TimeLeft(run.redis, run.keys)
        self._began_at = dt.datetime.now(dt.UTC)

    @property
    def n_running(self) -> int:
        return self._watch.n_running

    async def once(self) -> bool:
        """Look and draw; return whether a batch whose requests are all answered has yet to be settled."""
        try:
            batches = await self._watch.look()
            now = dt.datetime.now(dt.UTC)
            self._run.set_reasons(wait_reasons.reasons(batches))
            look = Look(
                title=self._run.name or self._run.id,
                counts=self._run.progress,
                batches=batches,
                now=now,
                began_at=self._began_at,
                left=await self._time_left.of(batches, now) if self._screen.is_live else None,
            )
            self._screen.draw(look)
        except Exception as error:  # noqa: BLE001 - Redis may be away for a while; the waiters are who must care
            logger.debug("look_failed error=%s", type(error).__name__)
            return False
        return any(
            batch.state in (BatchState.SUBMITTED, BatchState.ENDED) and batch.n_open <= 0 for batch in batches
        )


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


def _screen(live: bool) -> Screen:
    if not live:
        return LogScreen(to_stderr=False)
    if is_notebook() and not (logger.isEnabledFor(logging.INFO) and logger.hasHandlers()):
        return NotebookScreen()
    if sys.stderr is None or not sys.stderr.isatty():
        return LogScreen(to_stderr=True)
    # rich takes longer to import than the rest of the client: import it for a terminal only.
    from .live_screen import LiveScreen  # noqa: PLC0415

    return LiveScreen()
