"""Holds a batch while a step works on it: the lease is extended until the step ends or another worker takes over."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence

from redis.exceptions import RedisError

from batchling_client.wire.deployment.cancellation import end
from batchling_client.wire.deployment.connection import UNREACHABLE

from ..claim import Claim
from ..errors import StaleClaim


@contextlib.asynccontextmanager
async def lease(claims: Sequence[Claim]) -> AsyncIterator[None]:
    """Extend the leases three times per lease; a lost lease ends the block with `StaleClaim`.

    While Redis is unreachable no lease is extended and no batch given up: each move checks the token itself.
    """
    step = asyncio.current_task()
    lost = False

    async def extend_all() -> None:
        nonlocal lost
        while True:
            await asyncio.sleep(claims[0].terms.lease_ms / 3000)
            for claim in claims:
                try:
                    await claim.extend()
                except StaleClaim:
                    if len(claims) > 1:
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
            raise StaleClaim(claims[0].batch_id) from None
        raise
    finally:
        try:
            await end([keeper])
        except asyncio.CancelledError:
            # Once the work is done, a lost lease interrupts nothing.
            if not lost:
                raise
