"""A batch that waits is logged once for each reason and then once an hour, whichever worker looks at it."""

from __future__ import annotations

import dataclasses
import datetime as dt

from batchling_client.wire.ids import new_batch_id
from batchling_client.wire.records.batch import Batch
from batchling_client.wire.states import BatchState
from batchling_worker.claim import Terms
from batchling_worker.decisions import held
from batchling_worker.provider import Ending
from batchling_worker.store import Store

from .byhand import ByHand, ids

TERMS = Terms(lease_ms=60_000, result_ttl_ms=60_000, max_attempts=3)


async def test_a_reason_is_news_once_for_all_workers_together(byhand: ByHand) -> None:
    batch_id = await byhand.sealed(ids(2))
    news: list[tuple[str, bool]] = []
    batch: Batch | None = None
    for n in range(12):
        # Each look has a store of its own, as another worker's has.
        claim = Store(byhand.redis, byhand.keys, TERMS).claim(batch_id, await byhand.claimed(batch_id))
        _, batch = await claim.begin([BatchState.SEALED])
        assert batch is not None
        assert batch.read_at is not None
        cause = ("busy", "quota", "busy")[n // 4]
        why = f"held for {n} s: {cause}, see req_{n}" + " and more words" * 20
        news.append((cause, held.is_news(batch, why, batch.read_at)))
        await claim.hold(0.0, why)

    assert news == [(cause, n == 0) for cause in ("busy", "quota", "busy") for n in range(4)]
    assert batch is not None
    now = batch.updated_at
    assert not held.is_news(batch, why, now + dt.timedelta(minutes=59))
    assert held.is_news(batch, why, now + dt.timedelta(minutes=61))
    held_again = dataclasses.replace(batch, updated_at=now + dt.timedelta(minutes=61))
    assert not held.is_news(held_again, why, now + dt.timedelta(minutes=62))
    assert held.is_news(held_again, why, now + dt.timedelta(minutes=121))


async def test_results_that_cannot_be_read_are_news_once_for_all_workers_together(byhand: ByHand) -> None:
    batch_id = await byhand.in_state(BatchState.ENDED, ids(2))
    news = []
    for n in range(3):
        claim = Store(byhand.redis, byhand.keys, TERMS).claim(batch_id, await byhand.claimed(batch_id))
        _, batch = await claim.begin([BatchState.ENDED])
        assert batch is not None
        assert batch.read_at is not None
        why = f"the file cannot be read ({n} of 3 rows)"
        news.append(held.is_news(batch, why, batch.read_at))
        await claim.unread(0.0, Ending(), why, held_back=True)

    assert news == [True, False, False]


async def test_a_wait_that_redis_does_not_tell_of_is_news_once_an_hour_for_each_batch_and_reason(
    byhand: ByHand,
) -> None:
    one = await byhand.batch(await byhand.sealed(ids(1)))
    other = dataclasses.replace(one, batch_id=new_batch_id())
    logged, now = held.Repeats(), dt.datetime.now(dt.UTC)

    seen = [
        logged.is_news(batch, why, now + dt.timedelta(minutes=minutes))
        for batch, why, minutes in (
            (one, "searching for 1 s", 0),
            (one, "searching for 2 s", 1),
            (other, "searching for 2 s", 2),
            (one, "not collected", 3),
            (one, "searching for 9 s", 59),
            (one, "searching for 9 s", 61),
            (one, "searching for 9 s", 62),
        )
    ]
    assert seen == [True, False, True, True, False, True, False]
