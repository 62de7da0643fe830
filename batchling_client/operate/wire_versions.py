"""Keyspaces of other wire versions than this release writes: which workers drain, and what the doctor finds there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from redis.asyncio import Redis

from ..views.inspection import Inspection
from ..wire.deployment.finding import Finding, Health, judge
from ..wire.keys import DRAINED_VERSIONS, WIRE_VERSION, Keys
from ..wire.records.row_and_result import CorruptRecord
from ..wire.scripts import Scripts
from ..wording import counted

CHECK = "versions"


@dataclass(frozen=True, slots=True, kw_only=True)
class Keyspace:
    """The keys of one wire version: reads and scripts over them."""

    inspection: Inspection
    scripts: Scripts


def keyspace(redis: Redis, namespace: str, version: int = WIRE_VERSION) -> Keyspace:
    """Return the keyspace of a wire version; it may be empty."""
    keys = Keys(namespace, version)
    return Keyspace(inspection=Inspection(redis, keys), scripts=Scripts(redis, keys))


def keyspaces(redis: Redis, namespace: str) -> tuple[Keyspace, ...]:
    """Return the keyspace of this release, and then those of the older versions that its workers drain."""
    older = sorted({*DRAINED_VERSIONS} - {WIRE_VERSION}, reverse=True)
    return tuple(keyspace(redis, namespace, version) for version in (WIRE_VERSION, *older))


async def holding(name: str, those: Sequence[Keyspace]) -> Keyspace:
    """Return the older keyspace that holds the batch or run of that id; the first if none does."""
    for one in those[1:]:
        keys = one.scripts.keys
        if await one.scripts.redis.execute_command("EXISTS", keys.batch(name), keys.run(name)):
            return one
    return those[0]


async def findings(redis: Redis, namespace: str) -> list[Finding]:
    """Return findings on batches of older versions, drained or waiting for a worker, and of the next version."""
    found = []
    for one in keyspaces(redis, namespace)[1:]:
        n_left = await one.inspection.n_unfinished()
        if n_left:
            found.append(_of_older(one.inspection.version, n_left, await _is_drained(one)))
    newer = keyspace(redis, namespace, WIRE_VERSION + 1).inspection
    n_newer = await newer.n_unfinished()
    if n_newer:
        says = f"{counted(n_newer, 'batch')} of wire version {newer.version}, newer than this release,"
        mend = "Keep a worker of the newer release running, and upgrade this one."
        found.append(Finding(check=CHECK, health=Health.NOTE, says=f"{says} are stored in Redis", mend=mend))
    return found or [
        Finding(check=CHECK, health=Health.OK, says=f"wire version {WIRE_VERSION} alone is in use")
    ]


async def _is_drained(older: Keyspace) -> bool:
    try:
        return bool(await older.inspection.workers())
    except CorruptRecord:
        return True


def _of_older(version: int, n_left: int, is_drained: bool) -> Finding:
    says = f"{counted(n_left, 'batch')} of wire version {version} {'are being drained' if is_drained else 'wait'}"
    if is_drained:
        return Finding(check=CHECK, health=Health.NOTE, says=says)
    return judge(
        CHECK,
        sound=False,
        says=f"{says}, and no live worker drains them",
        mend=f"Run a worker of this release, or of the last release with version {version}, until they are done.",
    )
