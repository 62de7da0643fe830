"""Worker processes without Celery, forked from one warm server: they run the real steps and start in milliseconds.

`python -m tests.forks` is the server: it reads and writes lines of JSON. Other tests cover what Celery adds.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn, Self

from batchling_client.wire.deployment.connection import connect
from batchling_client.wire.keys import Keys
from batchling_client.wire.scripts import DueBatch
from batchling_client.wire.states import BatchState
from batchling_worker import providers
from batchling_worker.claim import Terms
from batchling_worker.engine.accounts import Accounts
from batchling_worker.engine.engine import Engine
from batchling_worker.pipeline.seal import seal
from batchling_worker.pipeline.step import StepSettings
from batchling_worker.settings import WorkerSettings
from batchling_worker.store import Store
from batchling_worker.telemetry import Telemetry

from .crash_points import crash_point


class Forks:
    """The test's handle of the warm server; `start` returns a pid."""

    def __init__(self) -> None:
        self._server = subprocess.Popen(
            [sys.executable, "-m", "tests.forks"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def start(self, env: Mapping[str, str], log: Path) -> int:
        return int(self._ask({"env": dict(env), "log": str(log)}))

    def exit_code(self, pid: int) -> int | None:
        """Return its exit code; None while it runs."""
        code: int | None = self._ask({"pid": pid})
        return code

    def kill(self, pid: int) -> None:
        self._ask({"kill": pid})

    def _ask(self, order: object) -> Any:
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.write(json.dumps(order) + "\n")
        self._server.stdin.flush()
        return json.loads(self._server.stdout.readline())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.close()
        self._server.wait(10)
        self._server.stdout.close()


def serve() -> None:
    for name in providers.names():
        providers.load(name)
    codes: dict[int, int | None] = {}
    for line in sys.stdin:
        order = json.loads(line)
        answer: int | None = None
        if "env" in order:
            answer = os.fork()
            if answer == 0:
                _child(order["env"], order["log"])
            codes[answer] = None
        elif "kill" in order:
            _kill(codes, order["kill"])
        else:
            answer = _reap(codes, order["pid"], os.WNOHANG)
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
    for pid in codes:
        _kill(codes, pid)


def _reap(codes: dict[int, int | None], pid: int, how: int) -> int | None:
    if codes[pid] is None:
        ended, status = os.waitpid(pid, how)
        if ended:
            codes[pid] = os.waitstatus_to_exitcode(status)
    return codes[pid]


def _kill(codes: dict[int, int | None], pid: int) -> None:
    if codes[pid] is None and _reap(codes, pid, os.WNOHANG) is None:
        os.kill(pid, signal.SIGKILL)
        _reap(codes, pid, 0)


def _child(env: Mapping[str, str], log: str) -> NoReturn:
    code = 1
    try:
        os.environ.clear()
        os.environ.update(env)
        out = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        for fd in (1, 2):
            os.dup2(out, fd)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
        logging.getLogger("httpx").setLevel(logging.WARNING)
        asyncio.run(_work(WorkerSettings()))
    finally:
        os._exit(code)


async def _work(settings: WorkerSettings) -> None:
    store = Store(
        redis=connect(settings.redis_url),
        keys=Keys(settings.namespace),
        terms=Terms(
            lease_ms=int(settings.lease_seconds * 1000),
            result_ttl_ms=int(settings.result_ttl_seconds * 1000),
            max_attempts=settings.max_attempts,
        ),
    )
    telemetry = Telemetry()
    step_settings = StepSettings(
        namespace=settings.namespace,
        poll_interval_s=settings.poll_interval_seconds,
        max_attempts=settings.max_attempts,
        reconcile_patience_s=settings.reconcile_patience_seconds,
        results_patience_s=settings.results_patience_seconds,
    )
    accounts = Accounts(
        store, settings.providers, settings.keyring().private_keys, silence_s=settings.http_silence_seconds
    )
    engine = Engine(
        store=store,
        accounts=accounts,
        providers=providers.Providers(settings.providers),
        step_settings=step_settings,
        telemetry=telemetry,
        reach=crash_point(os.environ),
    )
    steps: set[asyncio.Task[None]] = set()
    while True:
        for due in await store.claim_due(200):
            if due.state is BatchState.OPEN:
                await seal(store, due, telemetry)
                continue
            step = asyncio.create_task(_step(engine, due))
            steps.add(step)
            step.add_done_callback(steps.discard)
        await asyncio.sleep(0.02)


async def _step(engine: Engine, due: DueBatch) -> None:
    claim = engine.claim(due.batch_id, due.token)
    if due.state is BatchState.SUBMITTED:
        await engine.poll([claim])
    elif due.state is BatchState.ENDED:
        await (engine.settle(claim) if due.collected else engine.collect(claim))
    else:
        await engine.submit(claim)


if __name__ == "__main__":
    serve()
