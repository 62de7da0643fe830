"""A power cut: Redis is killed and loses all data that is not on disk yet."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from redis.exceptions import RedisError

from batchling_client.wire.deployment.connection import UNREACHABLE, connect

LOOK_EVERY_S: Final = 0.02
WAIT_MS: Final = 5_000


@dataclass(slots=True)
class Disk:
    """How much of Redis' append-only file is known to be on the disk."""

    url: str
    folder: Path
    safe: dict[Path, int] = field(default_factory=dict)
    """File -> bytes that survive a power cut."""
    n_lost_bytes: int = 0

    async def watch(self) -> None:
        """Track the safe bytes until cancelled; Redis before 7.2 does not report them."""
        redis = connect(self.url)
        try:
            while True:
                try:
                    written = self._written()
                    reply: Any = await redis.execute_command("WAITAOF", 1, 0, WAIT_MS)
                    if int(reply[0]) >= 1:
                        self.safe.update(written)
                except (*UNREACHABLE, RedisError):
                    pass
                await asyncio.sleep(LOOK_EVERY_S)
        finally:
            await redis.aclose()

    def cut(self) -> int:
        """Cut the unsafe bytes from the files of a dead Redis; return how many."""
        lost = 0
        for path, size in self._written().items():
            safe = min(size, self.safe.get(path, size))
            lost += size - safe
            os.truncate(path, safe)
        self.n_lost_bytes += lost
        return lost

    def _written(self) -> dict[Path, int]:
        return {path: path.stat().st_size for path in self.folder.rglob("*.incr.aof")}
