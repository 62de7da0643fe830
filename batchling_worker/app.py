"""The Celery app, and the worker's only composition root."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from functools import partial
from importlib.metadata import version
from typing import Any, Final, TypeVar

from celery import Celery
from celery.signals import (
    after_setup_logger,
    after_setup_task_logger,
    worker_init,
    worker_process_init,
    worker_process_shutdown,
)
from kombu import Queue

from batchling_client.wire import sealing
from batchling_client.wire.deployment import setting_names
from batchling_client.wire.deployment.connection import UnusableUrl, connect, place_of
from batchling_client.wire.deployment.keyring import NAME as KEYRING
from batchling_client.wire.deployment.setting_files import UnusableFile
from batchling_client.wire.keys import WIRE_VERSION, Keys
from batchling_client.wire.records.row_and_result import WorkerPresence
from batchling_client.wire.stubs import Fsync

from .claim import Terms
from .engine.accounts import Accounts
from .engine.engine import Engine
from .errors import UnfitWorker
from .log_lines import Fields, set_format
from .pipeline.step import StepSettings
from .providers import Providers
from .runtime import flower, foreign_settings, guarded_broker, shutdown, tasks, wire_versions
from .runtime.broker import broker_url, transport_options
from .runtime.dispatch import Dispatch
from .runtime.presence import Presence
from .runtime.redis_health import Fitness
from .runtime.step_loop import Runtime
from .runtime.tick import Tick
from .runtime.tick_thread import TickStep, TickThread
from .runtime.ticker import Ticker
from .settings import DashboardSettings, WorkerSettings, WrongSetting, load, load_dashboard, of_dashboard
from .stack import control
from .stack.errors import StackError
from .store import Store
from .telemetry import Telemetry

FSYNC_MS: Final = 5_000
"""How long a create waits for its record to be on disk: several times what `appendfsync everysec` takes."""
RESENDS: Final = 2
"""A worker may send each command twice: what a token has moved, the same token does not move again.

A `begin` whose reply was lost is known by its nonce, and answered again.
"""
S = TypeVar("S", bound=DashboardSettings)
POOLS: Final = ("prefork", "threads", "solo")


class WorkerApp(Celery):
    """The Celery app of one deployment; `parts` makes what its processes are made of."""

    parts: Parts


def make_app(settings: WorkerSettings) -> Celery:
    """Return a Celery app that runs the pipeline of one deployment."""
    app = _connected_app(settings)
    app.parts = parts = Parts(app, settings)
    tasks.register(app, parts.runtime)
    app.steps["worker"].add(TickStep)
    worker_init.connect(lambda **_: guarded_broker.limit_commands(settings.remote_control), weak=False)
    worker_process_init.connect(lambda **_: shutdown.listen(parts.runtime), weak=False)
    worker_process_shutdown.connect(lambda **_: parts.runtime.leave(), weak=False)
    return app


def make_dashboard(settings: DashboardSettings) -> Celery:
    """Return a Celery app that looks at one deployment and has no key: it cannot run the pipeline."""
    return _connected_app(settings)


def _connected_app(settings: DashboardSettings) -> WorkerApp:
    """Return a Celery app that exchanges messages and events with those of its deployment."""
    # No fix-ups: where DJANGO_SETTINGS_MODULE is set, Celery's would set up that project in each of our processes.
    guarded_broker.install()
    app = WorkerApp("batchling", broker=broker_url(settings.redis_url), fixups=[])
    app.conf.update(
        result_backend=None,
        task_ignore_result=True,
        task_store_errors_even_if_ignored=False,
        task_acks_late=False,
        worker_prefetch_multiplier=1,
        worker_disable_prefetch=True,
        worker_disable_rate_limits=True,
        task_serializer="json",
        accept_content=["json"],
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        # Redis refuses Celery's writes while it is full or failing over: a worker must outlive that.
        broker_channel_error_retry=True,
        broker_transport_options=transport_options(settings.redis_url, settings.namespace),
        worker_soft_shutdown_timeout=25,
        worker_send_task_events=True,
        task_send_sent_event=False,
        task_default_queue=wire_versions.queue_of(WIRE_VERSION),
        task_queues=[Queue(wire_versions.queue_of(version)) for version in wire_versions.SERVED],
        task_create_missing_queues=False,
        worker_hijack_root_logger=True,
        enable_utc=True,
    )
    after_setup_logger.connect(_quieten, weak=False)
    for one in (after_setup_logger, after_setup_task_logger):
        one.connect(partial(_format_lines, settings.log_format), weak=False)
    return app


class Parts:
    """Makes what a worker's processes are made of, from the settings."""

    def __init__(self, app: Celery, settings: WorkerSettings) -> None:
        self._app = app
        self._settings = settings
        self._keyring = settings.keyring()
        self._telemetry = Telemetry(lambda events: _send_events(app, events))
        self._providers = Providers(settings.providers)
        self.runtime = Runtime(self.engine)

    def store(self, version: int) -> Store:
        """Return the store of a wire version, with a connection of its own."""
        settings = self._settings
        fsync = Fsync(replicas=settings.fsync_replicas, within_ms=FSYNC_MS)
        return Store(
            redis=connect(settings.redis_url, n_resends=RESENDS),
            keys=Keys(settings.namespace, version),
            terms=Terms(
                lease_ms=int(settings.lease_seconds * 1000),
                result_ttl_ms=int(settings.result_ttl_seconds * 1000),
                max_attempts=settings.max_attempts,
                fsync_intent=fsync if settings.fsync_intent else None,
            ),
        )

    def engine(self, version: int) -> Engine:
        """Return the engine of a wire version, for the event loop that runs."""
        settings, store = self._settings, self.store(version)
        return Engine(
            store=store,
            accounts=Accounts(
                store,
                settings.providers,
                self._keyring.private_keys,
                silence_s=settings.http_silence_seconds,
                keeps_files=settings.keep_files,
            ),
            providers=self._providers,
            step_settings=StepSettings(
                namespace=settings.namespace,
                poll_interval_s=settings.poll_interval_seconds,
                max_attempts=settings.max_attempts,
                reconcile_patience_s=settings.reconcile_patience_seconds,
                results_patience_s=settings.results_patience_seconds,
                longest_answer_bytes=settings.longest_answer_bytes,
                batch_answers_bytes=settings.batch_answers_bytes,
                keeps_files=settings.keep_files,
                poll_unnamed="poll_interval_seconds" not in settings.model_fields_set,
            ),
            telemetry=self._telemetry,
        )

    def tick_thread(self, worker: Any) -> TickThread:
        """Return the thread of a worker's tick; raises `UnfitWorker` for a pool or a Redis that would lose work."""
        settings, pool = self._settings, _pool_of(worker)
        fitness = Fitness(
            place=place_of(settings.redis_url),
            fsync_intent=settings.fsync_intent,
            telemetry=self._telemetry,
        )
        unfit = fitness.at_start(lambda: self.store(WIRE_VERSION))
        if unfit is not None:
            raise UnfitWorker(unfit)
        dispatch = Dispatch(self._app, self.runtime)
        ticker = Ticker(
            make_ticks=lambda: [
                Tick(self.store(one), dispatch, self._telemetry, older=one != WIRE_VERSION)
                for one in wire_versions.SERVED
            ],
            presence=Presence(
                WorkerPresence(
                    name=str(worker.hostname),
                    pid=os.getpid(),
                    version=version("batchling"),
                    pool=pool,
                    seal_public_key="",
                ),
                self._keyring,
                self._telemetry,
            ),
            dispatch=dispatch,
            telemetry=self._telemetry,
            fitness=fitness,
            tick_s=settings.tick_seconds,
        )
        return TickThread(ticker, self._telemetry)

    def leave(self, worker: Any) -> None:
        """Hand back every batch that the worker's processes hold."""
        shutdown.leave(self.runtime, worker.pool)


def _quieten(**_: Any) -> None:
    """Silence the log of libraries: a URL may hold a key, and our own events say what happens."""
    for name in ("httpx", "httpcore", "celery.worker.strategy", "celery.app.trace"):
        logging.getLogger(name).setLevel(logging.WARNING)


def _format_lines(log_format: str, *, logger: logging.Logger, **_: Any) -> None:
    """Write every line of the worker's log in one format, Celery's own too."""
    set_format(logger.handlers, log_format)


def _log_warnings(log_format: str) -> None:
    """Write Python's warnings as lines of the log: Celery warns of a worker run by root before it sets up its log."""
    handler = logging.StreamHandler()
    set_format([handler], log_format)
    warnings = logging.getLogger("py.warnings")
    warnings.addHandler(handler)
    warnings.propagate = False
    logging.captureWarnings(True)


def _pool_of(worker: Any) -> str:
    """Return the pool's name; raises `UnfitWorker` for pools that lose messages when they stop (gevent, eventlet)."""
    module = str(getattr(worker.pool_cls, "__module__", ""))
    pool = {"thread": "threads"}.get(module.rpartition(".")[2], module.rpartition(".")[2])
    if pool not in POOLS:
        raise UnfitWorker(
            f"The {pool} pool loses running work when it stops: start the worker with --pool prefork or --pool threads."
        )
    return pool


def _send_events(app: Celery, events: Sequence[tuple[str, Fields]]) -> None:
    with (
        app.connection_for_write() as connection,
        app.events.Dispatcher(connection, hostname="batches@batchling") as out,
    ):
        for kind, fields in events:
            out.send(kind, **fields)


def app_or_exit() -> Celery:
    """Return the app of this process' environment; for a wrong setting, print one sentence and exit with code 2."""
    flower.prepare(sys.argv, os.environ)
    ignored = foreign_settings.leave_out(os.environ)
    for said in (ignored, *setting_names.unread(os.environ)):
        if said is not None:
            sys.stderr.write(f"{said}\n")
    try:
        if flower.is_started_by(sys.argv):
            for name in [one for one in os.environ if one.startswith("BATCHLING_")]:
                if name not in of_dashboard():
                    del os.environ[name]
            dashboard = _located(load_dashboard())
            _log_warnings(dashboard.log_format)
            _install_pages(dashboard)
            return make_dashboard(dashboard)
        settings = _located(load())
        _log_warnings(settings.log_format)
        return make_app(settings)
    except sealing.UnreadableSealKey as error:
        sentence = f"{KEYRING} is not usable: {str(error).rstrip('.')}."
    except (WrongSetting, UnfitWorker, UnusableFile, UnusableUrl, StackError) as error:
        sentence = str(error)
    sys.stderr.write(sentence + "\n")
    raise SystemExit(shutdown.USAGE)


def _install_pages(settings: DashboardSettings) -> None:
    from .pages import install  # noqa: PLC0415 - imports Flower, which a worker's processes do without

    install.install(settings)


def _located(settings: S) -> S:
    """Return the settings with the URL of the embedded Redis, unless they name another one. Raises `UnfitWorker`."""
    if settings.redis_url:
        return settings
    running = control.status(settings.home)
    if running.redis is None:
        raise UnfitWorker(
            "BATCHLING_REDIS_URL is not set and no embedded stack runs: set it, or start a stack with `batchling up`."
        )
    return settings.model_copy(update={"redis_url": running.redis_url})
