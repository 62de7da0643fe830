"""The live display of a terminal, drawn in place on stderr."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import IO, Any, Final, cast

from rich.console import Console, Group, RenderableType
from rich.file_proxy import FileProxy
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ..views.batch_view import Status
from . import other_bars
from .folding import folded
from .log_screen import LogScreen
from .picture import Header, Look, ModelLine, Picture, picture_of

STYLES: Final = {
    Status.COLLECTING: "dim",
    Status.QUEUED: "cyan",
    Status.SENDING: "cyan",
    Status.WAITING: "yellow",
    Status.RUNNING: "blue",
    Status.READING: "blue",
    Status.DONE: "green",
    Status.DONE_WITH_FAILURES: "yellow",
    Status.MOVED_ON: "dim",
}
BAD: Final = "red"
"""The style of every other status."""
GAP: Final = 2
LONGEST_BAR: Final = 40
LEAST_BAR: Final = 8
LEAST_WIDTHS: Final = ((5, 12), (0, 16), (1, 10), (5, 4), (0, 4), (1, 4))
"""On a narrow terminal these columns are cut in turn, each to so many characters: id, model, what it does."""
REASON_LINES: Final = 6
"""So many lines are shared by the reasons to wait."""
INDENT: Final = 4
DONE: Final = "█"
REACHED: Final = "▒"
LEFT: Final = "░"


class _Terminal(Console):
    """A console that never hides the cursor: a program killed in the middle leaves a terminal that works."""

    def show_cursor(self, show: bool = True) -> bool:
        return False


class _Above(FileProxy):
    """Prints what the program writes above the picture, until the program rewrites lines itself, as a bar does."""

    def __init__(self, console: Console, file: IO[str], give_way: Callable[[], None]) -> None:
        super().__init__(console, file)
        self._give_way = give_way
        self.is_plain = False

    def isatty(self) -> bool:
        # What a bar asks of a stream before it draws: io.TextIOBase would answer for itself.
        return self.rich_proxied_file.isatty()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return str(getattr(self.rich_proxied_file, "encoding", None) or "ascii")

    def write(self, text: str) -> int:
        if not self.is_plain and "\r" in text.replace("\r\n", ""):
            self._give_way()
        return self.rich_proxied_file.write(text) if self.is_plain else super().write(text)

    def flush(self) -> None:
        if self.is_plain:
            self.rich_proxied_file.flush()
        else:
            super().flush()


class LiveScreen:
    """Draws the run in place; the program's own prints to the terminal scroll above the picture.

    Beside a progress bar of the program it prints lines instead, above the bar.
    """

    is_live = True

    def __init__(self) -> None:
        self._console = _Terminal(stderr=True)
        self._live: Live | None = None
        self._proxies: dict[str, _Above] = {}
        self._lines: LogScreen | None = None

    def draw(self, look: Look) -> None:
        """Draw a header, one line a model, why batches wait, and what is special about the run."""
        if self._lines is None and other_bars.tqdm_draws():
            self._give_way()
        if self._lines is not None:
            self._lines.draw(look)
            return
        if not look.batches and not look.counts.n_reused:
            return
        if self._live is None:
            self._live = self._start()
        # Room for the ^C that a terminal writes behind the picture: with a line more, the picture would be drawn twice.
        width = self._console.width - len("^C")
        self._live.update(laid_out(picture_of(look), width, self._console.height), refresh=True)

    def close(self) -> None:
        """Leave the last picture on the screen, and the terminal as it was."""
        live, self._live = self._live, None
        if live is not None:
            for proxy in self._proxies.values():
                proxy.flush()
            live.stop()
        for name, proxy in self._proxies.items():
            # A bar or a log handler may hold on to it.
            proxy.is_plain = True
            if getattr(sys, name) is proxy:
                setattr(sys, name, proxy.rich_proxied_file)
        self._proxies = {}

    def _give_way(self) -> None:
        """Leave the terminal's last lines to somebody else's bar for the rest of the run."""
        self._lines = LogScreen(to_stderr=True, rewritten=True)
        live, self._live = self._live, None
        if live is not None:
            live.transient = True
            live.stop()
        for proxy in self._proxies.values():
            proxy.is_plain = True

    def _start(self) -> Live:
        live = Live(
            console=self._console,
            auto_refresh=False,
            redirect_stdout=False,
            redirect_stderr=False,
            vertical_overflow="crop",
        )
        live.start()
        # A stream that is redirected to a file must stay there.
        names = [name for name in ("stdout", "stderr") if _is_terminal(getattr(sys, name))]
        for name in names:
            proxy = _Above(self._console, getattr(sys, name), self._give_way)
            self._proxies[name] = proxy
            setattr(sys, name, cast("Any", proxy))
        return live


def _is_terminal(file: IO[str] | None) -> bool:
    return file is not None and file.isatty() and not isinstance(file, FileProxy)


def laid_out(picture: Picture, width: int, height: int = 25) -> RenderableType:
    """Return a picture in lines of that width."""
    parts: list[RenderableType] = [_header(picture.header, width)]
    reasons = [
        line
        for reason in picture.reasons
        for line in _cut(folded(reason, width, indent=INDENT).splitlines(), picture.reasons)
    ]
    n_models = max(1, height - len(reasons) - len(picture.notes) - 4)
    parts.append(_models(picture.models[:n_models], width))
    if len(picture.models) > n_models:
        parts.append(Text(f"and {len(picture.models) - n_models:,} more models", style="dim"))
    parts += [Text(line, style="yellow", no_wrap=True, overflow="ellipsis") for line in reasons]
    parts += [Text(note, style="dim", no_wrap=True, overflow="ellipsis") for note in picture.notes]
    return Group(*parts)


def _cut(lines: Sequence[str], reasons: Sequence[str]) -> Sequence[str]:
    most = max(2, REASON_LINES // len(reasons))
    return lines if len(lines) <= most else [*lines[: most - 1], f"{lines[most - 1]} …"]


def _header(header: Header, width: int) -> Text:
    """Return title, counts, percent, bar, rate, times and failures; what has no room is left out, the least first."""
    ends = [
        (Text(header.left, style="bold"), 3),
        (Text(header.rate), 2),
        (Text(header.took, style="dim"), 1),
        (Text(f"{header.n_failed:,} failed" if header.n_failed else "", style=BAD), 9),
    ]
    order = (1, 2, 0, 3)
    first = [Text(header.title, style="bold"), Text(header.done), Text(header.percent)]
    shown = [ends[i] for i in order if ends[i][0]]
    while shown:
        room = width - sum(one.cell_len + GAP for one in (*first, *(text for text, _ in shown)))
        if room >= LEAST_BAR:
            break
        shown.remove(min(shown, key=lambda one: one[1]))
    room = width - sum(one.cell_len + GAP for one in (*first, *(text for text, _ in shown)))
    if room >= LEAST_BAR:
        first.append(_bar(header, min(LONGEST_BAR, room)))
    line = Text(" " * GAP).join([*first, *(text for text, _ in shown)])
    line.no_wrap, line.overflow = True, "ellipsis"
    return line


def _bar(header: Header, width: int) -> Text:
    n_all = max(1, header.n_all)
    done = width * header.n_done // n_all
    reached = min(width, width * (header.n_done + header.n_reached) // n_all) - done
    bar = Text(DONE * done, style="green")
    bar.append(REACHED * reached, style="blue")
    bar.append(LEFT * (width - done - reached), style="dim")
    return bar


def _models(models: Sequence[ModelLine], width: int) -> Table:
    table = Table.grid(padding=(0, GAP))
    for justify in ("left", "left", "right", "right", "right", "left"):
        table.add_column(justify=cast("Any", justify), no_wrap=True, overflow="ellipsis")
    rows = [
        (
            Text(model.model),
            Text(model.doing, style=STYLES.get(model.status, BAD)),
            Text(f"{model.n_done:,}/{model.n_all:,}"),
            Text(f"{model.n_failed:,} failed" if model.n_failed else "", style=BAD),
            Text(model.age, style="dim"),
            Text(model.batch, style="dim"),
        )
        for model in models
    ]
    _fit(rows, width)
    for row in rows:
        table.add_row(*row)
    return table


def _fit(rows: Sequence[Sequence[Text]], width: int) -> None:
    """Cut ids, models and states so that a row fits; counts and ages are shown whole."""
    widths = [max((cell.cell_len for cell in column), default=0) for column in zip(*rows, strict=True)]
    over = sum(widths) + GAP * (len(widths) - 1) - width
    for column, least in LEAST_WIDTHS:
        if over > 0:
            kept = max(min(least, widths[column]), widths[column] - over)
            over -= widths[column] - kept
            widths[column] = kept
            for row in rows:
                row[column].truncate(kept, overflow="ellipsis")
