"""Figures of a measurement: named columns, medians, and their tables."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

Cell: TypeAlias = str | int | float


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A promise about a figure and the measured value; a missed target is printed and fails nothing."""

    promise: str
    found: str
    met: bool

    def shown(self) -> str:
        return f"{'met   ' if self.met else 'MISSED'}  {self.promise}: {self.found}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """One measurement: a table of medians, the targets, and every raw figure behind them."""

    title: str
    columns: tuple[str, ...]
    rows: Sequence[Sequence[Cell]]
    targets: Sequence[Target] = ()
    raw: Any = field(default=None, repr=False)

    def shown(self) -> str:
        """Return the table and the targets as text."""
        cells = [list(self.columns), *([_shown(cell) for cell in row] for row in self.rows)]
        widths = [max(len(row[i]) for row in cells) for i in range(len(self.columns))]
        lines = [f"== {self.title}"]
        for row in cells:
            words = [
                row[0].ljust(widths[0]),
                *(word.rjust(w) for word, w in zip(row[1:], widths[1:], strict=True)),
            ]
            lines.append("  ".join(words).rstrip())
        return "\n".join([*lines, *(target.shown() for target in self.targets)])

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        return {
            "title": self.title,
            "rows": [dict(zip(self.columns, row, strict=True)) for row in self.rows],
            "targets": [{"promise": t.promise, "found": t.found, "met": t.met} for t in self.targets],
            "raw": self.raw,
        }


def median(values: Sequence[float]) -> float:
    """Return the median of at least one value."""
    return float(statistics.median(values))


def quantile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that at least this share of the values does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def _shown(cell: Cell) -> str:
    return f"{cell:,.2f}" if isinstance(cell, float) else f"{cell:,}" if isinstance(cell, int) else cell
