"""Listens to everything published in Redis: messages are in no file, and must not hold a key either."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from batchling_client.wire.deployment.connection import UNREACHABLE, connect

PAUSE_S: Final = 0.1


@dataclass(slots=True)
class Wiretap:
    """The messages heard so far."""

    url: str
    secrets: Sequence[str]
    n_messages: int = 0
    leaks: list[str] = field(default_factory=list)

    async def listen(self) -> None:
        """Listen until cancelled, over every restart of Redis."""
        redis = connect(self.url)
        wanted = [secret.encode() for secret in self.secrets]
        try:
            while True:
                pubsub: Any = redis.pubsub()
                with contextlib.suppress(*UNREACHABLE):
                    await pubsub.psubscribe("*")
                    while True:
                        message = await pubsub.get_message(ignore_subscribe_messages=True, timeout=1.0)
                        if message is not None:
                            self._hear(message, wanted)
                with contextlib.suppress(*UNREACHABLE):
                    await pubsub.aclose()
                await asyncio.sleep(PAUSE_S)
        finally:
            await redis.aclose()

    def _hear(self, message: Any, wanted: Sequence[bytes]) -> None:
        self.n_messages += 1
        said = message["channel"] + message["data"]
        if any(secret in said for secret in wanted):
            self.leaks.append(f"a key was published on {message['channel'].decode(errors='replace')}")
