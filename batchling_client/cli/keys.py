"""The commands `keys new`, `keys rotate` and `keys retire`."""

from __future__ import annotations

import asyncio
import os

import click

from .. import settings
from ..errors import QueueUnreachable
from ..operate import seal_keys
from ..operate.connect import reach
from ..progress.folding import folded
from ..views import spelling
from ..views.key_view import KeyView, keys_of
from ..wire import roots, sealing
from ..wire.shown import shown
from ..wording import counted
from . import options
from .look import print_out, width
from .target import say
from .text import INDENT, moment


@click.group()
def keys() -> None:
    """Make and change the keys that seal callers' credentials."""


@keys.command()
def new() -> None:
    """Print a fresh pair, as settings for clients and workers (the public one) and workers only (the private one).

    The third line is for callers only: it proves that they belong to a named account.
    """
    public, private = sealing.new_pair()
    click.echo(f"BATCHLING_SEAL_PUBLIC_KEY={public}")
    click.echo(f"BATCHLING_SEAL_PRIVATE_KEY={private}")
    click.echo(f"BATCHLING_ACCOUNT_SECRET={roots.new_secret()}")


@keys.command(short_help="Seal for a new key; what was sealed before is still opened.")
@options.redis_url
@options.as_json
def rotate(redis_url: str | None, *, as_json: bool) -> None:
    """Seal callers' credentials for a new key from now on, while requests are under way.

    Keys in BATCHLING_HOME are changed at once: running workers take the new one up, and the old one still opens what
    was sealed for it. If the keys are settings, the command changes nothing: it prints the new values, and the order in
    which workers and callers get them.
    """
    used = settings.load(redis_url=redis_url)
    present = seal_keys.of_settings(used, os.environ)

    async def change() -> seal_keys.Rotated:
        if present is not None:
            return seal_keys.rotated_by_hand(present)
        try:
            async with reach(redis_url) as reached:
                return await seal_keys.rotate(used.home, reached.inspection)
        except QueueUnreachable:
            if used.redis_url:
                raise
            # The embedded stack does not run, so no worker has to take the key up.
            return await seal_keys.rotate(used.home, None)

    done = asyncio.run(change())
    if as_json:
        print_out(done.as_json(), as_json=True)
        return
    if done.private_keys is not None:
        click.echo(f"BATCHLING_SEAL_PUBLIC_KEY={done.public_key}")
        click.echo(f"BATCHLING_SEAL_PRIVATE_KEY={done.private_keys}")
    else:
        click.echo(f"Callers seal for key {done.seal_for} from now on; workers open {', '.join(done.opens)}.")
    for number, step in enumerate(done.steps, 1):
        say(f"{number}. {step}" if len(done.steps) > 1 else step)


@keys.command(short_help="Drop the older seal keys, unless one is needed.")
@click.option("--reseal", is_flag=True, help="Seal credentials that need an older key for the current one.")
@options.redis_url
@options.as_json
def retire(redis_url: str | None, *, reseal: bool, as_json: bool) -> None:
    """Drop every seal key but the current one; refuse while a stored credential can only be opened with an older one.

    Programs that have run since before the rotation still seal for the old key: let them end first. For keys in
    settings, run the command with the workers' BATCHLING_SEAL_PRIVATE_KEY: it says whether the older keys may be
    removed.
    """
    used = settings.load(redis_url=redis_url)
    given = seal_keys.of_settings(used, os.environ)
    if given == ():
        raise click.UsageError("give the workers' BATCHLING_SEAL_PRIVATE_KEY, which opens what is stored")
    private_keys = seal_keys.stored(used.home) if given is None else given

    async def drop() -> seal_keys.Retired:
        async with reach(redis_url) as reached:
            return await seal_keys.retire(
                reached.redis,
                [one.scripts.keys for one in reached.keyspaces],
                private_keys,
                used.home if given is None else None,
                reseal=reseal,
            )

    done = asyncio.run(drop())
    if as_json:
        print_out(done.as_json(), as_json=True)
        return
    if done.n_sealed_anew:
        click.echo(f"Sealed for the current key: {done.n_sealed_anew}.")
    if done.n_unreadable:
        say(f"Stored credentials that none of these keys opens, and no worker can use: {done.n_unreadable}.")
    click.echo(f"Not needed any more: {', '.join(done.dropped) or 'no key'}.")
    for step in done.steps:
        say(step)


@keys.command(short_help="Whose key a fingerprint is.")
@click.argument("fingerprint", metavar="[FP]", default="")
@options.redis_url
@options.as_json
def whose(fingerprint: str, redis_url: str | None, *, as_json: bool) -> int:
    """Say how the key of a fingerprint ends, where it is used and since when, and whether it is stored.

    FP is a fingerprint as `batchling lanes` shows it, or the beginning of one; without it, every key is listed.
    """

    async def look() -> list[KeyView]:
        async with reach(redis_url) as reached:
            return await keys_of(reached.inspection, reached.redis, reached.scripts.keys, fingerprint)

    found = asyncio.run(look())
    print_out([spelling.as_json(one) for one in found] if as_json else lines_of(found), as_json=as_json)
    if not found:
        say(f"No lane uses a key {fingerprint!r}." if fingerprint else "No lane uses a key.")
    return 0 if found else 1


def lines_of(found: list[KeyView]) -> list[str]:
    """Return a line for each key."""
    return [
        folded(
            shown(
                f"{one.credential}: "
                + ("the name of an account" if one.is_account else _ends(one.key_hint))
                + f", used at {', '.join(one.providers)} ({', '.join(one.models)}) in {counted(one.n_lanes, 'lane')}, "
                f"last {moment(one.last_used_at)}, {'stored' if one.is_stored else 'not stored'}"
            ),
            width(),
            indent=INDENT,
        )
        for one in found
    ]


def _ends(hint: str | None) -> str:
    return f"a key that ends in {hint}" if hint else "a key whose end is not stored"
