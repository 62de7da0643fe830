"""The command `forget`."""

from __future__ import annotations

import asyncio
import sys
from typing import Final

import click

from ..operate.connect import Reached, reach
from ..operate.erasing import Done, Eraser, NothingToErase, Plan, kept_by_redis, rewrite_aof
from ..wording import counted
from . import options
from .look import length_of, print_out
from .target import say

SOMETHING_LEFT: Final = 1


@click.command(short_help="Erase prompts, answers and credentials.")
@click.argument("name", metavar="[NAME]", default="")
@click.option("--older-than", metavar="AGE", help="Erase what began longer ago, such as 7d; instead of NAME.")
@click.option("--dry-run", is_flag=True, help="Only say what would be erased.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--rewrite-aof", "rewrites", is_flag=True, help="Have Redis rewrite its append-only file, too.")
@options.redis_url
@options.as_json
def forget(
    name: str,
    older_than: str | None,
    redis_url: str | None,
    *,
    dry_run: bool,
    yes: bool,
    rewrites: bool,
    as_json: bool,
) -> int:
    """Erase a run, or what was asked with a key, from Redis: prompts, answers, failures, sealed credentials.

    NAME is a run (every run of that name) or the fingerprint of a key, as `batchling lanes` shows it, or the beginning
    of one. What is still under way is not erased. A request that is asked for again afterwards is paid for again.
    Workers first delete the files at the providers, as they do otherwise within a week.
    """
    if bool(name) == bool(older_than):
        raise click.UsageError("name a run or a key, or give --older-than AGE")

    async def work() -> int:
        async with reach(redis_url) as reached:
            plans = await _plans(reached, name, older_than)
            for _, plan in plans:
                for line in plan.lines():
                    say(line)
            if all(plan.is_empty for _, plan in plans):
                say("There is nothing to erase.")
                return 0
            if not dry_run and not yes:
                if not sys.stdin.isatty():
                    raise click.UsageError("give --yes to erase this, or --dry-run")
                click.confirm("Erase this?", abort=True, err=True)
            done = [Done(plan=plan) if dry_run else await eraser.erase(plan) for eraser, plan in plans]
            rewritten = await rewrite_aof(reached.redis) if rewrites and not dry_run else ""
            _print(done, dry_run=dry_run, as_json=as_json)
            say(rewritten or await kept_by_redis(reached.redis))
            return SOMETHING_LEFT if any(one.n_left or one.files_left for one in done) else 0

    return asyncio.run(work())


async def _plans(reached: Reached, name: str, older_than: str | None) -> list[tuple[Eraser, Plan]]:
    erasers = [Eraser(one.inspection, one.scripts) for one in reached.keyspaces]
    if older_than:
        age = length_of("--older-than", older_than)
        return [(one, await one.plan_older(age)) for one in erasers]
    found = [(one, await one.plan(name)) for one in erasers]
    plans = [(one, plan) for one, plan in found if plan is not None]
    if not plans:
        raise NothingToErase(
            f"There is no run and no key {name!r} here: `batchling runs` and `batchling lanes` list them."
        )
    return plans


def _print(done: list[Done], *, dry_run: bool, as_json: bool) -> None:
    if as_json:
        print_out([{"erased": not dry_run, **one.as_json()} for one in done], as_json=True)
        return
    for one in done:
        if not dry_run:
            click.echo(
                f"Erased: {counted(len(one.plan.runs), 'run')}, {counted(len(one.plan.batches), 'batch')}, "
                f"{counted(one.n_answers, 'answer')}."
            )
        if one.n_left:
            say(f"{counted(one.n_left, 'request')} stay: somebody has asked for them again.")
        if one.files_left:
            say(
                f"Files of {counted(len(one.files_left), 'batch')} are still to be deleted at the provider. Until a "
                f"worker has done so, the records of these batches stay, such as {one.files_left[0]}."
            )
