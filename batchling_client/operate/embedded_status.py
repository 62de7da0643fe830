"""Asks the embedded stack for its processes, and spells those of any other deployment in the same words."""

from __future__ import annotations

import importlib.util
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ..errors import QueueUnreachable
from ..wire.deployment import redis_errors
from ..wire.records.row_and_result import WorkerPresence
from . import stack_command

STATUS_S: Final = 20.0

NOT_RUNNING: Final = (
    "The embedded stack is not running: start it with `batchling up`, or set BATCHLING_REDIS_URL."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """The processes of an embedded stack."""

    redis_url: str | None
    """None = it is down."""
    as_json: dict[str, Any]
    """`redis`, `workers`, `flower` and `home`, as `batchling status --json` prints them."""
    notice: str
    """What is wrong with the settings here, '' if nothing is."""


async def status(home: Path) -> Stack:
    """Return the processes of the stack in this home; raise `QueueUnreachable` if they cannot be found out."""
    if importlib.util.find_spec("batchling_worker") is None:
        raise QueueUnreachable(NOT_RUNNING)
    env = {**os.environ, "BATCHLING_HOME": str(home)}
    try:
        with redis_errors.shortages_as(QueueUnreachable):
            asked = await stack_command.run("status", env=env, within_s=STATUS_S)
    except TimeoutError:
        raise QueueUnreachable(NOT_RUNNING) from None
    said = asked.err.decode("utf-8", "replace").strip()
    if asked.code != 0:
        raise QueueUnreachable(said.rpartition("\n")[2] or NOT_RUNNING)
    try:
        printed = json.loads(asked.out)
        url = printed["redis"] and str(printed["redis"]["url"])
    except (ValueError, KeyError, TypeError):
        raise QueueUnreachable(NOT_RUNNING) from None
    return Stack(redis_url=url, as_json=printed, notice=said)


async def running_url(home: Path) -> str:
    """Return the URL of the running stack's Redis; raise `QueueUnreachable` if it does not run."""
    url = (await status(home)).redis_url
    if url is None:
        raise QueueUnreachable(NOT_RUNNING)
    return url


def of_others(redis_url: str, workers: list[WorkerPresence], home: Path) -> dict[str, Any]:
    """Return the processes of a deployment that is not embedded; nothing is known of its Redis but where it is."""
    return {
        "redis": {"pid": None, "url": redis_url},
        "workers": [{"pid": one.pid, "hostname": one.name} for one in workers],
        "flower": None,
        "home": str(home),
    }
