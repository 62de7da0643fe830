"""The Celery app, and the worker's only composition root."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any, Final
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from celery import Celery
from celery.signals import after_setup_logger, worker_process_init, worker_process_shutdown
from celery.worker import state as worker_state
from kombu import Queue

from batchling_client.wire import sealing
from batchling_client.wire.deployment import setting_names
from batchling_client.wire.deployment.connection import (
    CONNECT_SECONDS,
    HEALTH_SECONDS,
    REPLY_SECONDS,
    UnusableUrl,
    connect,
    parse_sentinel,
    place_of,
)
from batchling_client.wire.keys import DRAINED_VERSIONS, WIRE_VERSION, Keys
from batchling_client.wire.records.row_and_result import WorkerPresence
from batchling_client.wire.scripts import Fsync

from .claim import Terms
from .engine.accounts import Accounts
from .engine.engine import Engine
from .errors import UnfitWorker
from .pipeline.step import StepSettings
from .providers import Providers
from .runtime import flower, foreign_settings, shutdown, tasks
from .runtime.backlog import key_prefix, queue_of
from .runtime.dispatch import Dispatch
from .runtime.redis_health import Fitness
from .runtime.step_loop import Runtime
from .runtime.ticker import Ticker, TickStep
from .settings import WorkerSettings, WrongSetting, load
from .stack import control
from .stack.errors import StackError
from .store import Store
from .telemetry import Fields, Telemetry

USAGE: Final = 2
FAILURE: Final = 1
FSYNC_MS: Final = 5_000
"""How long a create waits for its record to be on disk: several times what `appendfsync everysec` takes."""
RESENDS: Final = 2
"""A worker may send each command twice: what a token has moved, the same token does not move again.

A `begin` whose reply was lost is known by its nonce, and answered again.
"""
POOLS: Final = ("prefork", "threads", "solo")


def make_app(settings: WorkerSettings) -> Celery:
    """Return a Celery app that runs the pipeline of one deployment."""
    # No fix-ups: where DJANGO_SETTINGS_MODULE is set, Celery's would set up that project in each of our processes.
    app = Celery("batchling", broker=broker_url(settings.redis_url), fixups=[])
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
        task_default_queue=queue_of(WIRE_VERSION),
        task_queues=[Queue(queue_of(version)) for version in _drained()],
        task_create_missing_queues=False,
        worker_hijack_root_logger=True,
        enable_utc=True,
    )
    _assemble(app, settings)
    return app


def _drained() -> list[int]:
    """Return the wire versions that this worker serves, its own first."""
    return sorted(DRAINED_VERSIONS, reverse=True)


def broker_url(redis_url: str) -> str:
    """Return the deployment's Redis as kombu spells it."""
    if redis_url.startswith("unix://"):
        path, options = _without_options(redis_url)
        database = f"?virtual_host={options['db']}" if "db" in options else ""
        return "redis+socket://" + path.removeprefix("unix://") + database
    if redis_url.startswith("sentinel://"):
        watch = parse_sentinel(redis_url)
        credentials = f":{quote(watch.password)}@" if watch.password else ""
        return ";".join(
            f"sentinel://{credentials}{host}:{port}/{watch.database}" for host, port in watch.addresses
        )
    bare, options = _without_options(redis_url)
    if "db" in options:
        bare = urlsplit(bare)._replace(path=f"/{options['db']}").geturl()
    ssl = {name: value for name, value in options.items() if name.startswith("ssl_")}
    if bare.startswith("rediss://"):
        # Without a word on it, kombu takes any certificate.
        ssl.setdefault("ssl_cert_reqs", "required")
    return f"{bare}?{urlencode(ssl)}" if ssl else bare


def _without_options(redis_url: str) -> tuple[str, dict[str, str]]:
    """Return the URL without its query, which kombu cannot read, and the options that redis-py would read there."""
    bare, _, query = redis_url.partition("?")
    return bare, dict(parse_qsl(query))


def transport_options(redis_url: str, namespace: str) -> dict[str, object]:
    """Return kombu's connection options; every Celery key of a deployment has its own prefix.

    A connection that went dead in silence is noticed within one second and two health checks.
    """
    _, said = _without_options(redis_url)
    options: dict[str, object] = {
        # A message may be lost, its batch is due again with the lease: to keep a copy of it until it is acknowledged
        # would be work for nothing, and ends the worker where Redis goes away with a message in its hands (kombu 5.7).
        "ack_emulation": False,
        "socket_timeout": float(said.get("socket_timeout", REPLY_SECONDS)),
        "socket_connect_timeout": float(said.get("socket_connect_timeout", CONNECT_SECONDS)),
        "socket_keepalive": not redis_url.startswith("unix://"),
        "health_check_interval": float(said.get("health_check_interval", HEALTH_SECONDS)),
        "global_keyprefix": key_prefix(namespace),
    }
    if redis_url.startswith("sentinel://"):
        options["master_name"] = parse_sentinel(redis_url).service
    return options


def _assemble(app: Celery, settings: WorkerSettings) -> None:
    telemetry = Telemetry(lambda events: _send_events(app, events))
    public_key, private_key = settings.seal_pair()
    providers = Providers(settings.providers)

    fsync = Fsync(replicas=settings.fsync_replicas, within_ms=FSYNC_MS)
    terms = Terms(
        lease_ms=int(settings.lease_seconds * 1000),
        result_ttl_ms=int(settings.result_ttl_seconds * 1000),
        max_attempts=settings.max_attempts,
        fsync_intent=fsync if settings.fsync_intent else None,
    )

    def make_store(version: int) -> Store:
        return Store(
            redis=connect(settings.redis_url, n_resends=RESENDS),
            keys=Keys(settings.namespace, version),
            terms=terms,
        )

    def make_engine(version: int) -> Engine:
        store = make_store(version)
        step_settings = StepSettings(
            namespace=settings.namespace,
            poll_interval_s=settings.poll_interval_seconds,
            max_attempts=settings.max_attempts,
            reconcile_patience_s=settings.reconcile_patience_seconds,
            results_patience_s=settings.results_patience_seconds,
            keeps_files=settings.keep_files,
            poll_unnamed="poll_interval_seconds" not in settings.model_fields_set,
        )
        accounts = Accounts(
            store,
            settings.providers,
            private_key,
            silence_s=settings.http_silence_seconds,
            keeps_files=settings.keep_files,
        )
        return Engine(
            store=store,
            accounts=accounts,
            providers=providers,
            step_settings=step_settings,
            telemetry=telemetry,
        )

    runtime = Runtime(make_engine)
    tasks.register(app, runtime, DRAINED_VERSIONS)

    fitness = Fitness(
        place=place_of(settings.redis_url), fsync_intent=settings.fsync_intent, telemetry=telemetry
    )

    def make_ticker(worker: Any) -> Ticker:
        pool = _pool_of(worker)
        unfit, known = fitness.at_start(lambda: make_store(WIRE_VERSION))
        if unfit is not None:
            raise UnfitWorker(unfit)
        name = str(worker.hostname)
        presence = WorkerPresence(
            name=name,
            pid=os.getpid(),
            version=version("batchling"),
            pool=pool,
            seal_public_key=sealing.digest(public_key),
        )
        return Ticker(
            make_stores=lambda: [make_store(version) for version in _drained()],
            presence=presence,
            dispatch=Dispatch(app, runtime),
            telemetry=telemetry,
            fitness=fitness,
            known=known,
            tick_s=settings.tick_seconds,
            give_up=_stop_worker,
        )

    def leave(worker: Any) -> None:
        shutdown.leave(runtime, worker.pool)

    step = type("Tick", (TickStep,), {"make_ticker": staticmethod(make_ticker), "leave": staticmethod(leave)})
    app.steps["worker"].add(step)
    worker_process_init.connect(lambda **_: shutdown.listen(runtime), weak=False)
    worker_process_shutdown.connect(lambda **_: runtime.leave(), weak=False)
    after_setup_logger.connect(_quieten, weak=False)


def _stop_worker() -> None:
    """Stop this worker as SIGTERM would, with an exit code that makes its supervisor start another."""
    vars(worker_state)["should_stop"] = FAILURE


def _quieten(**_: Any) -> None:
    """Silence the log of libraries: a URL may hold a key, and our own events say what happens."""
    for name in ("httpx", "httpcore", "celery.worker.strategy", "celery.app.trace"):
        logging.getLogger(name).setLevel(logging.WARNING)


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
        settings = load()
        if not settings.redis_url:
            settings = settings.model_copy(update={"redis_url": _url_of_embedded(settings)})
        return make_app(settings)
    except (WrongSetting, UnfitWorker, UnusableUrl, sealing.UnreadableSealKey, StackError) as error:
        sentence = str(error)
    sys.stderr.write(sentence + "\n")
    raise SystemExit(USAGE)


def _url_of_embedded(settings: WorkerSettings) -> str:
    running = control.status(settings.home)
    if running.redis is None:
        raise UnfitWorker(
            "BATCHLING_REDIS_URL is not set and no embedded stack runs: set it, or start a stack with `batchling up`."
        )
    return running.redis_url
