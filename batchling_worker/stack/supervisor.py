"""The stack's parent, detached from the process that started it: keeps Redis, a worker and Flower running.

SIGTERM stops everything, Redis last. SIGUSR1 hands over: it exits and leaves the children to the next supervisor.
"""

from __future__ import annotations

import logging
import os
import selectors
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from ..log_lines import emit, set_format
from . import keeper, lock, resp, state
from .keeper import Keeper
from .layout import Layout
from .order import Order
from .recipes import Recipes
from .state import Child, State

logger = logging.getLogger("batchling.stack")

LOOK_SECONDS: Final = 0.5
STARTING_LOOK_SECONDS: Final = 0.01
TRIM_SECONDS: Final = 60.0
HOPELESS_DEATHS: Final = 5
"""After this many deaths without an answer, Redis is given up; the next `up` tries again."""
LOCK_PATIENCE_S: Final = 5.0
WORKER_PATIENCE_S: Final = 20.0
"""How long running steps may take to end; other workers take over the rest when its lease expires."""
REDIS_PATIENCE_S: Final = 20.0
"""How long Redis may take to write its append-only file to disk."""


class Supervisor:
    """Runs one stack; its creator holds the supervisor's lock. Takes over children that an earlier supervisor left."""

    def __init__(self, order: Order, environment: Mapping[str, str], lock_descriptor: int) -> None:
        self._lock_descriptor = lock_descriptor
        self._layout = Layout(Path(order.home))
        self._socket = Path(order.socket)
        self._digest = state.digest_of(environment)
        self._namespace = state.namespace_of(environment)
        self._ordered = order.followed
        self._published: State | None = None
        self._served: Child | None = None
        known = state.read(self._layout.state)
        recipes = Recipes(self._layout, self._socket, environment)
        self._redis = Keeper(recipes.redis(order.redis_binary, order.redis_words))
        self._worker = Keeper(recipes.worker())
        flower_url = known.flower.label if known and known.flower else None
        self._flower = Keeper(recipes.flower(flower_url)) if order.flower else None
        for kept in self._kept():
            self._adopt(kept, known)
        if known is None or known.digest != self._digest:
            keeper.stop(self._settled(), patience_s=WORKER_PATIENCE_S)
        # An adopted worker has the settings that it was started with.
        self._followed = known.followed if known and self._worker.child else order.followed

    def run(self) -> None:
        """Keep the children running until a signal asks to stop or hand over."""
        wishes = _Wishes()
        trimmed_s = time.monotonic()
        while True:
            whole = self._tend()
            if self._served is None and self._redis.n_deaths >= HOPELESS_DEATHS:
                emit(logger, logging.ERROR, "redis_does_not_start", {"n_deaths": self._redis.n_deaths})
                return self.stop()
            wish = wishes.wait(LOOK_SECONDS if whole else STARTING_LOOK_SECONDS)
            if wish is signal.SIGTERM or not self._at_home():
                return self.stop()
            if wish is signal.SIGUSR1:
                return emit(logger, logging.INFO, "handed_over", {})
            if time.monotonic() - trimmed_s > TRIM_SECONDS:
                trimmed_s = time.monotonic()
                for kept in self._kept():
                    kept.trim_log()

    def stop(self) -> None:
        """Stop every child in bounded time, Redis last, and remove the published state."""
        keeper.stop(self._settled(), patience_s=WORKER_PATIENCE_S)
        keeper.stop([self._redis], patience_s=REDIS_PATIENCE_S)
        if self._at_home():
            self._layout.forget_socket(self._socket)
            self._layout.state.unlink(missing_ok=True)
        emit(logger, logging.INFO, "supervisor_stopped", {})

    def _adopt(self, kept: Keeper, known: State | None) -> None:
        """Take over a running child, found by its own answer, the published state or its command line."""
        child = known.child(kept.recipe.name) if known else None
        serving_pid = resp.serving_pid(self._socket) if kept is self._redis else None
        if serving_pid is not None:
            child = keeper.observe(serving_pid, kept.recipe.label)
        if child is None or not keeper.alive(child):
            child = keeper.stray(kept.recipe)
        if child is not None:
            kept.adopt(child)

    def _tend(self) -> bool:
        """Start missing children, the worker and Flower only if Redis answers; return whether everything runs."""
        if self._redis.running() and self._redis.child == self._served and not self._socket.exists():
            emit(logger, logging.WARNING, "socket_gone", {})
            keeper.stop([self._redis], patience_s=REDIS_PATIENCE_S)
        if not self._redis.running():
            self._redis.start_when_due()
        serving = resp.ready(self._socket)
        if serving:
            self._served = self._redis.child
            for kept in self._kept():
                if not kept.running():
                    kept.start_when_due()
                    self._followed = self._ordered if kept is self._worker else self._followed
        self._publish()
        return serving and all(kept.child for kept in self._kept())

    def _publish(self) -> None:
        seen = State(
            supervisor_pid=os.getpid(),
            socket=str(self._socket),
            namespace=self._namespace,
            digest=self._digest,
            followed=self._followed,
            redis=self._redis.child,
            worker=self._worker.child,
            flower=self._flower.child if self._flower else None,
        )
        if seen == self._published:
            return
        try:
            seen.write(self._layout.state)
        except OSError as error:
            # Such as a full disk: the children matter more than the published state, which the next round writes again.
            emit(logger, logging.WARNING, "state_not_written", {"error": str(error)})
        else:
            self._published = seen

    def _kept(self) -> list[Keeper]:
        return [self._redis, *self._settled()]

    def _settled(self) -> list[Keeper]:
        """Return the children that read settings."""
        return [kept for kept in (self._worker, self._flower) if kept is not None]

    def _at_home(self) -> bool:
        """Return False once somebody has removed the directory: a later stack would not find this one."""
        return lock.same_file(self._lock_descriptor, self._layout.supervisor_lock)


class _Wishes:
    """Signals that can be waited for with a time limit."""

    def __init__(self) -> None:
        self._reading, writing = os.pipe()
        os.set_blocking(self._reading, False)
        os.set_blocking(writing, False)
        signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._reading, selectors.EVENT_READ)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGCHLD):
            signal.signal(number, lambda *_: None)

    def wait(self, seconds: float) -> signal.Signals | None:
        """Wait for a signal and return it, None if none came; return early when a child ends."""
        if not self._selector.select(seconds):
            return None
        numbers = os.read(self._reading, 512)
        if signal.SIGTERM in numbers or signal.SIGINT in numbers:
            return signal.SIGTERM
        return signal.SIGUSR1 if signal.SIGUSR1 in numbers else None


def main(order: Order, environment: Mapping[str, str]) -> None:
    """Become the supervisor, unless there is one; the caller's process returns at once."""
    if os.fork():
        return
    os.umask(0o077)
    logging.basicConfig(level=logging.INFO)
    set_format(logging.getLogger().handlers, environment.get("BATCHLING_LOG_FORMAT", ""))
    lock_file = Layout(Path(order.home)).supervisor_lock
    try:
        with lock.held(lock_file, patience_s=LOCK_PATIENCE_S) as descriptor:
            emit(logger, logging.INFO, "supervisor_started", {"pid": os.getpid()})
            Supervisor(order, environment, descriptor).run()
    except TimeoutError:
        emit(logger, logging.INFO, "supervisor_runs_already", {})


if __name__ == "__main__":
    main(Order.decode(sys.argv[1]), os.environ)
