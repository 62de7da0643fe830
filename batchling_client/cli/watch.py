"""The commands that look at a deployment again and again: `watch` for people, `check` for monitors."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import shutil
import sys
from typing import Final

import click

from ..errors import QueueUnreachable
from ..views.overview import Overview
from ..wire.shown import shown, styled_line
from ..wording import counted, span
from . import look, options, status_text
from .look import ATTENTION, now

_OTHER_SCREEN: Final = "\x1b[?1049h\x1b[?25l"
_OWN_SCREEN: Final = "\x1b[?25h\x1b[?1049l"
_FROM_THE_TOP: Final = "\x1b[H"
_REST_OF_LINE: Final = "\x1b[K"
_REST_OF_SCREEN: Final = "\x1b[J"


@click.command(short_help="Show `status` again and again, until Ctrl-C.")
@click.option(
    "--every", default=2.0, show_default=True, type=click.FloatRange(min=0.2), help="Seconds between looks."
)
@click.option("--times", type=click.IntRange(min=1), help="End after so many looks.")
@options.redis_url
def watch(every: float, times: int | None, redis_url: str | None) -> None:
    """Show the screen of `batchling status` and keep it up to date, until Ctrl-C.

    While Redis is away the screen says so, and tries again. In a pipe each look is printed below the last one.
    """
    on_terminal = sys.stdout.isatty()
    with contextlib.ExitStack() as screen:
        if on_terminal:
            click.echo(_OTHER_SCREEN, nl=False)
            screen.callback(click.echo, _OWN_SCREEN, nl=False)
        screen.enter_context(contextlib.suppress(KeyboardInterrupt))
        asyncio.run(_looks(redis_url, every, times, on_terminal=on_terminal))


async def _looks(redis_url: str | None, every: float, times: int | None, *, on_terminal: bool) -> None:
    n_looks = 0
    while times is None or n_looks < times:
        if n_looks:
            await asyncio.sleep(every)
        n_looks += 1
        try:
            seen = await look.overview(redis_url)
            lines = status_text.status(seen.overview, now(), look.width())
        except QueueUnreachable as error:
            lines = [str(error), "", "Trying again; Ctrl-C ends."]
        _draw([*lines, "", f"{now().astimezone():%H:%M:%S}"], on_terminal=on_terminal)


def _draw(lines: list[str], *, on_terminal: bool) -> None:
    if not on_terminal:
        click.echo("\n".join(map(styled_line, lines)))
        return
    rows = "\n".join(map(styled_line, lines)).splitlines()
    n_rows = shutil.get_terminal_size().lines
    if len(rows) > n_rows:
        rows = [*rows[: n_rows - 1], "… `batchling batches` lists the rest"]
    click.echo(_FROM_THE_TOP + "\n".join(line + _REST_OF_LINE for line in rows) + _REST_OF_SCREEN, nl=False)


@click.command(short_help="Tell a monitor in one line whether something needs you.")
@click.option("--max-wait", metavar="TIME", help="Attention if a request has waited for longer: 90m, 2h, 1d.")
@options.redis_url
def check(max_wait: str | None, redis_url: str | None) -> int:
    """Print one line for a monitor, with figures behind a bar as Nagios reads them.

    Exit code 0: nobody has to act. 1: something needs you, or a request has waited for longer than --max-wait.
    3: Redis cannot be reached.
    """
    longest = look.length_of("--max-wait", max_wait) if max_wait else None
    seen = asyncio.run(look.overview(redis_url)).overview
    complaints = _complaints(seen, longest)
    waited_s = int((now() - seen.oldest_at).total_seconds()) if seen.oldest_at else 0
    figures = (
        f"waiting={seen.n_waiting} oldest_s={waited_s} unfinished={seen.n_unfinished} lag_s={seen.lag_s:.0f}"
    )
    words = (
        "; ".join(complaints) or f"{counted(seen.n_waiting, 'request')} without an answer, nothing needs you"
    )
    click.echo(f"{'ATTENTION' if complaints else 'OK'} - {words} | {figures} workers={seen.n_workers}")
    return ATTENTION if complaints else 0


def _complaints(seen: Overview, longest: dt.timedelta | None) -> list[str]:
    found = list(seen.troubles)
    for group in seen.needs_you:
        some = counted(group.n_batches, "batch")
        found.append(
            f"{group.provider}/{group.model}: {group.status.value}, {some}, first {group.oldest_batch_id}"
        )
    if longest is not None and seen.oldest_at is not None and now() - seen.oldest_at > longest:
        found.append(f"a request has waited for {span(now() - seen.oldest_at)}")
    # A monitor takes everything behind the first bar for figures.
    return [shown(one).replace("|", "/").rstrip(".") for one in found]
