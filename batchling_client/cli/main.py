"""The `batchling` command: converts, calls, prints."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final, TypeVar

import click

from .. import settings
from ..operate import steering
from ..operate.cancel_run import CancelledRun, cancel_run
from ..operate.connect import reach
from ..operate.doctor import examine
from ..operate.wire_versions import holding
from ..progress.folding import folded
from ..views.inspection import RunRecord
from ..wire.deployment.installing import VERSION
from . import acl, bulk, forget, keys, look, options, pausing, run_function, run_script, watch
from .group import CommandGroup
from .run_command import RunCommand, options_behind
from .run_sandbox import rehearsal
from .target import say
from .who import who

F = TypeVar("F", bound=Callable[..., Any])

REHEARSAL_POLL_S: Final = 0.5
"""The sandbox is through with a batch in seconds: the default pace of looks is for real providers."""


@click.group(cls=CommandGroup)
@click.version_option(VERSION, message="batchling %(version)s")
def main() -> None:
    """Answer LLM calls of unchanged SDK code from half-price provider batches.

    `batchling FILE.py:FUNC` is short for `batchling run FILE.py:FUNC`. To try it without an account: `batchling demo`,
    or `batchling run --sandbox SCRIPT.py`.
    """


def _batchify_options(command: F) -> F:
    parameters = (
        click.option("--batch-size", type=int, help="Seal a batch at this many requests."),
        click.option("--batch-window-seconds", type=float, help="Seal when no call came for this long (2)."),
        click.option(
            "--batch-poll-interval-seconds", type=float, help="Seconds between polls of a batch (10)."
        ),
        click.option("--completion-window", help="Time in which the provider promises answers (24h)."),
        click.option("--dry-run/--no-dry-run", default=None, help="Send nothing: report what would be sent."),
        click.option("--cache/--no-cache", default=None, help="Reuse answers of earlier runs (on)."),
        click.option("--live-display/--no-live-display", default=None, help="Progress on a terminal (on)."),
        click.option("--vertex-gcs-prefix", help="Staging prefix for Vertex."),
        click.option("--name", help="Name of the run."),
        click.option("--deadline", help="When a request must be answered: seconds, or like 2h."),
        click.option(
            "--on-deadline",
            type=click.Choice(["error", "realtime"]),
            help="After a passed deadline: an error, or the call at full price (error).",
        ),
        click.option(
            "--on-too-few",
            type=click.Choice(["error", "realtime"]),
            help="With fewer requests than a batch must have: an error, or calls at full price (error).",
        ),
        click.option(
            "--stream",
            type=click.Choice(["pass", "batch"]),
            help="Calls with stream=True: at full price, or made of a batch's answer (pass).",
        ),
        click.option(
            "--detach/--no-detach", default=None, help="Do not wait for calls in flight at the end (off)."
        ),
        click.option("--account", help="Name of the account, for tokens that are renewed."),
        options.redis_url,
    )
    for option in reversed(parameters):
        command = option(command)
    return command


@main.command(cls=RunCommand)
@click.argument("words", nargs=-1, required=True, type=click.UNPROCESSED, metavar="TARGET [ARGS]...")
@click.option("--sandbox", is_flag=True, help="Rehearse against the local sandbox: no account, no cost.")
@_batchify_options
@click.pass_context
def run(ctx: click.Context, /, words: Sequence[str], *, sandbox: bool, **parameters: Any) -> object:
    """Run a function, a script or a module under batchify.

    \b
    TARGET is  FILE.py:FUNC   a function of a file, async or not
               SCRIPT.py      a script, as `python SCRIPT.py` runs it
               -m MODULE      a module, as `python -m MODULE` runs it
               COMMAND        a Python command of this environment

    Options stand before the target, and the ARGS behind it belong to the target. A function gets words as positional
    arguments, `--name value` by name and `--name` alone as True; behind FILE.py:FUNC the options from --batch-size to
    --vertex-gcs-prefix are still batchling's, unless `--` stands before them.
    """
    given = {name: value for name, value in parameters.items() if value is not None}
    to_run: run_script.Program | None = None
    if words[0].startswith("-m"):
        to_run = run_script.module(words)
    elif not run_function.is_place(words[0]):
        to_run = run_script.script(words[0], words[1:])
    else:
        behind, rest = options_behind(ctx, words[1:])
        given |= behind
    with contextlib.suppress(ValueError, KeyError):
        given["deadline"] = float(given["deadline"])
    with contextlib.ExitStack() as stage:
        if sandbox:
            if "redis_url" in given:
                raise click.UsageError("--sandbox has a Redis of its own: leave --redis-url out")
            stage.enter_context(rehearsal(settings.load().home))
            given.setdefault("batch_poll_interval_seconds", REHEARSAL_POLL_S)
        if to_run is not None:
            # The program runs after this command has ended, so that a click program finds no outer command.
            return partial(run_script.run, to_run, given, stage.pop_all())
        return run_function.run(run_function.load(words[0], rest), given)


@main.command()
@click.argument("name", metavar="ID")
@click.option(
    "--keep-submitted", is_flag=True, help="Runs only: let submitted batches finish and keep their answers."
)
@options.redis_url
@options.as_json
def cancel(name: str, redis_url: str | None, *, keep_submitted: bool, as_json: bool) -> int:
    """Cancel a batch, or a run.

    Cancelling a batch cancels every request in it, other runs' included. Cancelling a run drops its unsubmitted
    requests and cancels the batches that no other run waits for.
    """

    async def steer() -> steering.Cancelled | CancelledRun:
        async with reach(redis_url) as reached:
            there = await holding(name, reached.keyspaces)
            found = await steering.find(there.inspection, name, warn=say)
            if isinstance(found, RunRecord):
                return await cancel_run(
                    there.inspection,
                    there.scripts,
                    found,
                    keep_submitted=keep_submitted,
                    by=who("batchling cancel"),
                )
            if keep_submitted:
                raise click.UsageError(f"--keep-submitted is for runs, and {name} is a batch")
            return await steering.cancel(there.scripts, found, by=who("batchling cancel"))

    done = asyncio.run(steer())
    if isinstance(done, CancelledRun):
        return _print_cancelled(done, as_json=as_json)
    lines = [f"Batch {batch_id} is being cancelled." for batch_id in done.batch_ids]
    look.print_out(done.as_json() if as_json else lines, as_json=as_json)
    if not done.batch_ids:
        say(f"{name} has ended already: there is nothing to cancel.")
    return 0 if done.batch_ids else 1


def _print_cancelled(done: CancelledRun, *, as_json: bool) -> int:
    look.print_out(done.as_json() if as_json else done.lines(), as_json=as_json)
    if done.done_something:
        return 0
    if not (done.kept or done.left or done.n_shared):
        say(f"{done.run_id} has ended already: there is nothing to cancel.")
    return 1


@main.command(short_help="Retry a waiting or quarantined batch now.")
@click.argument("name", metavar="ID")
@options.redis_url
@options.as_json
def retry(name: str, redis_url: str | None, *, as_json: bool) -> int:
    """Retry a waiting or quarantined batch now, or all batches of a run.

    A batch that failed, was lost, cancelled or given up is read once more while its provider keeps it, and answers that
    are found replace the errors. No request is run or paid for again.
    """

    async def steer() -> steering.Retried:
        async with reach(redis_url) as reached:
            there = await holding(name, reached.keyspaces)
            return await steering.retry(
                there.inspection, there.scripts, name, by=who("batchling retry"), warn=say
            )

    done = asyncio.run(steer())
    look.print_out(done.as_json() if as_json else done.lines(), as_json=as_json)
    if not done.batch_ids:
        over = "it has ended, and its provider has no more answers to read"
        why = "a worker is at it at this moment" if done.busy else over
        say(f"There is nothing to retry in {name}: {why}.")
    return 0 if done.batch_ids else 1


for command in (
    *(look.status, look.batches, look.runs, look.lanes, look.show, look.failures),
    *(watch.watch, watch.check),
):
    main.add_command(command)
main.add_command(pausing.pause)
main.add_command(pausing.resume)
main.add_command(bulk.submit)
main.add_command(bulk.results)
main.add_command(keys.keys)
main.add_command(forget.forget)
main.add_command(acl.acl)


@main.command(short_help="Check the deployment and print how to fix it.")
@options.redis_url
@options.as_json
def doctor(redis_url: str | None, *, as_json: bool) -> int:
    """Check Redis, durability, workers, keys, clock, base URLs and interception, and say how to mend what is wrong."""
    findings = asyncio.run(examine(redis_url, os.environ))
    sound = all(finding.sound for finding in findings)
    as_objects = {"ok": sound, "findings": [finding.as_json() for finding in findings]}
    look.print_out(
        as_objects if as_json else [folded(str(finding), look.width(), indent=22) for finding in findings],
        as_json=as_json,
    )
    return 0 if sound else 1
