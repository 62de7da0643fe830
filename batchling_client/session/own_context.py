"""The context of batchling's own work, so that its calls do not appear in a caller's trace."""

from __future__ import annotations

import asyncio
import contextvars
import sys
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

T = TypeVar("T")

_OTEL: Final = "opentelemetry.context"


def own_context() -> contextvars.Context:
    """Return a context without a caller's span, in which OpenTelemetry, where it is imported, records none either."""
    context = contextvars.Context()
    tracing: Any = sys.modules.get(_OTEL)
    key = getattr(tracing, "_SUPPRESS_INSTRUMENTATION_KEY", None)
    if key is not None:
        context.run(lambda: tracing.attach(tracing.set_value(key, True)))
    return context


async def apart(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine in a context of its own; cancelling the caller cancels it."""
    return await task_apart(asyncio.get_running_loop(), work)


def droppable(task: asyncio.Task[T]) -> asyncio.Task[T]:
    """Return a task of batchling's own of which asyncio says nothing if the program drops its loop with the task."""
    # asyncio does the same with the future of a gather; there is no public name for it.
    vars_of: Any = task
    vars_of._log_destroy_pending = False
    return task


def task_apart(loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """Start a coroutine in a context of its own, also where a tracer hands the caller's span to every new task."""
    context = own_context()
    # ddtrace looks for a span where the task is created, and attaches it whatever context the task is given.
    return droppable(context.run(lambda: loop.create_task(work, context=context)))
