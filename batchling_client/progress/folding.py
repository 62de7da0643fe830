"""Breaks long lines at words for a terminal; a file or a pipe gets them whole."""

from __future__ import annotations

import os
import re
import textwrap
from typing import IO, Final

LEAST: Final = 40
"""A narrower terminal breaks lines by itself."""
_COMMAND: Final = re.compile(r"`[^`]*`")
_HARD_SPACE: Final = "\N{NO-BREAK SPACE}"


def width_of(file: IO[str] | None) -> int | None:
    """Return how many columns a terminal has; None for everything else that is written to."""
    try:
        if file is None or not file.isatty():
            return None
        columns = os.get_terminal_size(file.fileno()).columns
    except (OSError, ValueError):
        return None
    return columns if columns >= LEAST else None


def folded(text: str, width: int | None, *, indent: int = 0) -> str:
    """Return a line in lines of that width; what stands between backticks is typed, and stays whole where it fits.

    The lines after the first begin with `indent` spaces.
    """
    if width is None or len(text) <= width:
        return text
    whole = _COMMAND.sub(lambda found: found[0].replace(" ", _HARD_SPACE), text)
    lines = textwrap.wrap(
        whole,
        width,
        subsequent_indent=indent * " ",
        break_long_words=False,
        break_on_hyphens=False,
    )
    return "\n".join(lines).replace(_HARD_SPACE, " ")
