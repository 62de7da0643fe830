"""The event loop of a worker turns as soon as a thread of its pool is free, not at its next timer."""

from __future__ import annotations

import socket
import threading
from types import SimpleNamespace
from typing import Any

from celery.concurrency.thread import TaskPool
from kombu.asynchronous import Hub
from kombu.asynchronous.timer import Timer

from batchling_worker.runtime.waking_pool import wake_at_ends


def test_the_loop_turns_once_celery_has_counted_the_end_of_a_task() -> None:
    pool = TaskPool(limit=1)
    hub: Any = Hub(Timer(max_interval=3600))
    counted, seen, sleeps = threading.Event(), threading.Event(), threading.Event()
    ours, theirs = socket.socketpair()
    stopped: list[object] = []

    def turned() -> None:
        sleeps.set()
        if counted.is_set():
            seen.set()

    def turn() -> None:
        while not stopped:
            hub.run_once()

    # With a timer that is far off, the loop waits for ten seconds in its poll.
    hub.call_later(3600, stopped.append, None)
    hub.add_reader(ours, ours.recv, 1)
    hub.on_tick.add(turned)
    worker: Any = SimpleNamespace(pool=pool, hub=hub)
    wake_at_ends(worker)
    loop = threading.Thread(target=turn, daemon=True)
    loop.start()
    assert sleeps.wait(20)

    pool.on_apply(lambda: None, args=(), kwargs={}, callback=lambda _: counted.set())

    assert seen.wait(5)
    stopped.append(None)
    theirs.send(b".")
    loop.join(20)
    pool.on_stop()
    hub.close()
    ours.close()
    theirs.close()
