"""Examines a deployment and this environment, and says of each finding how to mend it."""

from __future__ import annotations

import re
import stat
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from . import coverage
from .errors import QueueUnreachable, WrongSettings
from .finding import Finding, Health, judge
from .reach import Reached, reach
from .settings import ClientSettings
from .wire import sealing
from .wire.records import CorruptRecord

OLDEST_REDIS: Final = (6, 2)
SKEW_S: Final = 5.0
FULL_FROM: Final = 0.8


async def examine(redis_url: str | None) -> list[Finding]:
    """Looks at everything once; changes and starts nothing."""
    found = []
    try:
        found += await _deployment(redis_url)
    except WrongSettings as error:
        found.append(
            Finding(check="settings", health=Health.FAILURE, says=str(error), mend="Mend the setting.")
        )
    except QueueUnreachable as error:
        says, _, mend = str(error).partition(": ")
        found.append(
            Finding(check="redis", health=Health.FAILURE, says=says, mend=mend or "Run `batchling up`.")
        )
    found += await coverage.interception()
    return found


async def _deployment(redis_url: str | None) -> list[Finding]:
    async with reach(redis_url) as reached:
        answer: Mapping[str, Any] = await reached.redis.execute_command("INFO")
        seconds, micros = await reached.redis.execute_command("TIME")
        skew_s = time.time() - (int(seconds) + int(micros) / 1e6)
        return [
            Finding(check="redis", health=Health.OK, says=f"Redis answers at {reached.place}"),
            *of_redis(answer),
            of_clock(skew_s),
            *(await _of_workers(reached)),
        ]


def of_redis(answer: Mapping[str, Any]) -> list[Finding]:
    """What Redis' own INFO tells of version, role, durability and memory."""
    found = [_of_version(str(answer.get("redis_version", "0")))]
    role = str(answer.get("role", ""))
    found.append(
        judge(
            "role",
            role == "master",
            f"role is {role or 'unknown'}",
            "Point BATCHLING_REDIS_URL at the master, or at its Sentinels (sentinel://host:26379/service).",
        )
    )
    policy = str(answer.get("maxmemory_policy", ""))
    found.append(
        judge(
            "eviction",
            policy == "noeviction",
            f"maxmemory-policy is {policy or 'unknown'}",
            "Set `maxmemory-policy noeviction`: any other policy throws waiting requests away when memory is short.",
        )
    )
    durable = str(answer.get("aof_enabled")) == "1"
    found.append(
        judge(
            "durability",
            durable and str(answer.get("aof_last_write_status", "ok")) == "ok",
            _aof_words(answer, durable=durable),
            "Set `appendonly yes` and see that its disk has room: without it a restart of Redis loses requests.",
        )
    )
    found.append(_of_memory(answer))
    return found


def of_clock(skew_s: float) -> Finding:
    """How far this machine's clock is from Redis', which is the one that counts."""
    return judge(
        "clock",
        abs(skew_s) <= SKEW_S,
        f"this clock is {abs(skew_s):.1f} s {'ahead of' if skew_s > 0 else 'behind'} that of Redis",
        "Let NTP set the clocks: ages and waits are reckoned between the two.",
    )


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
            mend="Start one with `celery -A batchling_worker worker`, or run `batchling up`.",
        )
    else:
        names = ", ".join(f"{worker.name} ({worker.pool}, {worker.version})" for worker in workers)
        alive = Finding(check="workers", health=Health.OK, says=f"{len(workers)} alive: {names}")
    return [alive, of_keys(reached.settings, [worker.seal_public_key for worker in workers])]


def of_keys(used: ClientSettings, worker_digests: Sequence[str]) -> Finding:
    """Whether the seal key of this client can be read, and opened by the workers that live."""
    mend = "Give clients and workers the same pair: `batchling keys new` prints one as settings."
    folder = used.home / "keys"
    private = folder / sealing.PRIVATE_FILE
    try:
        if used.seal_public_key:
            public = used.seal_public_key
        elif _there(private):
            public = sealing.stored_pair(used.home)[0]
        else:
            return Finding(check="keys", health=Health.OK, says=f"none yet in {folder}: made on first need")
    except (OSError, sealing.UnreadableSealKey) as error:
        return Finding(
            check="keys",
            health=Health.FAILURE,
            says=f"the seal key in {folder} cannot be read ({error})",
            mend=mend,
        )
    if not used.seal_public_key and private.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        return Finding(
            check="keys",
            health=Health.FAILURE,
            says=f"others can read {private}",
            mend=f"chmod 600 {private}",
        )
    digest = sealing.digest(public)
    if worker_digests and digest not in worker_digests:
        return Finding(
            check="keys",
            health=Health.FAILURE,
            says=f"no live worker can open what key {digest} seals",
            mend=mend,
        )
    return Finding(check="keys", health=Health.OK, says=f"seal key {digest}")


def _of_version(text: str) -> Finding:
    numbers = tuple(int(part) for part in re.findall(r"\d+", text)[:2])
    return judge(
        "version",
        numbers >= OLDEST_REDIS,
        f"Redis {text}",
        "Use Redis or Valkey 6.2 or newer: scripts need it.",
    )


def _of_memory(answer: Mapping[str, Any]) -> Finding:
    used = int(answer.get("used_memory", 0))
    room = int(answer.get("maxmemory", 0)) or int(answer.get("total_system_memory", 0))
    says = f"{used / 2**20:,.0f} MiB used" + (f" of {room / 2**20:,.0f} MiB" if room else "")
    return judge(
        "memory",
        not room or used < room * FULL_FROM,
        says,
        "Raise maxmemory, or lower BATCHLING_RESULT_TTL_SECONDS: a full Redis refuses new requests.",
    )


def _aof_words(answer: Mapping[str, Any], *, durable: bool) -> str:
    if not durable:
        return "append-only file is off"
    state = str(answer.get("aof_last_write_status", "ok"))
    return (
        "append-only file is on" if state == "ok" else f"append-only file is on, its last write was {state}"
    )


def _there(path: Path) -> bool:
    """Whether the file is there; raises where even that cannot be seen."""
    try:
        path.stat()
    except FileNotFoundError:
        return False
    return True
