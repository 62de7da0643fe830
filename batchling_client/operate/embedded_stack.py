"""Starts the embedded local stack, or finds it running, and returns the URL of its Redis."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Final

import msgspec

from .. import settings
from ..errors import QueueUnreachable, WrongSettings
from ..intercept import child_processes
from ..intercept.interceptor import warn_once
from ..wire.deployment import redis_errors
from ..wire.deployment.installing import install
from . import stack_command

UP_S: Final = 60.0
"""How long the stack may take to come up."""
WRONG_USAGE: Final = 2
"""The exit code of a command that no worker could be started for, as a setting is wrong."""


class _Redis(msgspec.Struct):
    url: str


class _Status(msgspec.Struct):
    redis: _Redis
    notice: str = ""


_decode: Final = msgspec.json.Decoder(_Status).decode


async def redis_url(home: Path) -> str:
    """Return the URL of the embedded stack's Redis, started if needed; raise `QueueUnreachable`, `WrongSettings`."""
    if importlib.util.find_spec("batchling_worker") is None:
        raise QueueUnreachable(
            f"No queue is set: install the embedded one with {install()}, or set BATCHLING_REDIS_URL."
        )
    try:
        with redis_errors.shortages_as(QueueUnreachable):
            command = await stack_command.run("up", env=_environment(home), within_s=UP_S)
    except TimeoutError:
        raise QueueUnreachable(
            f"The embedded stack did not come up within {UP_S:.0f} seconds: see the logs in {home}."
        ) from None
    if command.code == WRONG_USAGE:
        raise WrongSettings(_last_line(command.err))
    if command.code != 0:
        raise QueueUnreachable(
            _last_line(command.err) or "The embedded stack did not come up: try `batchling up`."
        )
    try:
        status = _decode(_last_line(command.out))
    except msgspec.DecodeError:
        raise QueueUnreachable(
            "The embedded stack did not say where its Redis is: try `batchling up`."
        ) from None
    if status.notice:
        warn_once(status.notice, os.getpid())
    return status.redis.url


def was_used(home: Path) -> bool:
    """Return whether an embedded stack has ever kept data there."""
    return (home / "redis").is_dir()


def _environment(home: Path) -> dict[str, str]:
    # The stack outlives the block that starts it, and must not repeat warnings that the block printed.
    left_out = (child_processes.VARIABLE, settings.CACHE_PATH)
    kept = {name: value for name, value in os.environ.items() if name not in left_out}
    return {**kept, "BATCHLING_HOME": str(home)}


def _last_line(output: bytes) -> str:
    lines = output.decode("utf-8", "replace").strip().splitlines()
    return lines[-1].strip() if lines else ""
