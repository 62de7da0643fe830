"""The commands `pause` and `resume`."""

from __future__ import annotations

import asyncio

import click

from ..operate import pausing
from ..operate.connect import reach
from ..progress.folding import folded
from ..views.batch_list import BatchLists
from ..wire.records.pause import Pause
from ..wire.shown import shown
from . import options
from .look import print_out, width
from .target import say
from .text import INDENT, moment
from .who import who


@click.command(short_help="Submit nothing more of a provider, model, key or lane.")
@click.argument("name", metavar="[NAME]", default="")
@click.option("--reason", default="", help="Why, for those who see that batches wait.")
@options.redis_url
@options.as_json
def pause(name: str, reason: str, redis_url: str | None, *, as_json: bool) -> None:
    """Submit nothing more of a provider, a model, a key or a lane until `batchling resume`.

    NAME is as `batchling lanes` shows it: openai, openai/gpt-4o-mini, the beginning of a key's fingerprint or of the ID
    of a lane. Without NAME, the pauses are listed. Batches that were submitted before run on, and their answers are
    delivered; requests are queued meanwhile.
    """

    async def steer() -> list[Pause]:
        async with reach(redis_url) as reached:
            keys = reached.scripts.keys
            if not name:
                return await pausing.pauses_of(reached.redis, keys)
            lists = BatchLists(reached.redis, keys)
            by = who("batchling pause")
            return [await pausing.pause(lists, reached.redis, keys, name, by=by, reason=reason)]

    found = asyncio.run(steer())
    _print(found, as_json=as_json)
    if not found and not as_json:
        say("Nothing is paused.")


@click.command(short_help="Submit again what was paused.")
@click.argument("name", metavar="[NAME]", default="")
@click.option("--all", "everything", is_flag=True, help="End every pause; instead of NAME.")
@options.redis_url
@options.as_json
def resume(name: str, redis_url: str | None, *, everything: bool, as_json: bool) -> None:
    """End a pause: the batches that waited for it are looked at now."""
    if bool(name) == everything:
        raise click.UsageError("name what was paused, or give --all: `batchling pause` lists the pauses")

    async def steer() -> list[Pause]:
        async with reach(redis_url) as reached:
            lists = BatchLists(reached.redis, reached.scripts.keys)
            return await pausing.resume(lists, reached.scripts, name, by=who("batchling resume"))

    found = asyncio.run(steer())
    if as_json:
        _print(found, as_json=True)
    else:
        say(f"Continues: {', '.join(shown(one.name) for one in found) or 'nothing was paused'}.")


def _print(found: list[Pause], *, as_json: bool) -> None:
    objects = [
        {
            "kind": one.kind.value,
            "name": one.name,
            "by": one.by,
            "at": one.at.isoformat(),
            "reason": one.reason or None,
        }
        for one in found
    ]
    lines = [
        folded(
            shown(
                f"{one.kind.value} {one.name} is paused since {moment(one.at)} by {one.by}"
                + (f": {one.reason}" if one.reason else "")
            ),
            width(),
            indent=INDENT,
        )
        for one in found
    ]
    print_out(objects if as_json else lines, as_json=as_json)
