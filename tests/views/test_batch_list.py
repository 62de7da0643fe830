"""Lists of batches: each filter finds its batches and no other, pages join without a gap, damage is named."""

from __future__ import annotations

import asyncio
import secrets

import pytest

from batchling_client.views.batch_list import FAILED, OVER, UNFINISHED, BatchLists, Filter, Place, list_of
from batchling_client.views.batch_view import Status
from batchling_client.views.lane_view import lanes_of
from batchling_client.views.overview import NO_WORKER, overview_of
from batchling_client.wire.keys import BatchId
from batchling_client.wire.records.batch import UNENDED_ALLOWED
from batchling_client.wire.states import BatchState
from tests.scripts.byhand import SPEC, ByHand, ids


async def listed(
    lists: BatchLists, wanted: Filter, limit: int = 100, *, newest_first: bool = False
) -> list[BatchId]:
    page = await lists.page(wanted, limit=limit, newest_first=newest_first)
    return [one.batch_id for one in page.batches]


async def quarantined(byhand: ByHand) -> BatchId:
    batch_id = await byhand.sealed(ids(1))
    for _ in range(UNENDED_ALLOWED + 1):
        await byhand.begin(batch_id, await byhand.claimed(batch_id), nonce=secrets.token_hex(8))
    return batch_id


async def test_every_batch_is_in_one_of_the_two_halves(byhand: ByHand, lists: BatchLists) -> None:
    stuck = await quarantined(byhand)
    made: dict[BatchState, BatchId] = {}
    # The open batch comes last: a lane has one, which the next request would join.
    for state in sorted(BatchState, key=lambda one: one is BatchState.OPEN):
        made[state] = await byhand.in_state(state, ids(1))

    unfinished = await listed(lists, Filter(lists=UNFINISHED))
    over = await listed(lists, Filter(lists=OVER), newest_first=True)

    assert set(unfinished) == {stuck, *(one for state, one in made.items() if not state.terminal)}
    assert set(over) == {one for state, one in made.items() if state.terminal}
    assert over == sorted(over, reverse=True)
    for view in await lists.views([*unfinished, *over]):
        assert (await byhand.listed())[view.batch_id] == [list_of(view)]


async def test_a_filter_of_a_lane_leaves_out_the_batches_of_the_others(
    byhand: ByHand, lists: BatchLists
) -> None:
    mine = await byhand.sealed(ids(1))

    assert await listed(lists, Filter(provider=SPEC.provider, model=SPEC.model)) == [mine]
    assert await listed(lists, Filter(lane=byhand.lane_id[:6], key=SPEC.fingerprint[:4])) == [mine]
    for other in (Filter(provider="openai"), Filter(model="other"), Filter(lane="zz"), Filter(key="zz")):
        assert await listed(lists, other) == []


async def test_pages_join_without_a_gap_or_a_batch_twice(byhand: ByHand, lists: BatchLists) -> None:
    """Some of the batches have ended in the same millisecond."""
    made = [await byhand.in_state(BatchState.SETTLED, ids(1)) for _ in range(9)]
    key = byhand.keys.lane_batches(byhand.lane_id, "settled")
    for number, batch_id in enumerate(made):
        await byhand.redis.execute_command("ZADD", key, 1_000_000 + number // 4, batch_id)

    for newest_first in (False, True):
        found: list[BatchId] = []
        after = ""
        while True:
            page = await lists.page(Filter(lists=OVER), limit=2, newest_first=newest_first, after=after)
            found += [one.batch_id for one in page.batches]
            after = page.after
            if not after:
                break
        assert found == sorted(made, reverse=newest_first)
        assert page.n_all == 9


async def test_a_status_is_searched_for_through_all_pages(byhand: ByHand, lists: BatchLists) -> None:
    for _ in range(5):
        await byhand.sealed(ids(1))
    held = await byhand.sealed(ids(1))
    token = await byhand.claimed(held)
    await byhand.scripts.hold(batch_id=held, token=token, delay_s=0, why="the quota is full")

    page = await lists.page(Filter(statuses=frozenset({Status.WAITING})), limit=1)

    assert [one.batch_id for one in page.batches] == [held]


def test_a_place_that_nobody_wrote_is_refused() -> None:
    for text in ("", "x", "-1-b", "12345678901234567-b"):
        with pytest.raises(ValueError, match=text or None):
            Place.parse(text)
    assert Place.parse(str(Place(12, BatchId("b-1")))) == Place(12, BatchId("b-1"))


async def test_a_damaged_lane_and_a_damaged_batch_hide_no_other(byhand: ByHand, lists: BatchLists) -> None:
    whole, broken = await byhand.sealed(ids(1)), await byhand.sealed(ids(1))
    await byhand.redis.execute_command("HSET", byhand.keys.batch(broken), "n_requests", "many")
    await byhand.redis.execute_command("HSET", byhand.keys.lane(byhand.lane_id), "spec", b"\xff")

    assert await listed(lists, Filter(lists=UNFINISHED)) == [whole]
    assert any(broken in sentence for sentence in lists.inspection.unreadable)
    assert await listed(lists, Filter(provider=SPEC.provider)) == []


async def test_the_overview_tells_apart_what_needs_you_what_waits_and_what_runs(
    byhand: ByHand, lists: BatchLists
) -> None:
    stuck = await quarantined(byhand)
    running = await byhand.at_provider(ids(3))
    for n in range(2):
        held = await byhand.sealed(ids(2))
        token = await byhand.claimed(held)
        await byhand.scripts.hold(batch_id=held, token=token, delay_s=5, why=f"{n} batches are before it")
    await byhand.in_state(BatchState.FAILED, ids(1))

    seen = await overview_of(lists, namespace="t", redis_at="here")

    assert [(one.status, one.oldest_batch_id) for one in seen.needs_you] == [(Status.QUARANTINED, stuck)]
    assert seen.needs_you[0].commands == (f"batchling retry {stuck}", f"batchling cancel {stuck}")
    assert [(one.n_batches, one.n_waiting) for one in seen.waits] == [(2, 4)]
    assert [(one.status, one.n_requests, one.oldest_batch_id) for one in seen.running] == [
        (Status.RUNNING, 3, running)
    ]
    assert (seen.n_waiting, seen.n_unfinished, seen.n_over, seen.n_over_with_failures) == (8, 4, 1, 1)
    assert seen.troubles == (NO_WORKER,)
    assert not seen.is_healthy


async def test_an_idle_deployment_is_healthy_without_a_worker(lists: BatchLists) -> None:
    seen = await overview_of(lists, namespace="t", redis_at="here")

    assert (seen.n_waiting, seen.oldest_at, seen.troubles) == (0, None, ())
    assert seen.is_healthy


async def test_a_lane_counts_the_requests_of_its_sealed_and_held_batches(
    byhand: ByHand, lists: BatchLists
) -> None:
    await byhand.at_provider(ids(3))
    held = await byhand.sealed(ids(2))
    token = await byhand.claimed(held)
    await byhand.scripts.hold(batch_id=held, token=token, delay_s=5, why="the quota is full")
    await byhand.opened(ids(1))

    [lane] = await lanes_of(lists, 10)

    assert (lane.queue.n_open, lane.queue.n_sealed, lane.queue.n_running) == (1, 2, 3)
    assert (lane.queue.n_waiting, lane.queue.why) == (3, "the quota is full")
    assert lane.as_json()["n_waiting"] == 3


async def test_lists_of_a_busy_deployment_are_read_while_they_change(
    byhand: ByHand, lists: BatchLists
) -> None:
    async def work() -> None:
        for _ in range(10):
            await byhand.in_state(BatchState.SETTLED, ids(1))

    working = asyncio.create_task(work())
    while not working.done():
        page = await lists.page(Filter(), limit=50)
        assert len({one.batch_id for one in page.batches}) == len(page.batches)
    await working
    assert len(await listed(lists, Filter(lists=OVER))) == 10
    assert await listed(lists, Filter(lists=FAILED)) == []
