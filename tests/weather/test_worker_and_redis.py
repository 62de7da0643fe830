"""Between workers and Redis, as store and as broker: answered once, billed once, and no worker hangs."""

from __future__ import annotations

import asyncio
import hashlib
import signal
from collections.abc import AsyncIterator, Sequence

import pytest

from batchling_client.wire import stubs
from batchling_client.wire.keys import RequestId
from tests.deployment import Deployment
from tests.proxy import How, Proxy, Rule, Way
from tests.waiting import wait_until

from .conftest import QUICK

pytestmark = pytest.mark.timeout(180)

STEPS: tuple[str, ...] = (
    *("seal", "claim", "begin", "intend", "uploaded", "arm", "submitted"),
    *("progress", "ended", "deliver", "collected", "settle", "extend"),
)


def call_of(script: str) -> bytes:
    """Return bytes that are only in the calls of this script."""
    return hashlib.sha1(stubs.source(script).encode()).hexdigest().encode()


@pytest.fixture
async def way(deployment: Deployment) -> AsyncIterator[Proxy]:
    """Run a proxy between workers and Redis; the test itself connects directly."""
    for script in STEPS:
        await deployment.redis.execute_command("SCRIPT LOAD", stubs.source(script))
    with Proxy(deployment.url) as proxy:
        deployment.env["BATCHLING_REDIS_URL"] = proxy.url + QUICK
        deployment.env["BATCHLING_LEASE_SECONDS"] = "2"
        yield proxy


async def answered_and_billed_once(deployment: Deployment, ids: Sequence[RequestId]) -> None:
    results = await deployment.answered(ids, within_s=90)
    assert {result.status for result in results} == {200}
    await deployment.settled()
    assert deployment.billed() == dict.fromkeys(ids, 1)


@pytest.mark.parametrize("how", [How.RST, How.SILENCE])
async def test_every_script_torn_at_once_is_answered_once_and_billed_once(
    deployment: Deployment, way: Proxy, how: How
) -> None:
    torn = [way.add(Rule(how=how, way=Way.DOWN, after=call_of(step))) for step in STEPS]
    torn += [way.add(Rule(how=how, way=Way.UP, at=20, after=call_of(step))) for step in STEPS]
    deployment.worker()
    # The last batch is not full, so the tick seals it; the enqueues that fill the others seal those.
    ids = await deployment.ask(190, rows=40)

    await answered_and_billed_once(deployment, ids)

    left = {one.rule.after for one in torn if not one.spent}
    assert left <= {call_of("extend"), call_of("progress")}


@pytest.mark.weather
@pytest.mark.parametrize("how", [How.RST, How.FIN, How.SILENCE])
@pytest.mark.parametrize("way_torn", Way)
@pytest.mark.parametrize("step", STEPS)
async def test_each_script_torn_alone_is_answered_once_and_billed_once(
    deployment: Deployment, way: Proxy, step: str, way_torn: Way, how: How
) -> None:
    at = 20 if way_torn is Way.UP else 0
    way.add(Rule(how=how, way=way_torn, at=at, after=call_of(step), times=2))
    deployment.worker()
    await answered_and_billed_once(deployment, await deployment.ask(40, rows=20))


@pytest.mark.parametrize("step", ["arm", "submitted"])
async def test_a_worker_cut_off_for_longer_than_its_lease_around_the_create_pays_once(
    deployment: Deployment, way: Proxy, step: str
) -> None:
    deployment.env["BATCHLING_LEASE_SECONDS"] = "1"
    silent = way.add(Rule(how=How.SILENCE, way=Way.UP, after=call_of(step)))
    deployment.worker()
    ids = await deployment.ask(40)
    await wait_until(lambda: silent.n_struck == 1, description=f"{step} is on its way", within_s=40)
    way.silence()
    deployment.worker(redis_url=deployment.url)

    await answered_and_billed_once(deployment, ids)

    # The first worker comes back with a stale token, so none of its later moves changes anything.
    way.heal()
    more = await deployment.ask(10)
    await answered_again(deployment, ids, more)


async def answered_again(deployment: Deployment, ids: Sequence[RequestId], more: Sequence[RequestId]) -> None:
    await deployment.answered(more, within_s=60)
    await deployment.settled()
    assert deployment.billed() == dict.fromkeys([*ids, *more], 1)


async def test_moves_that_arrive_long_after_the_lease_change_nothing(
    deployment: Deployment, way: Proxy
) -> None:
    deployment.env["BATCHLING_LEASE_SECONDS"] = "1"
    heard = way.add(Rule(how=How.GARBLE, way=Way.DOWN, at=1 << 40, after=call_of("intend")))
    deployment.worker()
    ids = await deployment.ask(40)
    await wait_until(lambda: heard.n_heard == 1, description="the intent is on its way", within_s=40)
    # The moves are held, not lost: they arrive when another worker has done the work.
    way.hold()
    deployment.worker(redis_url=deployment.url)
    await answered_and_billed_once(deployment, ids)
    way.heal()
    more = await deployment.ask(10)
    await answered_again(deployment, ids, more)


async def test_a_silently_dead_broker_connection_is_noticed_in_bounded_time(
    deployment: Deployment, way: Proxy
) -> None:
    deployment.env["BATCHLING_LEASE_SECONDS"] = "60"
    deployment.worker()
    await deployment.answered(await deployment.ask(5), within_s=60)
    silent = way.add(Rule(how=How.SILENCE, way=Way.DOWN, after=b"BRPOP"))
    await wait_until(lambda: silent.n_struck == 1, description="the consumer hears nothing", within_s=20)

    # With such a long lease, only a received message can continue the batch in time.
    await deployment.answered(await deployment.ask(5), within_s=40)

    assert "claim_stuck" not in deployment.worker_logs()


async def test_a_frozen_redis_is_waited_for(deployment: Deployment, way: Proxy) -> None:
    deployment.worker()
    before = await deployment.ask(100, rows=20)
    await wait_until(lambda: len(deployment.sandbox.batches()) >= 1, description="submitted", within_s=40)
    assert deployment.redis_process is not None
    deployment.redis_process.send_signal(signal.SIGSTOP)
    await asyncio.sleep(4.0)
    deployment.redis_process.send_signal(signal.SIGCONT)
    during = await deployment.ask(100, rows=20)

    await answered_and_billed_once(deployment, [*before, *during])


@pytest.mark.parametrize("pool", ["threads", "prefork"])
async def test_a_storm_of_resets_opens_few_connections(deployment: Deployment, way: Proxy, pool: str) -> None:
    deployment.worker(pool=pool)
    ids = await deployment.ask(200, rows=20)
    await wait_until(lambda: len(deployment.sandbox.batches()) >= 1, description="submitted", within_s=40)
    for _ in range(30):
        way.strike(How.RST)
        await asyncio.sleep(0.05)

    await answered_and_billed_once(deployment, ids)

    assert way.most_open <= 40
