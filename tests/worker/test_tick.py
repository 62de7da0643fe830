"""One tick: what it sends to the pool, what it runs in its own process, and when the next is due."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import cast

import pytest

from batchling_client.wire.deployment.connection import connect
from batchling_client.wire.keys import Keys
from batchling_client.wire.scripts import DueBatch
from batchling_client.wire.states import BatchState
from batchling_worker.runtime.dispatch import Dispatch
from batchling_worker.runtime.tick import Tick
from batchling_worker.store import Store
from batchling_worker.telemetry import Telemetry
from tests.redis_server import redis_server
from tests.scripts.byhand import TERMS, ByHand, ids


class Sent:
    """Takes what a tick dispatches; `broken` = the broker takes no message."""

    def __init__(self, *, broken: bool = False) -> None:
        self.to_pool: list[str] = []
        self.here: list[str] = []
        self._broken = broken

    def send(self, claims: Sequence[DueBatch], version: int) -> None:
        if self._broken and claims:
            raise ConnectionError
        self.to_pool += [claim.batch_id for claim in claims]

    def inline(self, claims: Sequence[DueBatch], version: int) -> None:
        self.here += [claim.batch_id for claim in claims]

    def delete_files(self, members: Sequence[str], version: int) -> None:
        raise AssertionError


@pytest.fixture
async def byhand() -> AsyncIterator[ByHand]:
    with redis_server() as url:
        redis = connect(url)
        yield ByHand(redis, Keys("ticking"))
        await redis.aclose()


def tick_of(byhand: ByHand, sent: Sent) -> Tick:
    store = Store(redis=byhand.redis, keys=byhand.keys, terms=TERMS)
    return Tick(store, cast("Dispatch", sent), Telemetry(), older=False)


async def test_after_two_messages_that_nobody_began_the_step_runs_here(byhand: ByHand) -> None:
    sent = Sent()
    tick = tick_of(byhand, sent)
    batch_id = await byhand.sealed(ids(1))
    for _ in range(4):
        await byhand.due(batch_id)
        assert await tick.once() == (1, False)

    assert (sent.to_pool, sent.here) == ([batch_id] * 2, [batch_id] * 2)


async def test_steps_that_the_broker_does_not_take_run_here(byhand: ByHand) -> None:
    sent = Sent(broken=True)
    batch_id = await byhand.sealed(ids(1))
    await byhand.due(batch_id)

    assert await tick_of(byhand, sent).once() == (1, False)

    assert (sent.to_pool, sent.here) == ([], [batch_id])


async def test_a_ripe_batch_is_sealed_and_the_next_tick_is_due_at_once(byhand: ByHand) -> None:
    sent = Sent()
    tick = tick_of(byhand, sent)
    batch_id = await byhand.opened(ids(1))
    await byhand.due(batch_id)

    assert await tick.run()
    assert (await byhand.batch(batch_id)).state is BatchState.SEALED
    assert not await tick.run()
    assert (sent.to_pool, sent.here) == ([batch_id], [])
