"""A block stays open for work that is under way at its end: its first call may come late."""

from __future__ import annotations

import asyncio
import importlib
import logging
import queue
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from batchling_client import Run, batchify
from batchling_client.block import background_loop, in_flight
from batchling_client.block.run import handler_of

from .answerer import Answerer
from .asking import a_call, ask
from .test_calls_in_flight import LINGER_S, working

__all__ = ["working"]

LATE_S = 0.8
"""Well above the quiet of these tests."""
SLOW_MODULE = f"import time\ntime.sleep({LATE_S})\n"


@pytest.fixture(autouse=True)
def short_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(in_flight, "QUIET_S", 0.2)


@pytest.fixture
def slow_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "slow_sdk.py").write_text(SLOW_MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "slow_sdk", raising=False)
    return "slow_sdk"


def status_of(run: Run) -> object:
    return getattr(handler_of(run).answer_blocking(a_call()), "status", None)


def test_a_thread_that_imports_its_sdk_first_is_answered(working: None, slow_module: str) -> None:
    answers: list[object] = []

    def work(run: Run) -> None:
        importlib.import_module(slow_module)
        answers.append(status_of(run))

    with batchify(batch_window_seconds=LINGER_S, live_display=False) as run:
        thread = threading.Thread(target=work, args=(run,))
        thread.start()
    assert run.progress.n_succeeded == 1
    thread.join(10)
    assert answers == [200]


def test_work_of_a_pool_that_calls_late_is_answered(working: None) -> None:
    def work(run: Run) -> object:
        time.sleep(LATE_S)
        return status_of(run)

    with ThreadPoolExecutor(1) as pool:
        with batchify(batch_window_seconds=LINGER_S, live_display=False) as run:
            answer = pool.submit(work, run)
        assert run.progress.n_succeeded == 1
        assert answer.result() == 200


async def test_a_task_whose_thread_works_before_its_call_is_answered(answerer: Answerer) -> None:
    """As SDKs do that prepare a call in a thread."""

    async def late(run: Run) -> int:
        await asyncio.to_thread(time.sleep, LATE_S)
        return (await ask(run)).status

    async with batchify(batch_window_seconds=LINGER_S, live_display=False) as run:
        task = asyncio.create_task(late(run))
    assert run.progress.n_succeeded == 1
    assert await task == 200


async def test_a_task_that_imports_in_a_thread_is_answered(answerer: Answerer, slow_module: str) -> None:
    async def late(run: Run) -> int:
        loop, imported = asyncio.get_running_loop(), asyncio.Event()

        def work() -> None:
            importlib.import_module(slow_module)
            loop.call_soon_threadsafe(imported.set)

        threading.Thread(target=work).start()
        await imported.wait()
        return (await ask(run)).status

    async with batchify(batch_window_seconds=LINGER_S, live_display=False) as run:
        task = asyncio.create_task(late(run))
    assert run.progress.n_succeeded == 1
    assert await task == 200


def test_a_pool_that_waits_for_work_holds_no_block_open(working: None) -> None:
    asked: queue.Queue[None] = queue.Queue()
    with ThreadPoolExecutor(1) as pool:
        with batchify(batch_window_seconds=LINGER_S, live_display=False) as run:
            waiting = pool.submit(asked.get)
            assert status_of(run) == 200
        assert not waiting.done()
        asked.put(None)


async def test_a_thread_that_waits_inside_an_import_holds_no_block_open(
    answerer: Answerer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As the main thread of a program that is run by being imported."""
    caplog.set_level(logging.INFO, logger="batchling")
    monkeypatch.setattr(in_flight, "WORKING_S", 3.0)
    monkeypatch.setattr("batchling_client.block.block.SAY_WAITING_AFTER_S", 0.1)
    over = threading.Event()
    monkeypatch.setattr(threading, "over", over, raising=False)
    (tmp_path / "waiting_program.py").write_text("import threading\nthreading.over.wait()\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "waiting_program", raising=False)
    thread = threading.Thread(target=importlib.import_module, args=("waiting_program",))
    thread.start()
    try:
        async with batchify(batch_window_seconds=LINGER_S, live_display=False) as run:
            left = asyncio.create_task(asyncio.Event().wait())
            assert (await ask(run)).status == 200
    finally:
        left.cancel()
        over.set()
        await asyncio.to_thread(thread.join, 10)
    assert "stays open" not in caplog.text


def test_work_without_an_end_is_waited_for_no_longer_than_the_bound_and_the_wait_is_said(
    working: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="batchling")
    monkeypatch.setattr(in_flight, "WORKING_S", 1.0)
    monkeypatch.setattr("batchling_client.block.block.SAY_WAITING_AFTER_S", 0.1)
    over = threading.Event()

    def work() -> None:
        while not over.is_set():
            time.sleep(0.01)

    with ThreadPoolExecutor(1) as pool:
        with batchify(batch_window_seconds=LINGER_S, live_display=False) as run:
            endless = pool.submit(work)
            assert status_of(run) == 200
        assert not endless.done()
        over.set()
    assert caplog.text.count("stays open for up to 1 s") == 1


def test_a_call_of_another_loop_is_in_flight_before_the_background_loop_begins_it(working: None) -> None:
    """A machine with little to spare runs the background thread late."""

    async def late(run: Run) -> object:
        background_loop.hold().loop.call_soon_threadsafe(time.sleep, LATE_S)
        background_loop.let_go()
        return getattr(await ask(run), "status", None)

    answers: list[object] = []
    with batchify(batch_window_seconds=LINGER_S, live_display=False) as run:
        thread = threading.Thread(target=lambda: answers.append(asyncio.run(late(run))))
        thread.start()
    assert run.progress.n_succeeded == 1
    thread.join(10)
    assert answers == [200]
