"""The live display of a terminal: one line a batch, drawn in place on stderr."""

from __future__ import annotations

import datetime as dt
import sys
from collections.abc import Mapping, Sequence
from typing import Final

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ..wire.records.batch import Batch
from ..wire.states import BatchState
from . import batch_lines, wait_reasons

STYLES: Final[Mapping[BatchState, str]] = {
    BatchState.OPEN: "dim",
    BatchState.SEALED: "cyan",
    BatchState.SUBMITTING: "cyan",
    BatchState.SUBMITTED: "yellow",
    BatchState.ENDED: "blue",
    BatchState.SETTLED: "green",
    BatchState.FAILED: "red",
    BatchState.CANCELLED: "magenta",
}
SHORT_ID: Final = 20
GAP: Final = 2
LEAST_WIDTHS: Final = ((1, 11), (4, 12), (0, 16), (1, 4), (0, 4), (4, 4))
"""On a narrow terminal these columns are cut in turn, each to so many characters: state, id, model."""


class _Terminal(Console):
    """A console that never hides the cursor: a program killed in the middle leaves a terminal that works."""

    def show_cursor(self, show: bool = True) -> bool:
        return False


class LiveScreen:
    """Draws the batches in place; the program's own prints to the terminal scroll above them."""

    def __init__(self, *, n_lines: int) -> None:
        self._n_lines = n_lines
        self._console = _Terminal(stderr=True)
        self._live: Live | None = None
        self._wait_reasons = wait_reasons.WaitReasons()

    def draw(self, batches: Sequence[Batch], now: dt.datetime, n_reused: int = 0) -> None:
        """Draw one line a batch, one for the rest of them, and one for the requests that earlier runs had made."""
        if not batches and not n_reused:
            return
        if self._live is None:
            self._live = self._start()
        for line in self._wait_reasons.news(batches):
            self._console.print(Text(line, style="red"))
        self._live.update(self._table(batches, now, n_reused), refresh=True)

    def close(self) -> None:
        """Leave the last table on the screen, and the terminal as it was."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _start(self) -> Live:
        live = Live(
            console=self._console,
            auto_refresh=False,
            # A stream that is redirected to a file must stay there.
            redirect_stdout=sys.stdout is not None and sys.stdout.isatty(),
            redirect_stderr=True,
            vertical_overflow="crop",
        )
        live.start()
        return live

    def _table(self, batches: Sequence[Batch], now: dt.datetime, n_reused: int) -> Table:
        shown, rest = batch_lines.pick(batches, max(1, min(self._n_lines, self._console.height - 4)))
        table = Table.grid(padding=(0, GAP))
        for justify in ("left", "left", "right", "right", "left"):
            table.add_column(justify=justify, no_wrap=True, overflow="ellipsis")
        rows = [
            (
                Text(f"{batch.spec.provider}/{batch.spec.model}"),
                Text(batch_lines.state_of(batch), style=STYLES[batch.state]),
                Text(f"{batch_lines.rows_done(batch)}/{batch_lines.rows_all(batch)}"),
                Text(batch_lines.age_of(batch, now), style="dim"),
                Text(_short(batch.provider_batch_id or batch.batch_id), style="dim"),
            )
            for batch in shown
        ]
        _fit(rows, self._console.width)
        for row in rows:
            table.add_row(*row)
        if n_reused:
            table.add_row(Text("from earlier runs"), Text(), Text(f"{n_reused:,}"))
        if rest:
            words = ", ".join(f"{n} {state}" for state, n in sorted(rest.items()))
            table.add_row(Text(f"and {sum(rest.values())} more: {words}", style="dim"))
        return table


def _fit(rows: Sequence[Sequence[Text]], width: int) -> None:
    """Cut states, ids and models so that a row fits; counts and ages are shown whole."""
    widths = [max((cell.cell_len for cell in column), default=0) for column in zip(*rows, strict=True)]
    over = sum(widths) + GAP * (len(widths) - 1) - width
    for column, least in LEAST_WIDTHS:
        if over > 0:
            kept = max(min(least, widths[column]), widths[column] - over)
            over -= widths[column] - kept
            widths[column] = kept
            for row in rows:
                row[column].truncate(kept, overflow="ellipsis")


def _short(name: str) -> str:
    return name if len(name) <= SHORT_ID else f"{name[: SHORT_ID - 1]}…"
