"""Prints lines for the user: through the program's logging if it has set it up, else on stderr."""

from __future__ import annotations

import logging
import sys
from typing import Final

from ..wire.shown import lines
from . import other_bars
from .folding import folded, width_of
from .notebook_screen import is_notebook

logger: Final = logging.getLogger("batchling")


def say(line: str, *, rewritten: bool = False) -> None:
    """Print a line for the user: through logging if the program has set it up, else on stderr."""
    if logger.isEnabledFor(logging.INFO) and logger.hasHandlers():
        logger.info("%s", lines(line))
    else:
        _print(line, rewritten=rewritten)


def warn(line: str, *, rewritten: bool = False) -> None:
    """Print a line that somebody should act on: as a warning if the program has set up logging, else on stderr."""
    if logger.hasHandlers():
        logger.warning("%s", lines(line))
    else:
        _print(line, rewritten=rewritten)


def log_quietly(line: str, *, rewritten: bool = False) -> None:
    """Log a line, and print nothing."""
    logger.info("%s", lines(line))


def _print(line: str, *, rewritten: bool) -> None:
    # A notebook shows stderr in red, as if something had failed.
    file = sys.stdout if is_notebook() else sys.stderr
    if file is None:
        return
    with other_bars.above(file, rewritten=rewritten):
        print(folded(f"batchling: {lines(line)}", width_of(file)), file=file, flush=True)
