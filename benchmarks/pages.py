"""Time of Flower's pages over a store of 100,000 batches, and for how long they hold up Flower's loop."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from .figures import Cell, Report, Target, median, quantile
from .looking import N_BATCHES, filled
from .stand import clean_environment
from .workers import redis_server

ROUNDS: Final = 40
LONGEST_MS: Final = 300.0
MOST_BLOCKED_MS: Final = 50.0
START_S: Final = 60.0
TWO_AT_ONCE: Final = ("/batchling?partial=1", "/batches?state=moved-on&partial=1")
WATCH: Final = """
import time
from tornado.ioloop import PeriodicCallback
_PAUSE_MS = 2
_last, _late = time.perf_counter(), []
def _look():
    global _last
    now = time.perf_counter()
    _late.append((now - _last) * 1000 - _PAUSE_MS)
    _last = now
def _write():
    with open({path!r}, "w") as out:
        out.writelines(f"{{late:.1f}}\\n" for late in _late)
PeriodicCallback(_look, _PAUSE_MS).start()
PeriodicCallback(_write, 1000).start()
"""
"""Flower reads this as its configuration: a callback on its loop notes how late it is each time.

A look writes no file: that would let go of the lock of the interpreter.
"""


def measure() -> Report:
    """Ask for each page in turn; then for the two dearest at once, while the loop's lateness is noted."""
    with tempfile.TemporaryDirectory(prefix="bl-") as home, redis_server(Path(home)) as url:
        made = asyncio.run(filled(url))
        filters = (
            "state=quarantined", "state=with-failures", "state=all&sort=oldest", "state=waiting", "state=moved-on",
            "state=overdue", "state=needs-you", "model=m3&state=all", "provider=groq&state=over", "key=0000&state=all",
            f"run={made.run_id}",
        )  # fmt: skip
        paths = ("/batchling", "/batches", *(f"/batches?{one}" for one in filters))
        paths += (f"/batch/{made.batch_id}", "/lanes", "/runs")
        lateness = Path(home) / "lateness"
        with running_flower(url, Path(home), lateness) as port:
            times = {path: [timed(port, path) for _ in range(ROUNDS)] for path in paths}
            # What Flower's own start and the fill of its caches cost is over by now.
            n_before = len(lateness.read_text().splitlines())
            crowd = [threading.Thread(target=asked_often, args=(port, path)) for path in TWO_AT_ONCE]
            for one in crowd:
                one.start()
            for one in crowd:
                one.join()
            late = [float(line) for line in lateness.read_text().splitlines()[n_before:]]
    rows: list[list[Cell]] = [
        [
            path.replace(made.run_id, "RUN").replace(made.batch_id, "BATCH"),
            median(found),
            quantile(found, 0.95),
        ]
        for path, found in times.items()
    ]
    slowest, blocked = max(quantile(found, 0.95) for found in times.values()), max(late)
    return Report(
        title=f"Pages in Flower over {N_BATCHES:,} batches, {ROUNDS} times each",
        columns=("page", "median, ms", "p95, ms"),
        rows=rows,
        targets=[
            Target(
                promise="any page p95 at most 300 ms", found=f"{slowest:.0f} ms", met=slowest <= LONGEST_MS
            ),
            Target(
                promise="Flower's loop never held up for more than 50 ms, two readers at once",
                found=f"{blocked:.0f} ms",
                met=blocked <= MOST_BLOCKED_MS,
            ),
        ],
        raw={"ms": times, "late_ms": sorted(late)[-20:]},
    )


def asked_often(port: int, path: str) -> None:
    """Ask for a page again and again, as a browser that does not wait would."""
    for _ in range(ROUNDS):
        timed(port, path)


def timed(port: int, path: str) -> float:
    """Return how many milliseconds a page takes."""
    begun = time.perf_counter()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", path)
    answer = connection.getresponse()
    answer.read()
    connection.close()
    if answer.status != 200:
        raise RuntimeError(f"{path} was answered with {answer.status}")
    return (time.perf_counter() - begun) * 1000


@contextlib.contextmanager
def running_flower(url: str, home: Path, lateness: Path) -> Iterator[int]:
    """Run Flower with a watch on its loop, and yield its port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    conf = home / "flowerconfig.py"
    conf.write_text(WATCH.format(path=str(lateness)))
    words = [sys.executable, "-m", "celery", "-A", "batchling_worker", "flower", "--address=127.0.0.1"]
    with (home / "flower.log").open("wb") as log:
        process = subprocess.Popen(
            [*words, f"--port={port}", f"--conf={conf}"],
            env={**clean_environment(), "BATCHLING_REDIS_URL": url, "BATCHLING_HOME": str(home / "h")},
            stdout=log,
            stderr=log,
        )
    try:
        deadline = time.monotonic() + START_S
        while True:
            try:
                timed(port, "/batchling")
                break
            except OSError:
                if process.poll() is not None or time.monotonic() > deadline:
                    os.write(2, (home / "flower.log").read_bytes())
                    raise
                time.sleep(0.1)
        yield port
    finally:
        process.terminate()
        process.wait(30)
