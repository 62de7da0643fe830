"""The cost of the background thread for a blocking call in a plain block, compared with an awaited call."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import httpx

from batchling_client.block import background_loop

from .figures import Cell, Report, median

N_CALLS: Final = 4_000
N_ROUNDS: Final = 5
N_THREADS: Final = 32
URL: Final = "https://llm.example/v1/chat/completions"


def measure() -> Report:
    """Alternate the ways in one process, so that other work on the machine affects all of them."""
    shared = background_loop.hold()
    found: dict[str, list[float]] = {}
    try:
        with (
            ThreadPoolExecutor(N_THREADS) as pool,
            httpx.Client(transport=httpx.MockTransport(_answer)) as client,
        ):
            for _ in range(N_ROUNDS):
                for name, seconds in (
                    ("awaited on its own loop", asyncio.run(_awaited())),
                    ("from one thread", _from_one_thread(shared)),
                    (f"from {N_THREADS} threads", _from_threads(shared, pool)),
                    ("httpx's own send, over a transport in memory", _sent(client)),
                ):
                    found.setdefault(name, []).append(seconds / N_CALLS * 1e6)
    finally:
        background_loop.let_go()
    floor = min(found["httpx's own send, over a transport in memory"])
    rows: list[list[Cell]] = [
        [name, f"{min(taken):.1f}", f"{median(taken):.1f}", f"{min(taken) / floor:.2f}"]
        for name, taken in found.items()
    ]
    return Report(
        title=f"Microseconds a call, {N_CALLS:,} calls that are answered at once, {N_ROUNDS} rounds",
        columns=("what", "best us", "median us", "over httpx"),
        rows=rows,
        raw=found,
    )


async def _work() -> None:
    await asyncio.sleep(0)


async def _awaited() -> float:
    began = time.perf_counter()
    for _ in range(N_CALLS):
        await asyncio.create_task(_work())
    return time.perf_counter() - began


def _from_one_thread(shared: background_loop.Bridge) -> float:
    began = time.perf_counter()
    for _ in range(N_CALLS):
        shared.call(_work())
    return time.perf_counter() - began


def _from_threads(shared: background_loop.Bridge, pool: ThreadPoolExecutor) -> float:
    def some(_: int) -> None:
        for _ in range(N_CALLS // N_THREADS):
            shared.call(_work())

    began = time.perf_counter()
    list(pool.map(some, range(N_THREADS)))
    return time.perf_counter() - began


def _answer(_: httpx.Request) -> httpx.Response:
    return httpx.Response(200, json={})


def _sent(client: httpx.Client) -> float:
    began = time.perf_counter()
    for n in range(N_CALLS):
        client.post(URL, json={"n": n})
    return time.perf_counter() - began
