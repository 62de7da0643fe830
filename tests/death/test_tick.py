"""The tick: a worker whose tick has died must not look alive while it does nothing."""

from __future__ import annotations

from tests.deployment import Deployment
from tests.waiting import wait_until

APP = "tests.death.broken_tick"


async def test_a_dead_tick_is_restarted(deployment: Deployment) -> None:
    worker = deployment.worker(app=APP, tick_deaths="2")
    ids = await deployment.ask(10)

    results = await deployment.answered(ids)

    assert {result.status for result in results} == {200}
    assert worker.poll() is None
    assert deployment.worker_logs().count("tick_died error=SystemExit") == 2


async def test_a_worker_whose_tick_keeps_dying_exits_with_a_message(deployment: Deployment) -> None:
    worker = deployment.worker(app=APP, tick_deaths="1000")

    assert await deployment.died(worker) == 1
    assert "event=worker_stops n_deaths=" in deployment.worker_logs()

    ids = await deployment.ask(10)
    deployment.worker()
    await deployment.answered(ids)

    async def only_the_second_is_listed() -> bool:
        names = await deployment.redis.execute_command("ZRANGE", deployment.keys.workers, 0, -1)
        return list(names) == [b"w1@test"]

    await wait_until(only_the_second_is_listed, description="the first is not listed", within_s=30)
