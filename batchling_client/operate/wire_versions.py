"""The doctor's findings on batches in Redis that have another wire version than this release writes."""

from __future__ import annotations

from ..wire.deployment.finding import Finding, Health, judge
from ..wire.keys import WIRE_VERSION
from ..wire.records.row_and_result import CorruptRecord
from ..wording import counted
from .connect import Keyspace, Reached, keyspace

CHECK = "versions"


async def of_versions(reached: Reached) -> list[Finding]:
    """Return findings on batches of older versions, drained or waiting for a worker, and of the next version."""
    found = []
    for one in reached.older:
        n_left = await one.inspection.n_unfinished()
        if n_left:
            found.append(_of_older(one.inspection.version, n_left, await _is_drained(one)))
    newer = keyspace(reached.redis, reached.settings.namespace, WIRE_VERSION + 1).inspection
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
