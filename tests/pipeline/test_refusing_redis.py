"""A Redis that refuses writes in the middle of a step, as without replicas or with a full disk, blames no batch."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from redis import Redis

from tests.deployment import Deployment
from tests.waiting import wait_until

from .hand import Hand


@pytest.fixture
def master(deployment: Deployment) -> Iterator[Redis]:
    with Redis.from_url(deployment.url) as client:
        yield client
        client.config_set("min-replicas-to-write", 0)


async def test_a_step_that_can_neither_go_on_nor_be_handed_back_is_not_held_against_its_batch(
    deployment: Deployment, master: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    await deployment.ask(2)
    [batch] = await deployment.batches()

    def lose_the_replicas(point: str, _: object) -> None:
        if point == "submit.intended":
            master.config_set("min-replicas-to-write", 1)

    async with Hand(deployment) as hand:
        await hand.step(batch.batch_id)
        monkeypatch.setattr(hand.engine, "_reach", lose_the_replicas)
        await hand.engine.submit(await hand.claim(batch.batch_id))
        assert (await hand.batch(batch.batch_id)).n_unended == 1

        master.config_set("min-replicas-to-write", 0)

        async def taken_back() -> bool:
            return (await hand.batch(batch.batch_id)).n_unended == 0

        await wait_until(taken_back, description="the step is reported as survived")
