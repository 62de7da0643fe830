"""The slot of a step: a task waits for its step, unless the step lets go and runs on by itself."""

from __future__ import annotations

import asyncio
import threading
from types import SimpleNamespace
from typing import cast

import pytest

from batchling_worker.engine import pool_slot
from batchling_worker.engine.engine import Engine
from batchling_worker.runtime.step_loop import Runtime


@pytest.fixture
def runtime() -> Runtime:
    return Runtime(lambda version: cast("Engine", SimpleNamespace(leave=lambda: None)))


def test_a_task_waits_for_its_step(runtime: Runtime) -> None:
    ran = []

    async def step(_: Engine) -> None:
        ran.append(1)

    runtime.run(step, 1)
    assert ran == [1]


def test_a_step_that_lets_go_runs_on_while_its_task_is_over(runtime: Runtime) -> None:
    may_end, ended = threading.Event(), threading.Event()

    async def step(_: Engine) -> None:
        pool_slot.let_go()
        await asyncio.to_thread(may_end.wait)
        ended.set()

    runtime.run(step, 1)
    assert not ended.is_set()
    may_end.set()
    assert ended.wait(10)


def test_what_a_step_raises_comes_back_to_its_task(runtime: Runtime) -> None:
    async def step(_: Engine) -> None:
        raise ValueError("odd")

    with pytest.raises(ValueError, match="odd"):
        runtime.run(step, 1)


def test_a_step_that_let_go_is_ended_with_the_others_when_the_worker_leaves(runtime: Runtime) -> None:
    handed_back = threading.Event()

    async def step(_: Engine) -> None:
        pool_slot.let_go()
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            handed_back.set()
            raise

    runtime.run(step, 1)
    runtime.leave()
    assert handed_back.wait(10)
