"""Progress bars of others on the same terminal: they rewrite their line, so whole lines are printed above it."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import IO, Any

_CLEAR_LINE = "\r\x1b[2K"


def tqdm_draws() -> bool:
    """Return whether a bar of tqdm is on a terminal now."""
    bars: Any = getattr(_tqdm(), "_instances", ())
    with contextlib.suppress(Exception):
        return any(not bar.disable and bar.fp.isatty() for bar in list(bars))
    return False


@contextlib.contextmanager
def above(file: IO[str], *, rewritten: bool = False) -> Iterator[None]:
    """Take bars off the terminal while the body prints whole lines; `rewritten` = its last line may be a bar."""
    mode = getattr(_tqdm(), "external_write_mode", None)
    if mode is not None and tqdm_draws():
        with mode(file=file):
            yield
        return
    if rewritten:
        file.write(_CLEAR_LINE)
    yield


def _tqdm() -> Any:
    # Never imported by batchling: a program that shows bars has imported it.
    return getattr(sys.modules.get("tqdm"), "tqdm", None)
