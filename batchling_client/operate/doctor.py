"""Examines a deployment and this environment, and says how to fix each finding."""

from __future__ import annotations

import contextlib
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path

from .. import settings
from ..errors import QueueUnreachable, WrongSettings
from ..settings import ClientSettings
from ..views.batch_list import BatchLists
from ..wire import sealing
from ..wire.deployment import redis_health, rehearsing, seal_key_files, setting_files, setting_names
from ..wire.deployment.connection import ask, user_of
from ..wire.deployment.finding import Finding, Health
from ..wire.records.row_and_result import CorruptRecord, WorkerPresence
from . import base_urls, sdk_coverage, wire_versions, work_findings
from .connect import Reached, reach


async def examine(redis_url: str | None, environment: Mapping[str, str]) -> list[Finding]:
    """Look at everything once; change and start nothing."""
    found = [*_of_names(environment), *of_files(environment)]
    in_use: set[tuple[str, str]] = set()
    try:
        found += await _deployment(redis_url, in_use)
    except WrongSettings as error:
        found.append(
            Finding(check="settings", health=Health.FAILURE, says=str(error), mend="Mend the setting.")
        )
    except QueueUnreachable as error:
        says, _, mend = str(error).partition(": ")
        found.append(
            Finding(check="redis", health=Health.FAILURE, says=says, mend=mend or "Run `batchling up`.")
        )
    with contextlib.suppress(WrongSettings):
        found += await base_urls.tried(settings.load(redis_url=redis_url), environment, in_use)
    found += await sdk_coverage.interception()
    return found


def _of_names(environment: Mapping[str, str]) -> list[Finding]:
    """Return findings on environment variables that have no effect."""
    by_hand = environment.get(rehearsing.SANDBOX, "")
    refused = Finding(
        check="settings",
        health=Health.FAILURE,
        says=f"{rehearsing.SANDBOX} holds no URL of a sandbox: every LLM call is refused",
        mend="Unset it; `batchling sandbox -- CMD` sets it for CMD.",
    )
    found = [refused] if by_hand and "://" not in by_hand else []
    return found + [
        Finding(
            check="settings",
            health=Health.FAILURE if one.meant else Health.NOTE,
            says=f"nothing reads {one.name}",
            mend=f"Did you mean {one.meant}?" if one.meant else "Remove it: no setting has that name.",
        )
        for one in setting_names.unread(environment)
    ]


async def _deployment(redis_url: str | None, in_use: set[tuple[str, str]]) -> list[Finding]:
    """Return the findings on Redis, workers and work; add the providers and hosts of lanes to `in_use`."""
    async with reach(redis_url) as reached:
        facts = await ask(reached.redis)
        found = [
            Finding(check="redis", health=Health.OK, says=f"Redis answers at {reached.place}"),
            *redis_health.of_redis(facts),
            *redis_health.of_access(reached.url, *await user_of(reached.redis)),
        ]
        if facts.info.get("redis_mode") != "sentinel":
            found += await _of_workers(reached)
            lists = BatchLists(reached.redis, reached.scripts.keys)
            found += await work_findings.of_work(lists, reached.settings.namespace)
            found.append(redis_health.of_queue(facts, *await lists.inspection.queued()))
            lanes = (await lists.lanes()).specs.values()
            in_use |= {(spec.provider, spec.host) for spec in lanes if spec is not None}
            found += await wire_versions.findings(reached.redis, reached.settings.namespace)
        return found


async def _of_workers(reached: Reached) -> list[Finding]:
    try:
        workers = await reached.inspection.workers()
    except CorruptRecord:
        return [
            Finding(
                check="workers",
                health=Health.FAILURE,
                says="a worker of another version is alive",
                mend="Run the same version of batchling here and in the workers.",
            )
        ]
    if not workers:
        alive = Finding(
            check="workers",
            health=Health.FAILURE,
            says="no worker is alive: requests wait",
            mend="Start one with `celery -A batchling_worker worker`."
            if reached.settings.redis_url
            else "Run `batchling up`.",
        )
    else:
        names = ", ".join(f"{worker.name} ({worker.pool}, {worker.version})" for worker in workers)
        alive = Finding(check="workers", health=Health.OK, says=f"{len(workers)} alive: {names}")
    clocks = [
        redis_health.of_clock(skew_s, whose=f"the clock of {name}")
        for name, skew_s in (await reached.inspection.skews_s()).items()
    ]
    return [alive, *(clock for clock in clocks if not clock.sound), of_keys(reached.settings, workers)]


def of_keys(used: ClientSettings, workers: Sequence[WorkerPresence]) -> Finding:
    """Check that this client's seal key can be read, and that every live worker can open what it seals."""
    mend = "Give clients and workers the same pair: `batchling keys new` prints one as settings."
    folder = used.home / "keys"
    private = folder / seal_key_files.PRIVATE_FILE
    try:
        if used.seal_public_key:
            public = used.seal_public_key
        elif _there(private):
            public = seal_key_files.stored_pair(used.home)[0]
        else:
            return Finding(check="keys", health=Health.OK, says=f"none yet in {folder}: made on first need")
    except (OSError, sealing.UnreadableSealKey) as error:
        return Finding(
            check="keys",
            health=Health.FAILURE,
            says=f"the seal key in {folder} cannot be read ({str(error).rstrip('.')})",
            mend=mend,
        )
    digest = sealing.digest(public)
    closed = [worker.name for worker in workers if not worker.can_open(digest)]
    if closed:
        whose = (
            "no live worker"
            if len(closed) == len(workers)
            else f"not every live worker ({', '.join(closed)})"
        )
        return Finding(
            check="keys",
            health=Health.FAILURE,
            says=f"{whose} can open what key {digest} seals",
            mend=mend,
        )
    return Finding(check="keys", health=Health.OK, says=f"seal key {digest}")


def of_files(environment: Mapping[str, str]) -> list[Finding]:
    """Return findings on the files that settings name: files that cannot be read, and files that others can change or
    read."""
    found = []
    for name, path in setting_files.named_in(environment).items():
        try:
            setting_files.read(path, name)
            mode = path.stat().st_mode
        except (setting_files.UnusableFile, OSError) as error:
            says = str(error).rstrip(".")
            found.append(
                Finding(
                    check="settings",
                    health=Health.FAILURE,
                    says=says,
                    mend="Correct the path, or let this user read the file.",
                )
            )
            continue
        if mode & (stat.S_IWGRP | stat.S_IWOTH):
            health, says = Health.FAILURE, f"others can change {path}, which {name} names"
        elif mode & (stat.S_IRGRP | stat.S_IROTH) and not name.endswith("PUBLIC_KEY_FILE"):
            health, says = Health.NOTE, f"others can read {path}, which {name} names"
        else:
            continue
        mend = f"chmod 600 {path}; in a container that only batchling runs in, leave it as it is."
        found.append(Finding(check="settings", health=health, says=says, mend=mend))
    return found


def _there(path: Path) -> bool:
    """Return whether the file exists; raise if that cannot be seen."""
    try:
        path.stat()
    except FileNotFoundError:
        return False
    return True
