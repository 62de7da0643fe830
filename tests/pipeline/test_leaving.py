"""A cancelled step ends, although redis-py may lose a cancellation that reaches it as it sends."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from batchling_client.wire.states import BatchState
from batchling_worker.claim import Claim
from batchling_worker.engine.lease import lease
from tests.deployment import Deployment

from .hand import Hand

LONG_S = 3600.0


def forgetful(entered: asyncio.Event) -> Callable[..., Awaitable[Any]]:
    """Takes long, and forgets the first cancellation, as `asyncio.wait_for` of Python 3.11 may."""

    async def taking_long(*_: object, **__: object) -> None:
        entered.set()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(LONG_S)
        await asyncio.sleep(LONG_S)

    return taking_long


async def held_by(hand: Hand, deployment: Deployment, state: BatchState) -> Claim:
    await deployment.ask(1)
    [batch] = await deployment.batches()
    await hand.bring(batch.batch_id, state)
    return await hand.claim(batch.batch_id)


@pytest.mark.parametrize("state", [BatchState.SEALED, BatchState.SUBMITTED, BatchState.ENDED])
async def test_a_step_that_forgets_its_cancellation_hands_its_batch_back_all_the_same(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch, state: BatchState
) -> None:
    async with Hand(deployment) as hand:
        claim, begun = await held_by(hand, deployment, state), asyncio.Event()
        monkeypatch.setattr(Claim, "begin", forgetful(begun))
        work = {
            BatchState.SEALED: lambda: hand.engine.submit(claim),
            BatchState.SUBMITTED: lambda: hand.engine.poll([claim]),
            BatchState.ENDED: lambda: hand.engine.collect(claim),
        }
        step = asyncio.ensure_future(work[state]())
        await asyncio.wait_for(begun.wait(), 10)
        assert not await deployment.is_due(claim.batch_id)

        step.cancel()
        await asyncio.wait({step}, timeout=10)

        assert step.cancelled()
        assert await deployment.is_due(claim.batch_id)


async def test_work_under_a_lease_ends_though_its_keeper_forgets_to(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Hand(deployment) as hand:
        claim, extending = await held_by(hand, deployment, BatchState.SUBMITTED), asyncio.Event()
        claim = dataclasses.replace(claim, terms=dataclasses.replace(claim.terms, lease_ms=30))
        monkeypatch.setattr(Claim, "extend", forgetful(extending))

        async def work() -> None:
            async with lease([claim, claim]):
                await extending.wait()

        done, _ = await asyncio.wait({asyncio.ensure_future(work())}, timeout=10)
        assert done, "the keeper is waited for, and it waits for ever"
