"""A full disk ends no supervisor, and gives one sentence to the program that starts or stops the stack.

Root may write anywhere, so a directory in the place of a file, or a limit to the size of files, stands in for the disk.
"""

from __future__ import annotations

import resource
import subprocess

from ..waiting import wait_until
from .bench import Bench, kill


def without_room(bench: Bench, *words: str) -> subprocess.CompletedProcess[str]:
    """A command of the stack that can make files and write nothing into them."""
    return subprocess.run(
        bench.command(*words),
        env=bench.environment,
        capture_output=True,
        text=True,
        timeout=50,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0)),
    )


async def test_a_state_that_cannot_be_written_keeps_no_worker_from_its_restart(bench: Bench) -> None:
    bench.up()
    supervisor_pid, (_, worker_pid) = bench.supervisor_pid(), bench.pids()
    full = bench.layout.state.with_suffix(".draft")
    full.mkdir()
    kill(worker_pid)

    def replaced() -> bool:
        pids = bench.worker_pids()
        return len(pids) == 1 and pids != [worker_pid]

    await wait_until(replaced, description="another worker runs unpublished", within_s=20)
    assert bench.pids()[1] == 0

    full.rmdir()
    await bench.mended(without=worker_pid)
    assert bench.supervisor_pid() == supervisor_pid
    assert len(bench.worker_pids()) == 1


async def test_a_worker_that_cannot_be_started_is_started_once_there_is_room(bench: Bench) -> None:
    bench.up()
    supervisor_pid, (_, worker_pid) = bench.supervisor_pid(), bench.pids()
    log = bench.layout.log("worker")
    log.unlink()
    log.mkdir()
    kill(worker_pid)
    told = bench.layout.log("supervisor")
    await wait_until(
        lambda: "child_not_started name=worker" in told.read_text(), description="the start has failed"
    )

    log.rmdir()
    await bench.mended(without=worker_pid)
    assert bench.supervisor_pid() == supervisor_pid


def test_up_is_one_sentence(bench: Bench) -> None:
    answer = without_room(bench, "up")

    assert answer.returncode == 3
    assert answer.stderr.count("\n") == 1
    assert answer.stderr.startswith(f"The stack in {bench.home} cannot be started (File too large)")


def test_down_needs_no_room(bench: Bench) -> None:
    bench.up()
    answer = without_room(bench, "down")

    assert (answer.returncode, answer.stderr) == (0, "")
    assert bench.everything() == []


def test_down_that_cannot_look_is_one_sentence(bench: Bench) -> None:
    bench.layout.prepare()
    bench.layout.supervisor_lock.mkdir()
    answer = bench.run("down")

    assert answer.returncode == 3
    assert answer.stderr.count("\n") == 1
    assert answer.stderr.startswith(f"{bench.home} cannot be looked into (Is a directory)")
    bench.layout.supervisor_lock.rmdir()
