"""Wakes a worker's consumer when a thread of its pool becomes free.

With `worker_disable_prefetch` Celery reads no message while every slot is busy, and it compares the two only when its
event loop turns. The end of a task in a child process turns that loop; the end of a task in a thread does not
(Celery 5.7), so that a message would wait for the loop's next timer, up to a second. Events of tasks hide this: their
buffer is flushed on the loop.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from celery.concurrency import thread


class WakingExecutor(ThreadPoolExecutor):
    """A thread pool that calls `wake` after each task, on the thread of the task."""

    def __init__(self, n_threads: int, wake: Callable[[], None]) -> None:
        super().__init__(max_workers=n_threads)
        self._wake = wake

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Start `fn`; wake the consumer when it has ended and Celery has counted its end."""
        future = super().submit(fn, *args, **kwargs)
        future.add_done_callback(lambda _: self._wake())
        return future


def wake_at_ends(worker: Any) -> None:
    """Make a worker's pool of threads wake its event loop at the end of each task; call it before the first task."""
    hub, is_of_threads = worker.hub, isinstance(worker.pool, thread.TaskPool)
    if hub is not None and is_of_threads:
        worker.pool.executor = WakingExecutor(worker.pool.limit, lambda: hub.call_soon(_turn))


def _turn() -> None:
    """Do nothing: the event loop looks for free slots whenever it turns."""
