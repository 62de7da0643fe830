"""A pool child is forked from a process with threads: nothing in it may be torn."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

BUSY_LOOP = """
import asyncio, os, sys, threading
from batchling_worker.runtime.fork_safety import still_at_forks

loop = asyncio.new_event_loop()
threading.Thread(target=loop.run_forever, daemon=True).start()
if sys.argv[1] == "still":
    still_at_forks(loop)
held, begun, forked, gone_on = threading.Lock(), threading.Event(), threading.Event(), threading.Event()

def callback():
    with held:
        begun.set()
        forked.wait(0.3 if sys.argv[1] == "still" else 20)

loop.call_soon_threadsafe(callback)
begun.wait()
child = os.fork()
if child == 0:
    os._exit(0 if held.acquire(blocking=False) else 7)
forked.set()
torn = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
loop.call_soon_threadsafe(gone_on.set)
assert gone_on.wait(20), "the loop does not go on"
sys.exit(torn)
"""

TOLD_BEFORE_THE_FORK = """
import os, sys
from batchling_client.wire.records.batch import Batch
from tests.wire.test_records import BATCH
from batchling_worker.provider import Running
from batchling_worker.telemetry import Telemetry

told_by, tells = os.pipe()
telemetry = Telemetry(lambda events: os.write(tells, b"%d " % os.getpid()) and None)
look = Running(status="in_progress", n_done=1, n_total=2)
telemetry.progress(Batch.decode({**BATCH, b"id": b"b0"}), look)
assert int(os.read(told_by, 100)) == os.getpid()
child = os.fork()
if child == 0:
    telemetry.progress(Batch.decode({**BATCH, b"id": b"b1"}), look)
    os._exit(0 if int(os.read(told_by, 100)) == os.getpid() else 7)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def run(script: str, *words: str) -> int:
    """The exit code of a process of its own: this one has threads that are not ours to fork."""
    root = Path(__file__).parents[2]
    return subprocess.run([sys.executable, "-c", script, *words], cwd=root, timeout=30).returncode


@pytest.mark.parametrize(("how", "code"), [("still", 0), ("as it comes", 7)])
def test_no_child_is_forked_in_the_middle_of_a_callback(how: str, code: int) -> None:
    assert run(BUSY_LOOP, how) == code


def test_a_child_tells_its_events_although_its_parent_told_some_before() -> None:
    assert run(TOLD_BEFORE_THE_FORK) == 0
