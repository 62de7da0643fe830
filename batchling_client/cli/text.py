"""Lays text out for a terminal of any width: tables whose last column may stand below its row, ages, and colours."""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Iterable, Sequence
from typing import Final, Self

import click

from ..progress.folding import folded

INDENT: Final = 4


class Coloured(str):
    """A cell of a table with a colour, which a terminal shows and a file does not."""

    __slots__ = ("colour",)

    colour: str

    def __new__(cls, text: str, colour: str) -> Self:
        cell = super().__new__(cls, text)
        cell.colour = colour
        return cell


def columns(rows: Sequence[Sequence[str]], width: int | None) -> list[str]:
    """Return rows under a heading as lines; if a terminal is too narrow, the last cell of a row stands below it."""
    widths = _widths(rows)
    if width is None or sum(widths) + 2 * (len(widths) - 1) <= width:
        return [_padded(row, widths) for row in rows]
    # The last cell is folded below its row where it does not fit beside it.
    beside = width - sum(widths[:-1]) - 2 * (len(widths) - 1)
    lines = []
    for row in rows:
        last = row[-1]
        if len(last) <= beside:
            lines.append(_padded(row, widths))
            continue
        line = _padded(row[:-1], widths[:-1])
        lines.append(
            line
            if sum(widths[:-1]) + 2 * (len(widths) - 2) <= width
            else f"{click.unstyle(line)[: width - 1]}…"
        )
        if row is not rows[0]:
            lines += folded(f"{' ' * INDENT}{last}", width, indent=INDENT).splitlines()
    return lines


def _widths(rows: Sequence[Sequence[str]]) -> list[int]:
    return [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]


def _padded(row: Iterable[str], widths: Sequence[int]) -> str:
    cells = []
    for cell, width in zip(row, widths, strict=True):
        text = styled(cell, cell.colour) if isinstance(cell, Coloured) else str(cell)
        cells.append(text + " " * (width - len(cell)))
    return "  ".join(cells).rstrip()


def styled(text: str, colour: str, *, bold: bool = False) -> str:
    """Return the text in a colour; `click.echo` takes it out again where no terminal is written to."""
    return (
        click.style(text, fg=colour, bold=bold or None) if colour and not os.environ.get("NO_COLOR") else text
    )


def cut(text: str, width: int) -> str:
    """Return the text in at most `width` characters, its middle left out if it is longer."""
    if len(text) <= width:
        return text
    left = (width - 1) // 2
    return f"{text[:left]}…{text[len(text) - (width - 1 - left) :]}"


def age(length: dt.timedelta) -> str:
    """Return a length of time as digits: 0:07, 12:30, 3:05:00, 2d 3:05:00."""
    seconds = max(0, int(length.total_seconds()))
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days}d {hours}:{minutes:02}:{seconds:02}"
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def clock(moment: dt.datetime) -> str:
    """Return a time of this machine's day."""
    return moment.astimezone().strftime("%H:%M:%S")


def moment(at: dt.datetime) -> str:
    """Return a time of this machine's zone, with its day."""
    return at.astimezone().strftime("%Y-%m-%d %H:%M:%S")
