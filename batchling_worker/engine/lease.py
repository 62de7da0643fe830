"""Holds a batch while a step works on it: the lease is extended until the step ends or another worker takes over."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence

from redis.exceptions import RedisError

from batchling_client.wire.deployment.cancellation import end
from batchling_client.wire.deployment.connection import UNREACHABLE

from ..errors import StaleClaim
from ..store import Held, Store


@contextlib.asynccontextmanager
async def lease(store: Store, helds: Sequence[Held]) -> AsyncIterator[None]:
    """Extend the leases three times per lease; a lost lease ends the block with `StaleClaim`.

    While Redis is unreachable no lease is extended and no batch given up: each move checks the token itself.
    """
    step = asyncio.current_task()
    lost = False

    async def extend_all() -> None:
        nonlocal lost
        while True:
            await asyncio.sleep(store.lease_ms / 3000)
            for held in helds:
                try:
                    await store.extend(held)
                except StaleClaim:
                    if len(helds) > 1:
                        # One of many polls is done; the others continue.
                        continue
                    lost = True
                    if step is not None:
                        step.cancel()
                    return
                except (*UNREACHABLE, RedisError):
                    break

    keeper = asyncio.create_task(extend_all())
    try:
        yield
    except asyncio.CancelledError:
        if lost:
            raise StaleClaim(helds[0].batch_id) from None
        raise
    finally:
        try:
            await end([keeper])
        except asyncio.CancelledError:
            # Once the work is done, a lost lease interrupts nothing.
            if not lost:
                raise
