"""`down` leaves nothing running, whatever has become of the parts."""

from __future__ import annotations

import pytest

from ..waiting import wait_until
from .bench import Bench, kill


def test_down_leaves_no_child(bench: Bench) -> None:
    bench.up(flower=True)
    assert len(bench.everything()) == 4

    answer = bench.run("down", "--json")
    assert answer.returncode == 0
    assert bench.everything() == []
    assert not (bench.layout.run / "redis.sock").exists()
    assert '"redis": null, "workers": [], "flower": null' in answer.stdout


async def test_down_without_a_supervisor_leaves_no_child(bench: Bench) -> None:
    bench.up(flower=True)
    kill(bench.supervisor_pid())
    await wait_until(lambda: bench.supervisor_pid() == 0, description="the supervisor is dead")

    assert bench.run("down").returncode == 0
    assert bench.everything() == []


async def test_down_without_supervisor_and_state_leaves_no_child(bench: Bench) -> None:
    bench.up(flower=True)
    kill(bench.supervisor_pid())
    await wait_until(lambda: bench.supervisor_pid() == 0, description="the supervisor is dead")
    bench.layout.state.unlink()

    assert bench.run("down").returncode == 0
    assert bench.everything() == []


@pytest.mark.parametrize("made", [True, False])
def test_down_succeeds_without_a_running_stack(bench: Bench, made: bool) -> None:
    if made:
        bench.layout.prepare()

    assert bench.run("down").returncode == 0
    assert bench.home.exists() == made
    assert bench.run("status").stdout == f"The stack in {bench.home} is down.\n"
