"""Whatever is killed comes back, and nothing comes back twice."""

from __future__ import annotations

import os
import shutil
import signal

import pytest

from batchling_worker.stack import keeper

from ..waiting import wait_until
from .bench import Bench, kill, shown


async def test_a_killed_redis_comes_back_with_what_it_was_told(bench: Bench) -> None:
    bench.up()
    bench.ask("SET", "kept", "yes")
    redis_pid, worker_pid = bench.pids()
    kill(redis_pid)

    await bench.mended(without=redis_pid)
    await bench.answers("yes", "GET", "kept")
    assert bench.pids()[1] == worker_pid


async def test_a_killed_worker_comes_back(bench: Bench) -> None:
    bench.up()
    redis_pid, worker_pid = bench.pids()
    kill(worker_pid)

    await bench.mended(without=worker_pid)
    assert bench.pids()[0] == redis_pid


async def test_children_outlive_a_killed_supervisor_and_are_adopted(bench: Bench) -> None:
    before = bench.up()
    supervisor_pid = bench.supervisor_pid()
    kill(supervisor_pid)
    await wait_until(lambda: bench.supervisor_pid() == 0, description="the supervisor is dead")
    assert shown(bench.status()) == shown(before)

    after = bench.up()
    assert shown(after) == shown(before)
    assert bench.supervisor_pid() not in (0, supervisor_pid)
    assert len(bench.everything()) == 3


async def test_an_adopted_child_is_mended_too(bench: Bench) -> None:
    bench.up()
    kill(bench.supervisor_pid())
    await wait_until(lambda: bench.supervisor_pid() == 0, description="the supervisor is dead")
    bench.up()
    redis_pid, worker_pid = bench.pids()
    kill(worker_pid)
    await bench.mended(without=worker_pid)
    kill(redis_pid)
    await bench.mended(without=redis_pid)


async def test_everything_killed_at_once_comes_back_with_the_next_up(bench: Bench) -> None:
    bench.up()
    for pid in (bench.supervisor_pid(), *bench.pids()):
        kill(pid)
    await wait_until(lambda: bench.everything() == [], description="all are dead")
    assert bench.status().to_json()["redis"] is None

    bench.up()
    assert bench.ask("PING") == "PONG"
    assert len(bench.everything()) == 3


@pytest.mark.parametrize("content", ["", "{", '{"redis": 1}', "[]", '{"supervisor_pid": 1}'])
async def test_a_state_file_that_is_gone_or_broken_doubles_nothing(bench: Bench, content: str) -> None:
    before = bench.up()
    kill(bench.supervisor_pid())
    await wait_until(lambda: bench.supervisor_pid() == 0, description="the supervisor is dead")
    bench.layout.state.write_text(content)

    after = bench.up()
    assert after.redis == before.redis
    assert len(bench.everything()) == 3  # the worker's settings are unknown by now: it may be a new one


def test_a_stale_state_file_of_a_machine_that_restarted_starts_afresh(bench: Bench) -> None:
    bench.up()
    kept = bench.layout.state.read_text()
    bench.run("down")
    pid = os.getpid()
    stale = kept.replace('"pid": ', f'"pid": {pid}, "was": ').replace(
        '"supervisor_pid": ', '"supervisor_pid": 1'
    )
    for text in (kept, stale):
        bench.layout.state.write_text(text)
        assert bench.status().to_json()["workers"] == []
        bench.up()
        assert pid not in bench.pids()
        assert len(bench.everything()) == 3
        bench.run("down")


def test_a_later_owner_of_a_pid_is_not_taken_for_the_child() -> None:
    me = keeper.observe(os.getpid(), "me")
    assert me is not None
    assert keeper.alive(me)
    assert not keeper.alive(type(me)(pid=me.pid, started_s=me.started_s - 60, label="me"))


async def test_a_supervisor_whose_home_was_removed_leaves(bench: Bench) -> None:
    bench.up()
    shutil.rmtree(bench.home)

    await wait_until(lambda: bench.everything() == [], description="nothing runs any more", within_s=30)


async def test_a_socket_that_was_removed_comes_back(bench: Bench) -> None:
    bench.up()
    bench.ask("SET", "kept", "yes")
    redis_pid, _ = bench.pids()
    (bench.layout.run / "redis.sock").unlink()

    await wait_until(lambda: bench.pids()[0] not in (0, redis_pid), description="Redis was started again")
    await bench.answers("yes", "GET", "kept")


async def test_a_child_that_dies_at_once_is_not_started_in_a_storm(bench: Bench) -> None:
    bench.up()
    log = bench.layout.log("supervisor")
    for _ in range(3):
        _, worker_pid = bench.pids()
        kill(worker_pid, signal.SIGKILL)
        await bench.mended(without=worker_pid)

    stamps = [line for line in log.read_text().splitlines() if "child_started name=worker" in line]
    assert len(stamps) == 4


async def test_a_redis_that_no_file_knows_and_that_does_not_answer_is_adopted(bench: Bench) -> None:
    before = bench.up()
    kill(bench.supervisor_pid())
    await wait_until(lambda: bench.supervisor_pid() == 0, description="the supervisor is dead")
    bench.layout.state.unlink()
    (bench.layout.run / "redis.sock").unlink()

    assert before.redis is not None
    stray = keeper.stray(bench.redis_recipe())
    assert stray is not None
    assert stray.pid == before.redis.pid
