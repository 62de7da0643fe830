"""Tracers that follow tasks: batchling's own work does not appear in a caller's trace."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Coroutine
from contextvars import ContextVar
from typing import Any

import pytest

from batchling_client.session.own_context import apart, task_apart

_span: ContextVar[str | None] = ContextVar("span", default=None)


async def span() -> str | None:
    return _span.get()


async def test_a_tracer_that_hands_a_span_to_every_new_task_hands_none_to_ours(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # As ddtrace has it (ddtrace/contrib/internal/asyncio/patch.py): the span that is open where a task is made is
    # opened again inside it, whatever context the task is given.
    loop = asyncio.get_running_loop()
    create_task = loop.create_task

    @functools.wraps(create_task)
    def traced(work: Coroutine[Any, Any, Any], **options: Any) -> asyncio.Task[Any]:
        caller = _span.get()

        async def opened() -> Any:
            if caller is not None:
                _span.set(caller)
            return await work

        return create_task(opened(), **options)

    monkeypatch.setattr(loop, "create_task", traced)
    _span.set("the caller's")
    assert await loop.create_task(span()) == "the caller's"
    assert await apart(span()) is None
    assert await task_apart(loop, span()) is None
    assert _span.get() == "the caller's"
