"""Begin: a step starts once for each claim, and only in its states."""

from __future__ import annotations

import asyncio
import hashlib

import pytest

from batchling_client.wire import stubs
from batchling_client.wire.deployment.connection import connect
from batchling_client.wire.records.batch import UNENDED_ALLOWED, Batch
from batchling_client.wire.states import BatchState
from batchling_worker.app import RESENDS
from tests.proxy import How, Proxy, Rule, Way

from .byhand import ByHand, ids


async def test_doubled_begin_is_stale(byhand: ByHand) -> None:
    batch_id = await byhand.sealed(ids(1))
    token = await byhand.claimed(batch_id)

    began = await asyncio.gather(*(byhand.begin(batch_id, token) for _ in range(10)))

    assert [one is not None for one in began].count(True) == 1


@pytest.mark.parametrize("n_unended", range(UNENDED_ALLOWED))
async def test_a_begin_whose_reply_is_lost_is_answered_when_sent_again(
    byhand: ByHand, redis_url: str, n_unended: int
) -> None:
    """Were it stale, a worker that lives would count as dead, and the third of them in a row as poisoned."""
    batch_id = await byhand.sealed(ids(1))
    for _ in range(n_unended):
        await byhand.begin(batch_id, await byhand.claimed(batch_id))
    token = await byhand.claimed(batch_id)

    await byhand.redis.execute_command("SCRIPT LOAD", stubs.source("begin"))
    with Proxy(redis_url) as way:
        call = hashlib.sha1(stubs.source("begin").encode()).hexdigest().encode()
        torn = way.add(Rule(how=How.RST, way=Way.DOWN, after=call))
        far = ByHand(connect(way.url, n_resends=RESENDS), byhand.keys)
        began = await far.begin(batch_id, token)
        await far.redis.aclose()

    assert torn.spent
    assert began is not None
    assert (await byhand.batch(batch_id)).n_unended == n_unended + 1
    assert await byhand.begin(batch_id, token) is None, "a doubled message began it as well"


async def test_a_begin_that_is_sent_again_after_its_claim_was_lost_is_stale(byhand: ByHand) -> None:
    batch_id = await byhand.sealed(ids(1))
    token = await byhand.claimed(batch_id)
    await byhand.begin(batch_id, token, nonce="n")
    await byhand.claimed(batch_id)
    before = await byhand.everything()

    assert await byhand.begin(batch_id, token, nonce="n") is None
    assert await byhand.everything() == before


async def test_a_late_message_cannot_begin_after_a_newer_claim(byhand: ByHand) -> None:
    batch_id = await byhand.sealed(ids(1))
    old = await byhand.claimed(batch_id)
    new = await byhand.claimed(batch_id)
    assert await byhand.begin(batch_id, old) is None
    assert await byhand.begin(batch_id, new) is not None


async def test_begin_tells_the_whole_batch(byhand: ByHand) -> None:
    batch_id = await byhand.at_provider(ids(2))
    fields = await byhand.begin(batch_id, await byhand.claimed(batch_id), BatchState.SUBMITTED)
    assert fields is not None
    batch = Batch.decode(fields)
    assert (batch.batch_id, batch.state, batch.n_requests) == (batch_id, BatchState.SUBMITTED, 2)
    assert (batch.provider_batch_id, batch.label, batch.spec.model) == ("pb", "label", "m")


@pytest.mark.parametrize("state", [state for state in BatchState if not state.terminal])
async def test_a_step_does_not_start_in_a_state_that_is_not_its_own(
    byhand: ByHand, state: BatchState
) -> None:
    batch_id = await byhand.in_state(state, ids(1))
    token = await byhand.claimed(batch_id)
    others = [other for other in BatchState if other is not state]
    before = await byhand.everything()

    assert await byhand.begin(batch_id, token, *others) is None
    assert await byhand.everything() == before

    assert await byhand.begin(batch_id, token, state) is not None


async def test_a_step_that_keeps_dying_is_counted(byhand: ByHand) -> None:
    batch_id = await byhand.sealed(ids(1))
    for _ in range(3):
        await byhand.begin(batch_id, await byhand.claimed(batch_id))
    assert (await byhand.batch(batch_id)).n_unended == 3

    token = await byhand.claimed(batch_id)
    await byhand.scripts.release(batch_id=batch_id, token=token, delay_s=0)
    assert (await byhand.batch(batch_id)).n_unended == 0
