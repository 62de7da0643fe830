"""Enter, trip, park and leave: an account that fails is left alone by every worker, and tried by one at a time."""

from __future__ import annotations

import asyncio

import pytest

from batchling_client.wire.account_scripts import AccountScripts, Entry, Pause
from batchling_client.wire.states import Verdict

from .byhand import ByHand

ACCOUNT, LANE, OTHER = "a1", "l1", "l2"


@pytest.fixture
def scripts(byhand: ByHand) -> AccountScripts:
    return AccountScripts(byhand.redis, byhand.keys)


async def enter(scripts: AccountScripts, *circuits: str) -> Entry:
    return await scripts.enter(circuits=circuits or (ACCOUNT, LANE), trial_ms=60_000, longest_ms=5_000)


async def trip(scripts: AccountScripts, *, after: int = 3, draw: float = 1.0, wish_ms: int = 0) -> int:
    pause = Pause(first_ms=10_000, longest_ms=60_000, shortest_ms=100, draw=draw, wish_ms=wish_ms)
    return await scripts.trip(
        circuit=ACCOUNT, opens_after=after, pause=pause, why="it answered 503", forget_ms=60_000
    )


async def time_passes(byhand: ByHand) -> None:
    """Whatever is open may be tried."""
    await byhand.redis.hset(byhand.keys.circuit(ACCOUNT), "until", "1")


async def test_an_account_that_nothing_is_known_of_is_called_freely(
    byhand: ByHand, scripts: AccountScripts
) -> None:
    for _ in range(3):
        assert await enter(scripts) == Entry(verdict=Verdict.OK)
    assert await byhand.everything() == {}


async def test_failures_in_a_row_open_the_circuit_and_a_success_starts_the_count_anew(
    scripts: AccountScripts,
) -> None:
    assert [await trip(scripts), await trip(scripts)] == [0, 0]
    assert await enter(scripts) == Entry(verdict=Verdict.OK, told=True)
    await scripts.leave(circuits=[ACCOUNT], answered=True)
    assert [await trip(scripts), await trip(scripts)] == [0, 0]
    assert await trip(scripts) == 10_000
    refused = await enter(scripts)
    assert (refused.verdict, refused.why) == (Verdict.OPEN, "it answered 503")
    assert 9_000 < refused.wait_ms <= 10_000


async def test_one_trial_at_a_time_goes_through_and_its_success_closes(
    byhand: ByHand, scripts: AccountScripts
) -> None:
    await trip(scripts, after=1)
    await time_passes(byhand)

    entries = await asyncio.gather(*(enter(scripts) for _ in range(20)))

    assert sum(entry.verdict is Verdict.OK for entry in entries) == 1
    assert {entry.wait_ms for entry in entries if entry.verdict is Verdict.OPEN} == {2_500}
    await scripts.leave(circuits=[ACCOUNT], answered=True)
    assert await enter(scripts) == Entry(verdict=Verdict.OK)


async def test_a_trial_that_fails_opens_it_for_longer_up_to_a_bound(
    byhand: ByHand, scripts: AccountScripts
) -> None:
    pauses = [await trip(scripts, after=1)]
    for _ in range(5):
        await time_passes(byhand)
        assert (await enter(scripts)).verdict is Verdict.OK
        pauses.append(await trip(scripts))
    assert pauses == [10_000, 20_000, 40_000, 60_000, 60_000, 60_000]


async def test_the_pause_is_drawn_from_the_whole_range_and_never_below_the_providers_wish(
    byhand: ByHand, scripts: AccountScripts
) -> None:
    assert await trip(scripts, after=1, draw=0.0) == 100
    await time_passes(byhand)
    assert await trip(scripts, draw=0.5) == 10_000
    await time_passes(byhand)
    assert await trip(scripts, draw=0.0, wish_ms=90_000) == 90_000


async def test_calls_that_were_under_way_when_it_opened_make_it_no_longer(scripts: AccountScripts) -> None:
    await trip(scripts, after=1)
    for _ in range(10):
        assert await trip(scripts) <= 10_000
    assert 19_000 < await trip(scripts, wish_ms=20_000) <= 20_000


async def test_a_trial_that_made_no_call_lets_another_in(byhand: ByHand, scripts: AccountScripts) -> None:
    await trip(scripts, after=1)
    await time_passes(byhand)
    assert (await enter(scripts)).verdict is Verdict.OK
    assert (await enter(scripts)).verdict is Verdict.OPEN
    await scripts.leave(circuits=[ACCOUNT], answered=False)
    assert (await enter(scripts)).told


async def test_a_trial_whose_worker_died_is_not_waited_for_for_ever(
    byhand: ByHand, scripts: AccountScripts
) -> None:
    await trip(scripts, after=1)
    await time_passes(byhand)
    assert (await enter(scripts)).verdict is Verdict.OK
    await byhand.redis.hset(byhand.keys.circuit(ACCOUNT), "trial_until", "1")
    assert (await enter(scripts)).verdict is Verdict.OK


async def test_a_refused_key_is_reported_to_all_who_ask_until_it_is_tried(
    byhand: ByHand, scripts: AccountScripts
) -> None:
    for _ in range(2):
        await scripts.park(
            circuit=ACCOUNT, pause_ms=15_000, status=401, body=b"{}", why="bad key", forget_ms=60_000
        )
    told = await enter(scripts)
    assert (told.verdict, told.status, told.body, told.why, told.n_refused) == (
        Verdict.PARKED,
        401,
        b"{}",
        "bad key",
        2,
    )
    await time_passes(byhand)
    assert (await enter(scripts)).verdict is Verdict.OK
    assert (await enter(scripts)).verdict is Verdict.OPEN, "what the trial shows is waited for"


async def test_a_lane_is_parked_beside_its_account(scripts: AccountScripts) -> None:
    await scripts.park(circuit=LANE, pause_ms=15_000, status=403, body=b"", why="no right", forget_ms=60_000)
    assert (await enter(scripts, ACCOUNT, LANE)).verdict is Verdict.PARKED
    assert (await enter(scripts, ACCOUNT, OTHER)).verdict is Verdict.OK
    assert (await enter(scripts, ACCOUNT)).verdict is Verdict.OK
