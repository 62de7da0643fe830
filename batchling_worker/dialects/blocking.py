"""Blocking calls of providers' libraries, each in a thread of its own, which nobody waits for without end.

A library's timeout passes over an answer that comes a byte at a time. Such a call is given up here; its thread ends
with its connection, and holds up neither other calls nor the end of the worker.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import threading
import time
from collections.abc import Callable
from typing import TypeVar, cast

from ..call_outcome import Underway
from .slow_answers import LONGEST_TRANSFER_S

T = TypeVar("T")


class TooSlowError(OSError):
    """A call brought next to nothing for too long."""


async def in_thread(
    work: Callable[[], T],
    underway: Underway,
    longest_s: float,
    break_off: Callable[[], None] = lambda: None,
) -> T:
    """Return what `work` returns.

    Raises `TooSlowError`, after `break_off`, once it has not moved for so long, or runs for longer than any transfer.
    """
    ends_at = time.monotonic() + LONGEST_TRANSFER_S
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()
    context = contextvars.copy_context()

    def tell(outcome: T | None, error: BaseException | None) -> None:
        if done.done():
            return
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(cast("T", outcome))

    def run() -> None:
        outcome: T | None = None
        failure: BaseException | None = None
        try:
            outcome = context.run(work)
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is raised where the call is waited for
            failure = error
        # A loop that is closed waits for nothing.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(tell, outcome, failure)

    threading.Thread(target=run, name="batchling-call", daemon=True).start()
    while not done.done():
        left_s = min(longest_s - underway.stalled_s, ends_at - time.monotonic())
        if left_s <= 0:
            done.cancel()
            break_off()
            raise TooSlowError("next to nothing came")
        await asyncio.wait({done}, timeout=left_s)
    return done.result()
