"""`python -m tests.chaos`: kill, inject faults, then check; exit code 1 if a promise was broken."""

from __future__ import annotations

import asyncio
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

import click

from batchling_client.wire.deployment.cancellation import end
from tests.waiting import wait_until

from . import checker, report, schedule
from .demon import Demon
from .evidence import gather
from .power import Disk
from .rest import CALM_S, Rest
from .schedule import Counts
from .wiretap import Wiretap
from .world import LEASE_S, World

SECONDS_A_KILL: Final = 6
SECONDS_A_REDIS_KILL: Final = 30
SECONDS_A_CLIENT_KILL: Final = 15
SECONDS_A_STOP: Final = 20
SECONDS_A_ROLL: Final = 25
SECONDS_A_CUT: Final = 10
LONGEST_STOP_S: Final = LEASE_S + 1.5
"""Seconds; longer than the lease, and much shorter than the patience with an unanswered create."""
KEY_LETTERS: Final = "0123456789abcdef"


@click.command()
@click.option("--seconds", default=600.0, show_default=True, help="How long blows fall.")
@click.option(
    "--seed", type=int, help="What decides every blow and fault; unset = a new one, which is printed."
)
@click.option("--workers", default=3, show_default=True)
@click.option("--clients", default=3, show_default=True)
@click.option("--questions", default=40, show_default=True, help="How many calls a client makes at once.")
@click.option("--kills", type=int, help="kill -9 of workers; unset = one in six seconds.")
@click.option("--redis-kills", type=int, help="kill -9 of Redis; unset = one in thirty seconds.")
@click.option("--cuts/--no-cuts", default=True, help="Connections to Redis and the provider are cut.")
@click.option("--power-cuts", is_flag=True, help="A killed Redis loses what it had not brought to the disk.")
@click.option("--keep", is_flag=True, help="Keep the folder with the logs also when all is well.")
def main(
    seconds: float,
    seed: int | None,
    workers: int,
    clients: int,
    questions: int,
    kills: int | None,
    redis_kills: int | None,
    cuts: bool,
    power_cuts: bool,
    keep: bool,
) -> None:
    """Kill workers, Redis and clients while the provider misbehaves, then check every promise."""
    seed = random.randrange(1_000_000) if seed is None else seed
    counts = Counts(
        kills=round(seconds / SECONDS_A_KILL) if kills is None else kills,
        redis_kills=round(seconds / SECONDS_A_REDIS_KILL) if redis_kills is None else redis_kills,
        client_kills=round(seconds / SECONDS_A_CLIENT_KILL),
        stops=round(seconds / SECONDS_A_STOP),
        rolls=round(seconds / SECONDS_A_ROLL),
        cuts=round(seconds / SECONDS_A_CUT) if cuts else 0,
    )
    home = Path(tempfile.mkdtemp(prefix="batchling-chaos-"))
    rng = random.Random(seed)
    secrets = [f"canary-{i}-{''.join(rng.choices(KEY_LETTERS, k=24))}" for i in range(2)]
    world = World(
        home=home,
        seed=seed,
        n_workers=workers,
        n_clients=clients,
        n_questions=questions,
        secrets=secrets,
        cuts=cuts,
    )
    if power_cuts:
        world.disk = Disk(world.url, home / "redis")
    click.echo(f"seed         {seed}: {seconds:g} s, {workers} workers, {clients} clients, logs in {home}")
    violations = asyncio.run(_run(world, seconds, counts))
    if violations or keep:
        click.echo(f"kept         {home}")
    else:
        shutil.rmtree(home, ignore_errors=True)
    click.echo(f"{'BROKEN' if violations else 'KEPT'}: seed {seed}")
    sys.exit(1 if violations else 0)


async def _run(world: World, seconds: float, counts: Counts) -> list[checker.Violation]:
    async with world:
        demon, wiretap = Demon(world), Wiretap(world.url, world.secrets)
        beside = [asyncio.create_task(demon.watch()), asyncio.create_task(wiretap.listen())]
        if world.disk is not None:
            beside.append(asyncio.create_task(world.disk.watch()))
        try:
            await wait_until(
                lambda: any(b'"answered"' in path.read_bytes() for path in world.home.glob("client*.jsonl")),
                description="the first answers",
                within_s=CALM_S,
            )
            await demon.rage(
                schedule.blows(world.seed, seconds, counts, LONGEST_STOP_S),
                schedule.gusts(world.seed, seconds),
            )
            struck = await demon.struck()
            calm_since = time.monotonic()
            rest = Rest(world)
            await rest.come()
            demon.broken += rest.broken
            click.echo(
                f"calm         {time.monotonic() - calm_since:.1f} s until all was answered and settled"
            )
            click.echo(
                f"held         {len(rest.retried)} batches, which were retried; {len(rest.given_up)} of them had files "
                "that stay broken, and were cancelled"
            )
            evidence, page = await gather(world, demon, wiretap)
        finally:
            await end(beside)
    violations = checker.check(evidence)
    figures = report.of_run(
        evidence=evidence, page=page, demon=demon, struck=struck, n_heard=wiretap.n_messages
    )
    if world.disk is not None:
        figures.append(f"power        {world.disk.n_lost_bytes} bytes lost with the kills of Redis")
    for line in (*figures, *report.of_violations(violations)):
        click.echo(line)
    return violations


if __name__ == "__main__":
    main()
