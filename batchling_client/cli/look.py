"""The commands that look at a deployment and change nothing: status, batches, runs, lanes and show."""

from __future__ import annotations

import asyncio
import dataclasses
import datetime as dt
import re
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import click
import msgspec

from .. import settings
from ..errors import BatchlingError, QueueUnreachable
from ..operate import embedded_status, steering
from ..operate.connect import Reached, reach
from ..operate.wire_versions import holding
from ..progress.folding import width_of
from ..views import batch_list, spelling
from ..views.batch_detail import BatchDetail, detail_of
from ..views.batch_list import BatchLists, Filter, Place
from ..views.batch_view import NEED_YOU, BatchView, Status
from ..views.failures import Failures, failures_of_batch, failures_of_run
from ..views.inspection import RunRecord
from ..views.lane_view import LaneView, lanes_of
from ..views.overview import Overview, overview_of
from ..views.run_view import RunView, run_view
from ..wire import shown
from ..wire.keys import BatchId
from ..wire.states import LISTS
from . import options, status_text, tables
from .target import say

F = TypeVar("F", bound=Callable[..., Any])

LAST_OVER: Final = 20
"""So many batches that are over are listed below the unfinished ones."""
ATTENTION: Final = 1
UNREACHABLE: Final = 3
_SPAN: Final = re.compile(r"(\d+)([smhd])")
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_STATUSES: Final = {one.value.replace(" ", "-"): one for one in Status}


def _schema_of(view: type[msgspec.Struct]) -> Callable[[F], F]:
    """Add `--schema`, which prints the JSON schema of what `--json` prints and looks at nothing."""

    def show_schema(ctx: click.Context, _: click.Parameter, asked: bool) -> None:
        if asked:
            click.echo(shown.as_json(spelling.schema(view), indent=2))
            ctx.exit()

    return click.option(
        "--schema",
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=show_schema,
        help="Print the JSON schema of --json.",
    )


class WrongFilter(BatchlingError):
    """A list was asked for by something that no batch has."""

    code = "wrong_filter"
    sentence = "A list was asked for by something that no batch has."


@dataclass(frozen=True, slots=True, kw_only=True)
class _Deployment:
    """A deployment that answers, and the lists of its batches."""

    reached: Reached
    lists: BatchLists


@asynccontextmanager
async def _deployment(redis_url: str | None) -> AsyncIterator[_Deployment]:
    """Connect; name what could not be read on stderr at the end."""
    async with reach(redis_url) as reached:
        lists = BatchLists(reached.redis, reached.scripts.keys)
        yield _Deployment(reached=reached, lists=lists)
    for one in (lists.inspection, *(each.inspection for each in reached.keyspaces)):
        for sentence in one.unreadable:
            say(sentence)


@click.command()
@options.redis_url
@options.as_json
@_schema_of(Overview)
def status(redis_url: str | None, *, as_json: bool) -> int:
    """Show the deployment on one screen: what needs you, what waits by itself, what runs.

    Exit code 0: nobody has to act. 1: something needs you. 3: Redis cannot be reached, or the embedded stack is down.
    """

    try:
        seen = asyncio.run(overview(redis_url))
    except StackIsDown as down:
        print_out(down.processes if as_json else [str(down)], as_json=as_json)
        return UNREACHABLE
    if seen.notice:
        say(seen.notice)
    lines = status_text.status(seen.overview, now(), width())
    lines += status_text.processes(seen.processes) if seen.embedded else []
    print_out({**seen.processes, **spelling.as_json(seen.overview)} if as_json else lines, as_json=as_json)
    return 0 if seen.overview.is_healthy else ATTENTION


class StackIsDown(QueueUnreachable):
    """No Redis URL is set, and the embedded stack is down."""

    code = "stack_is_down"
    sentence = "No Redis URL is set, and the embedded stack is down."

    def __init__(self, stack: embedded_status.Stack) -> None:
        super().__init__(f"The stack in {stack.as_json['home']} is down: `batchling up` starts it.")
        self.processes = stack.as_json


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One look at a deployment."""

    overview: Overview
    processes: dict[str, Any]
    """Redis, workers and Flower, as `status --json` names them."""
    embedded: bool
    notice: str
    """What is wrong with the settings here, '' if nothing is."""


async def overview(url: str | None) -> Seen:
    """Look at the deployment of a URL or of the settings; raise `StackIsDown` and other `QueueUnreachable`."""
    used = settings.load(redis_url=url)
    stack = None if used.redis_url else await embedded_status.status(used.home)
    if stack is not None and stack.redis_url is None:
        raise StackIsDown(stack)
    async with _deployment(stack.redis_url if stack else used.redis_url) as found:
        reached = found.reached
        seen = await overview_of(
            found.lists,
            namespace=used.namespace,
            redis_at=reached.place,
            n_older=sum([await one.inspection.n_unfinished() for one in reached.keyspaces[1:]]),
        )
        if stack is not None:
            return Seen(overview=seen, processes=stack.as_json, embedded=True, notice=stack.notice)
        workers = await found.lists.inspection.workers_known()
        processes = embedded_status.of_others(reached.place, workers, used.home)
        return Seen(overview=seen, processes=processes, embedded=False, notice="")


@click.command(short_help="List batches: unfinished ones first, the oldest first.")
@click.option(
    "--state",
    "states",
    multiple=True,
    metavar="WORD",
    help="In this state, such as submitted, or status, such as waiting; repeatable.",
)
@click.option("--stuck", is_flag=True, help="Only what needs you: quarantined, key refused, held, overdue.")
@click.option(
    "--failed", is_flag=True, help="Only what is over and failed, was cancelled, or holds failures."
)
@click.option(
    "--all", "everything", is_flag=True, help=f"All that is over, too, not only the last {LAST_OVER}."
)
@click.option("--provider", default="", metavar="NAME", help="Of this provider.")
@click.option("--model", default="", help="Of this model.")
@click.option("--lane", default="", metavar="ID", help="Of this lane.")
@click.option("--run", "run_name", metavar="RUN", help="With requests of this run.")
@click.option("--key", default="", metavar="FINGERPRINT", help="Under this API key, as `lanes` shows it.")
@click.option("--since", metavar="TIME", help="Opened or over since then: 90m, 2h, 7d, or 2026-11-30.")
@click.option("--after", metavar="BATCH", help="Read on: what was over before this batch.")
@options.limit
@options.redis_url
@options.list_as_json
@_schema_of(BatchView)
def batches(
    states: Sequence[str],
    provider: str,
    model: str,
    lane: str,
    run_name: str | None,
    key: str,
    since: str | None,
    after: str | None,
    limit: int,
    redis_url: str | None,
    *,
    stuck: bool,
    failed: bool,
    everything: bool,
    as_json: str,
) -> None:
    """List batches: what needs you first, then the unfinished ones, oldest first, then the last that are over."""
    statuses, lists_named = _states(states)
    if stuck:
        statuses |= NEED_YOU
    wanted = Filter(
        lists=batch_list.FAILED if failed else lists_named,
        provider=provider,
        model=model,
        lane=lane,
        key=key,
        since=_since(since),
        statuses=frozenset(statuses),
    )

    async def look() -> tuple[list[BatchView], str]:
        async with _deployment(redis_url) as found:
            if run_name:
                return await _of_run(found, run_name, wanted), ""
            n_over = limit if everything or failed or states or since or after else LAST_OVER
            listed, rest = await _listed(found, wanted, limit, n_over, after)
            for one in found.reached.keyspaces[1:]:
                older = BatchLists(found.reached.redis, one.scripts.keys)
                listed += await older.views([batch.batch_id for batch in await one.inspection.batches(limit)])
            return listed, rest

    listed, rest = asyncio.run(look())
    lines = tables.batches(listed, now(), width())
    print_list([spelling.as_json(one) for one in listed], lines, as_json)
    if rest and not as_json:
        say(rest)


async def _listed(
    found: _Deployment, wanted: Filter, limit: int, n_over: int, after: str | None
) -> tuple[list[BatchView], str]:
    """Return the unfinished batches and some of those that are over, and a sentence on the batches left out."""
    lanes = await found.lists.lanes()
    unfinished = _narrowed(wanted, batch_list.UNFINISHED)
    over = _narrowed(wanted, batch_list.OVER)
    listed: list[BatchView] = []
    left: list[str] = []
    if unfinished is not None and not after:
        page = await found.lists.page(unfinished, limit=limit, lanes=lanes)
        listed += sorted(page.batches, key=lambda one: not one.needs_you)
        if page.after:
            left.append(
                f"{page.n_all - len(page.batches):,} unfinished batches are not listed: --limit lists more."
            )
    if over is not None and limit > len(listed):
        start = await _place_of(found, after) if after else ""
        page = await found.lists.page(
            over, limit=min(n_over, limit - len(listed)), newest_first=True, after=start, lanes=lanes
        )
        listed += page.batches
        if page.after and n_over == LAST_OVER:
            left.append(
                f"{page.n_all - len(page.batches):,} more are over: `batchling batches --all` lists them."
            )
        elif page.after and page.batches:
            left.append(f"More are over: `batchling batches --after {page.batches[-1].batch_id}` reads on.")
    return listed, " ".join(left)


def _narrowed(wanted: Filter, names: Sequence[str]) -> Filter | None:
    """Return the filter for those of its lists that are among the names; None if there are none."""
    kept = tuple(name for name in wanted.names if name in names)
    return dataclasses.replace(wanted, lists=kept) if kept else None


async def _place_of(found: _Deployment, batch_id: str) -> str:
    batch = await found.lists.inspection.batch(BatchId(batch_id))
    if batch is None or batch.settled_at is None:
        raise WrongFilter(f"--after takes the ID of a batch that is over: {batch_id} names none.")
    return str(Place(int(batch.settled_at.timestamp() * 1000), batch.batch_id))


async def _of_run(found: _Deployment, name: str, wanted: Filter) -> list[BatchView]:
    record = await steering.find(found.lists.inspection, name, warn=say)
    if not isinstance(record, RunRecord):
        raise WrongFilter(f"--run takes a run, and {name} is a batch.")
    views = await found.lists.views([one.batch_id for one in record.batches], await found.lists.lanes())
    specs = {one.batch_id: one.spec for one in record.batches}
    return [
        one
        for one in views
        if wanted.takes_lane(one.lane_id, specs[one.batch_id])
        and (not wanted.lists or batch_list.list_of(one) in wanted.lists)
        and (not wanted.statuses or one.status in wanted.statuses)
    ]


def _states(words: Sequence[str]) -> tuple[set[Status], tuple[str, ...]]:
    """Return the statuses and the lists that words name; raise `WrongFilter`."""
    statuses, lists = set[Status](), list[str]()
    for word in words:
        spelt = word.strip().lower()
        if spelt.replace(" ", "-") in _STATUSES and spelt not in LISTS:
            statuses.add(_STATUSES[spelt.replace(" ", "-")])
        elif spelt in LISTS:
            lists.append(spelt)
        else:
            known = ", ".join(sorted({*LISTS, *_STATUSES}))
            raise WrongFilter(f"--state does not know {word!r}. It takes {known}.")
    return statuses, tuple(lists)


def _since(word: str | None) -> dt.datetime | None:
    """Return the time that a length of time or a date names; raise `WrongFilter`."""
    if word is None:
        return None
    if _SPAN.fullmatch(word.strip()):
        return now() - length_of("--since", word)
    try:
        return dt.datetime.fromisoformat(word).astimezone()
    except ValueError:
        raise WrongFilter(
            f"--since cannot read {word!r} as a time: write 90m, 2h, 7d, or 2026-11-30T09:00."
        ) from None


def length_of(option: str, word: str) -> dt.timedelta:
    """Return the length of time that a word of an option names; raise `WrongFilter`."""
    found = _SPAN.fullmatch(word.strip())
    if not found:
        raise WrongFilter(f"{option} cannot read {word!r} as a length of time: write 90s, 30m, 2h or 7d.")
    return dt.timedelta(seconds=min(int(found[1]) * _SECONDS[found[2]], 10**9))


@click.command()
@click.option("--limit", default=50, show_default=True, help="How many to list.")
@options.redis_url
@options.list_as_json
@_schema_of(RunView)
def runs(limit: int, redis_url: str | None, *, as_json: str) -> None:
    """List runs, the newest first: how many of their requests are answered, have failed, still wait."""

    async def look() -> list[RunView]:
        async with _deployment(redis_url) as found:
            return [run_view(one) for one in await found.lists.inspection.runs(limit)]

    listed = asyncio.run(look())
    lines = tables.runs(listed, now(), width())
    print_list([spelling.as_json(one) for one in listed], lines, as_json)


@click.command(short_help="List why requests of a batch or run failed.")
@click.argument("name", metavar="ID")
@click.option("--rows", is_flag=True, help="A line for each failed request, not for each reason.")
@options.redis_url
@options.as_json
@_schema_of(Failures)
def failures(name: str, redis_url: str | None, *, rows: bool, as_json: bool) -> None:
    """List why requests of a batch or a run failed, the commonest reason first.

    Their prompts are not kept, and a batch lists its first 1,000 failed requests one by one.
    """

    async def look() -> Failures:
        async with _deployment(redis_url) as found:
            there = await holding(name, found.reached.keyspaces)
            record = await steering.find(there.inspection, name, warn=say)
            redis, keys = found.reached.redis, there.scripts.keys
            if isinstance(record, RunRecord):
                return await failures_of_run(redis, keys, record)
            return await failures_of_batch(redis, keys, record)

    seen = asyncio.run(look())
    lines = tables.failures(seen, width(), rows=rows)
    print_out(spelling.as_json(seen) if as_json else lines, as_json=as_json)


@click.command()
@options.limit
@options.redis_url
@options.list_as_json
def lanes(limit: int, redis_url: str | None, *, as_json: str) -> None:
    """List lanes, the last used first: what requests must share to share a batch."""

    async def look() -> list[LaneView]:
        async with _deployment(redis_url) as found:
            return await lanes_of(found.lists, limit)

    listed = asyncio.run(look())
    lines = tables.lanes(listed, now(), width())
    print_list([one.as_json() for one in listed], lines, as_json)


@click.command()
@click.argument("name", metavar="ID")
@options.redis_url
@options.as_json
@_schema_of(BatchDetail)
def show(name: str, redis_url: str | None, *, as_json: bool) -> None:
    """Show why a batch is where it is, what happens next and what happened, or a run and its batches."""

    async def look() -> None:
        async with _deployment(redis_url) as found:
            there = await holding(name, found.reached.keyspaces)
            lists = BatchLists(found.reached.redis, there.scripts.keys)
            record = await steering.find(there.inspection, name, warn=say)
            if isinstance(record, RunRecord):
                views = await lists.views([one.batch_id for one in record.batches], await lists.lanes())
                view = run_view(record)
                lines = tables.run(view, views, now(), width())
                print_out(tables.run_json(view, views) if as_json else lines, as_json=as_json)
                return
            detail = await detail_of(lists, record)
            if detail is None:
                raise steering.UnknownId(f"Batch {record.batch_id} has been deleted a moment ago.")
            lines = tables.batch(detail, now(), width())
            print_out(spelling.as_json(detail) if as_json else lines, as_json=as_json)

    asyncio.run(look())


def print_list(objects: Sequence[Mapping[str, object]], lines: Sequence[str], as_json: str) -> None:
    """Print a list for people, as JSON, or as a JSON object a line."""
    if as_json == options.JSON_LINES:
        for one in objects:
            click.echo(shown.as_json(one))
    else:
        print_out(objects if as_json else lines, as_json=bool(as_json))


def print_out(what: object, *, as_json: bool) -> None:
    """Print JSON, or lines."""
    if as_json:
        click.echo(shown.as_json(what, indent=2))
    elif isinstance(what, list):
        for line in what:
            click.echo(shown.styled_line(line))


def width() -> int | None:
    """Return the width of the terminal that stdout is; None if it is none."""
    return width_of(sys.stdout)


def now() -> dt.datetime:
    """Return the time."""
    return dt.datetime.now(dt.UTC)
