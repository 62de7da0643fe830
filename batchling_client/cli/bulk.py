"""The commands for files that no process should hold in memory: `submit` and `results`."""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import click

from .. import settings
from ..bulk.answer_keys import AnswerKeys
from ..bulk.results_file import NoResults, Results, Tally
from ..bulk.submission import Counted, Wish, WrongFile
from ..bulk.submission import submit as submit_file
from ..operate import steering, worker_presence
from ..operate.connect import Reached, reach
from ..operate.wire_versions import holding
from ..wire.keys import RunId
from ..wording import counted
from . import look, options
from .target import say


@click.command(short_help="Queue a file of requests, print the run's id.")
@click.argument("file", metavar="FILE.jsonl", type=click.Path(path_type=Path))
@click.option(
    "--provider",
    required=True,
    metavar="NAME",
    help="Provider to submit to; its API key is read from its SDK's usual variable.",
)
@click.option("--endpoint", help="Lines are bare bodies for this endpoint, such as /v1/chat/completions.")
@click.option("--name", default="", help="Name of the run.")
@click.option(
    "--completion-window",
    default="24h",
    show_default=True,
    help="Time in which the provider promises answers.",
)
@click.option("--account", help="Name of the account, for tokens that are renewed.")
@click.option(
    "--model", help="Model of lines that name none, where the provider's files leave it to the create."
)
@click.option("--vertex-gcs-prefix", help="Staging prefix for Vertex.")
@click.option("--dry-run", is_flag=True, help="Queue nothing: check the file and say what would be sent.")
@options.redis_url
@options.as_json
def submit(
    file: Path,
    provider: str,
    endpoint: str | None,
    name: str,
    completion_window: str,
    account: str | None,
    model: str | None,
    vertex_gcs_prefix: str | None,
    redis_url: str | None,
    *,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Queue a file of requests, one a line, and print the run's id.

    Lines are those of the provider's own batch files, or bare bodies with --endpoint, in UTF-8 or UTF-16.
    The API key is read from the variable that the provider's SDK reads. Submitted again, nothing is paid for twice.
    """
    wish = Wish(
        path=file,
        provider=provider,
        endpoint=endpoint,
        name=name,
        completion_window=completion_window,
        account=account,
        model=model,
        vertex_gcs_prefix=vertex_gcs_prefix,
        dry_run=dry_run,
    )
    done = asyncio.run(submit_file(wish, settings.load(redis_url=redis_url), os.environ))
    if isinstance(done, Counted):
        look.print_out(done.as_json() if as_json else [done.report], as_json=as_json)
        return
    look.print_out(done.as_json() if as_json else [done.run_id], as_json=as_json)
    before = f", {done.n_answered:,} of them answered already" if done.n_answered else ""
    how = f"`batchling results {done.run_id} -o OUT.jsonl --wait` writes the answers"
    say(f"{counted(done.n_requests, 'request')}{before}; {how}.")
    if done.assumed_model is not None:
        say(f"Lines that name no model are for {done.assumed_model}: give --model for another.")
    if done.n_late:
        say(
            f"{done.n_late:,} of them are in batches that are being cancelled: submit the file again once these have "
            "ended."
        )


@click.command(short_help="Write the answers of a run.")
@click.argument("run", metavar="[RUN]", default="")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="OUT.jsonl",
    help="Write to a file instead of stdout.",
)
@click.option("--wait", is_flag=True, help="Wait until every request is answered.")
@click.option("--failed", is_flag=True, help="Only requests that were answered with an error.")
@click.option("--latest", is_flag=True, help="Of the run that began last; instead of RUN.")
@options.redis_url
@options.as_json
def results(
    run: str,
    output: Path | None,
    redis_url: str | None,
    *,
    wait: bool,
    failed: bool,
    latest: bool,
    as_json: bool,
) -> int:
    """Write the answers of a run, one a line: in the order of the submitted file, or of the calls of a program.

    RUN is an id or a name: of several runs the newest. A line has the file's custom_id (or the number of the line, or
    of the call), and `response` or `error`. So an answer that was paid for can be had without its program.
    """
    if bool(run) == latest:
        raise click.UsageError("name a run, or give --latest: `batchling runs` lists the runs")
    if as_json and output is None:
        raise click.UsageError("--json prints a summary: add `-o FILE` for the answers")

    async def fetch() -> Tally:
        async with reach(redis_url) as reached:
            with _opened(output) as out:
                used = reached.settings
                missing = worker_presence.missing_worker(used.redis_url)
                run_id = await _newest(reached) if latest else await _run_of(reached, run)
                keys = (await holding(run_id, reached.keyspaces)).scripts.keys
                opening = AnswerKeys(reached.redis, keys, used, os.environ)
                found = Results(reached.redis, keys, run_id, answer_keys=opening, missing=missing)
                return await found.write(out, wait=wait, failed_only=failed)

    tally = asyncio.run(fetch())
    if as_json:
        look.print_out(tally.as_json(), as_json=True)
    else:
        for line in tally.lines():
            say(line)
    return 0 if tally.complete else 1


async def _newest(reached: Reached) -> RunId:
    for record in await reached.inspection.runs(1):
        say(f"The run that began last is {record.run_id}{f' ({record.name})' if record.name else ''}.")
        return record.run_id
    raise NoResults("There is no run here yet.")


async def _run_of(reached: Reached, run: str) -> RunId:
    for one in reached.keyspaces:
        if await reached.redis.execute_command("EXISTS", one.scripts.keys.run(run)):
            return RunId(run)
    return await steering.run_named(reached.inspection, run, warn=say) or RunId(run)


@contextlib.contextmanager
def _opened(path: Path | None) -> Iterator[BinaryIO]:
    """Open the file for lines; it takes its name once it is whole, except devices and pipes. Raise `WrongFile`."""
    if path is None:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    try:
        # Open a device or pipe by its path as given: /dev/stdout does not resolve to a name that can be opened.
        with path.open("wb") if _is_special(path) else _replaced(Path(os.path.realpath(path))) as file:
            yield file
    except OSError as error:
        raise WrongFile(f"{path} cannot be written: {error.strerror}.") from None


def _is_special(path: Path) -> bool:
    """Return whether the path is a device, pipe or directory, which another file must not replace."""
    try:
        return not stat.S_ISREG(path.stat().st_mode)
    except FileNotFoundError:
        return False


@contextlib.contextmanager
def _replaced(path: Path) -> Iterator[BinaryIO]:
    handle, draft = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
        mask = os.umask(0)
        os.umask(mask)
        Path(draft).chmod(0o666 & ~mask)
        Path(draft).replace(path)
    except BaseException:
        Path(draft).unlink(missing_ok=True)
        raise
