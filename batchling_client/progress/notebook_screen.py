"""The display of a notebook: one output below the cell, updated in place."""

from __future__ import annotations

import html
import sys
from collections.abc import Sequence
from typing import Any, Final

from .picture import Header, Look, picture_of, text_of

BAR: Final = 30


def is_notebook() -> bool:
    """Return whether the program runs in a kernel of Jupyter, whose stderr is shown in red."""
    # Never imported by batchling: a notebook's kernel has imported it.
    shell: Any = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return getattr(shell, "kernel", None) is not None


class NotebookScreen:
    """Draws a run into one output, and its summary below the picture in the same output."""

    is_live = True

    def __init__(self) -> None:
        self._handle: Any = None
        self._lines: Sequence[str] = ()
        self._bar = ""

    def draw(self, look: Look) -> None:
        """Show a header, one line a model, why batches wait, and what is special about the run."""
        if look.batches or look.counts.n_reused:
            picture = picture_of(look)
            self._lines, self._bar = text_of(picture), _bar(picture.header)
            self._show(())

    def conclude(self, lines: Sequence[str]) -> None:
        """Show the summary below the last picture."""
        self._show(lines)

    def close(self) -> None:
        """Do nothing: the output stays."""

    def _show(self, ending: Sequence[str]) -> None:
        lines = [*self._lines, *ending]
        escaped = [html.escape(line) for line in lines]
        if self._bar:
            escaped.insert(1, self._bar)
        page = f'<pre style="white-space: pre-wrap; margin: 0">{"<br>".join(escaped)}</pre>'
        data = {"text/plain": "\n".join(lines), "text/html": page}
        if self._handle is None:
            display: Any = sys.modules["IPython"].display.display
            self._handle = display(data, raw=True, display_id=True)
        else:
            self._handle.update(data, raw=True)


def _bar(header: Header) -> str:
    n_all = max(1, header.n_all)
    done = BAR * header.n_done // n_all
    reached = min(BAR, BAR * (header.n_done + header.n_reached) // n_all) - done
    return "█" * done + "▒" * reached + "░" * (BAR - done - reached)
