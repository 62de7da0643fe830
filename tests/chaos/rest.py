"""After the faults: clients end their rounds, and held batches get the retry or cancel that their errors ask for."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final

from batchling_client.operate import steering
from batchling_client.views.inspection import Inspection
from batchling_client.wire.deployment.cancellation import end
from batchling_client.wire.deployment.connection import UNREACHABLE
from batchling_client.wire.keys import BatchId
from batchling_client.wire.records.batch import Batch
from batchling_client.wire.scripts import Scripts
from batchling_client.wire.states import BatchState
from tests.waiting import wait_until

from .evidence import batches_of
from .world import World

CALM_S: Final = 360.0
"""Seconds; longer than the longest pause after stumbles, five minutes."""
STEER_EVERY_S: Final = 1.0


@dataclass(slots=True)
class Rest:
    """Brings a world to rest, and records which batches needed an operator."""

    world: World
    broken: list[str] = field(default_factory=list)
    """Batches and clients that did not come to rest in time."""
    retried: dict[BatchId, dt.datetime] = field(default_factory=dict)
    """Held batches that were retried -> since when they were held."""
    given_up: list[BatchId] = field(default_factory=list)
    """Batches held again after their retry: their files stay broken without faults, too."""

    async def come(self) -> None:
        """Let every client end its round and every batch settle; the checker reports those that do not."""
        (self.world.home / "stop").touch()
        person = asyncio.create_task(self._see_to_held())
        waits: dict[str, Callable[[], Awaitable[bool] | bool]] = {
            "the clients end": lambda: all(slot.finished for slot in self.world.clients),
            "every batch settles": self._settled,
        }
        for description, condition in waits.items():
            try:
                await wait_until(condition, description=description, within_s=CALM_S)
            except AssertionError as error:
                self.broken.append(str(error))
        await end([person])
        with contextlib.suppress(FileNotFoundError):
            (self.world.home / "stop").unlink()

    async def _settled(self) -> bool:
        try:
            return all(batch.state.terminal for batch in await batches_of(self.world))
        except UNREACHABLE:
            return False

    async def _see_to_held(self) -> None:
        """Run `batchling retry` on each held batch, and `batchling cancel` on each batch that is held again."""
        world = self.world
        inspection, scripts = Inspection(world.redis, world.keys), Scripts(world.redis, world.keys)
        while True:
            with contextlib.suppress(*UNREACHABLE):
                for batch in await batches_of(world):
                    await self._see_to(batch, inspection, scripts)
            await asyncio.sleep(STEER_EVERY_S)

    async def _see_to(self, batch: Batch, inspection: Inspection, scripts: Scripts) -> None:
        batch_id, since = batch.batch_id, batch.held_since
        if batch.state is not BatchState.ENDED or since is None or since == self.retried.get(batch_id):
            return
        if batch_id not in self.retried:
            if (await steering.retry(inspection, scripts, batch_id)).batch_ids:
                self.retried[batch_id] = since
        elif (await steering.cancel(scripts, batch)).batch_ids:
            self.given_up.append(batch_id)
