"""Whether tasks wait for their turn: behind a semaphore, a lock or a limiter of their program."""

from __future__ import annotations

import asyncio
from itertools import islice
from typing import Any, Final

MOST_LOOKED_AT: Final = 500
_DEEPEST: Final = 100
_MODULES: Final = frozenset({"asyncio.locks", "anyio._core._synchronization", "anyio._backends._asyncio"})


def are_awaited() -> bool:
    """Say whether a task of the running event loop waits until others let it begin; False where no loop runs."""
    try:
        tasks = asyncio.all_tasks()
    except RuntimeError:
        return False
    return any(_waits_for_turn(task) for task in islice(tasks, MOST_LOOKED_AT))


def _waits_for_turn(task: asyncio.Task[Any]) -> bool:
    inner: Any = task.get_coro()
    for _ in range(_DEEPEST):
        frame = getattr(inner, "cr_frame", None)
        if (
            frame is not None
            and frame.f_code.co_name.startswith("acquire")
            and frame.f_globals.get("__name__") in _MODULES
        ):
            return True
        inner = getattr(inner, "cr_await", None)
        if inner is None:
            return False
    return False
