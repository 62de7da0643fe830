"""Own: one batch at a time owns the id that its provider showed, however many workers ask at the same moment."""

from __future__ import annotations

import asyncio

import pytest

from batchling_client.wire.deployment.connection import connect
from batchling_client.wire.keys import BatchId, ProviderBatchId
from batchling_client.wire.states import BatchState
from batchling_worker.claim import Claim
from batchling_worker.store import Store

from .byhand import TERMS, ByHand, ids

ACCOUNT = "account"
SHOWN = ProviderBatchId("batch_1")


async def claims(byhand: ByHand, n: int) -> list[Claim]:
    """Claims of several batches that are being submitted."""
    store = Store(redis=byhand.redis, keys=byhand.keys, terms=TERMS)
    return [store.claim(*await byhand.in_submission(ids(1))) for _ in range(n)]


async def test_another_batch_owns_no_id_that_a_living_batch_owns(byhand: ByHand) -> None:
    first, second = await claims(byhand, 2)

    for _ in range(2):
        assert await first.own(SHOWN, ACCOUNT) is None
        assert await second.own(SHOWN, ACCOUNT) == first.batch_id
    assert await second.own(SHOWN, "another account") is None
    assert await second.own(ProviderBatchId("batch_2"), ACCOUNT) is None


@pytest.mark.parametrize("over", [*(state for state in BatchState if state.terminal), None])
async def test_of_several_workers_one_takes_an_id_over_from_a_batch_that_is_over(
    byhand: ByHand, redis_url: str, over: BatchState | None
) -> None:
    store = Store(redis=byhand.redis, keys=byhand.keys, terms=TERMS)
    old = BatchId("b-gone") if over is None else await byhand.in_state(over, ids(1))
    assert await store.claim(old, 0).own(SHOWN, ACCOUNT) is None
    rivals = await claims(byhand, 5)
    connections = [connect(redis_url) for _ in rivals]
    try:
        stores = [Store(redis=one, keys=byhand.keys, terms=TERMS) for one in connections]
        owners = await asyncio.gather(
            *(
                there.claim(rival.batch_id, rival.token).own(SHOWN, ACCOUNT)
                for there, rival in zip(stores, rivals, strict=True)
            )
        )
    finally:
        for one in connections:
            await one.aclose()

    [winner] = [rival.batch_id for rival, owner in zip(rivals, owners, strict=True) if owner is None]
    assert {owner for owner in owners if owner is not None} == {winner}


async def test_a_damaged_owner_is_replaced(byhand: ByHand) -> None:
    [claim] = await claims(byhand, 1)
    assert await claim.own(SHOWN, ACCOUNT) is None
    [key] = [key async for key in byhand.redis.scan_iter(match=byhand.keys.owner("*"))]
    for value in (b"\xff|", b"", b"b-none"):
        await byhand.redis.set(key, value, px=60_000)
        assert await claim.own(SHOWN, ACCOUNT) is None
        assert await byhand.redis.get(key) == claim.batch_id.encode()
    await byhand.redis.delete(key)
    await byhand.redis.rpush(key, "x")
    assert await claim.own(SHOWN, ACCOUNT) is None
