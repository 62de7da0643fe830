"""The sandbox as a server: a thread of its own with an event loop, on a loopback port."""

from __future__ import annotations

import asyncio
import tempfile
import threading
from collections.abc import Coroutine, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from aiohttp import web

from . import emulator
from .control import Control
from .stamp import Stamp
from .visitors import local_only
from .world.clock import Clock
from .world.faults import FaultTable
from .world.ledger import LedgerPage
from .world.world import Held, Limits, Speeds, World

_HOST = "127.0.0.1"
_PATIENCE_S = 60.0
_MAX_BODY = 64 << 20

T = TypeVar("T")


class Sandbox:
    """Provider emulators over HTTP, each under `/` and its name; a context manager, plain or async.

    `speeds` are seconds per batch by model, `"*"` for any other; port 0 takes a free port. Call methods from
    any thread but the server's own. An object can be started once.
    """

    def __init__(
        self,
        port: int = 0,
        *,
        speeds: Mapping[str, float] | None = None,
        limits: Limits | None = None,
        shuffle: bool = True,
    ) -> None:
        self._port = port
        self._directory = tempfile.TemporaryDirectory(prefix="batchling-sandbox-", ignore_cleanup_errors=True)
        self._world = World(
            directory=Path(self._directory.name),
            pool=ThreadPoolExecutor(2, thread_name_prefix="sandbox-rows"),
            held=Held(limits or Limits()),
            speeds=Speeds(speeds),
            shuffle=shuffle,
        )
        emulators = emulator.load(self._world)
        self._emulators = emulators
        self._control = Control(self._world, emulators)
        self._stamp = Stamp(self._world, emulators)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Event | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> Self:
        """Serve, and return once connections are accepted; raise OSError if the port is taken."""
        ready: Future[None] = Future()
        self._thread = threading.Thread(target=self._serve, args=(ready,), name="sandbox", daemon=True)
        self._thread.start()
        try:
            ready.result(_PATIENCE_S)
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """Close the port and delete every file."""
        if self._loop is not None and self._stopping is not None:
            self._loop.call_soon_threadsafe(self._stopping.set)
        if self._thread is not None:
            self._thread.join(_PATIENCE_S)
        self._world.pool.shutdown(wait=True, cancel_futures=True)
        self._directory.cleanup()

    @property
    def port(self) -> int:
        """Return the port that is served."""
        return self._port

    @property
    def url(self) -> str:
        """Return the address of the server, where `/_sandbox/` is."""
        return f"http://{_HOST}:{self._port}"

    def base_url(self, provider: str) -> str:
        """Return the URL that replaces the provider's scheme and host; raise KeyError for an unknown provider."""
        if provider not in emulator.names():
            raise KeyError(provider)
        return f"{self.url}/{provider}"

    def settings(self) -> dict[str, str]:
        """Return the environment variables that point workers at this sandbox."""
        return {
            variable: value
            for name in emulator.names()
            for variable, value in emulator.settings(name, self.base_url(name)).items()
        }

    @property
    def emulators(self) -> tuple[emulator.Emulator, ...]:
        """Return the providers that are emulated."""
        return self._emulators

    @property
    def clock(self) -> Clock:
        """Return the clock, which tests advance or freeze."""
        return self._world.clock

    @property
    def faults(self) -> FaultTable:
        """Return the table of armed faults."""
        return self._world.faults

    @property
    def speeds(self) -> Speeds:
        """Return the seconds per batch, which can be changed for later batches."""
        return self._world.speeds

    @property
    def limits(self) -> Limits:
        """Return the limits in force."""
        return self._world.limits

    @limits.setter
    def limits(self, limits: Limits) -> None:
        self._world.limits = limits

    def ledger(self) -> LedgerPage:
        """Move every batch on to now and return a copy of the billing ledger."""
        self._call(self._control.catch_up())
        return self._world.ledger.page()

    def batches(self) -> list[dict[str, object]]:
        """Move every batch on to now and return them as their providers show them, with `provider` added."""
        return self._call(self._control.catch_up())

    def reset(self) -> None:
        """Delete files, batches, faults and the ledger, and return to real time; limits and speeds stay."""
        self._call(self._control.clear())

    def _call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        if self._loop is None:
            coroutine.close()
            raise RuntimeError("the sandbox is not started")
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(_PATIENCE_S)

    def _serve(self, ready: Future[None]) -> None:
        try:
            asyncio.run(self._until_stopped(ready))
        except BaseException as error:
            if ready.done():
                raise
            ready.set_exception(error)

    async def _until_stopped(self, ready: Future[None]) -> None:
        app = web.Application(client_max_size=_MAX_BODY, middlewares=[local_only])
        app.add_routes(self._control.routes())
        app.on_response_prepare.append(self._stamp)
        runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=1.0)
        await runner.setup()
        try:
            site = web.TCPSite(runner, _HOST, self._port)
            await site.start()
            self._port = int(runner.addresses[0][1])
            self._loop, self._stopping = asyncio.get_running_loop(), asyncio.Event()
            ready.set_result(None)
            await self._stopping.wait()
        finally:
            self._loop = None
            await self._control.clear()
            await runner.cleanup()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self.stop()

    async def __aenter__(self) -> Self:
        return await asyncio.to_thread(self.start)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self.stop)
