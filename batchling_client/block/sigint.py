"""Notifies open blocks of Ctrl-C before the program gets the interrupt.

A `ThreadPoolExecutor` inside a plain block waits for its threads before the block is left: unless these are released
when the interrupt comes, the program hangs on answers that take hours.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Final

_watching: Final[list[Callable[[], None]]] = []


def watch(interrupted: Callable[[], None]) -> None:
    """Call `interrupted` at Ctrl-C, if this is the main thread and no other handler is set.

    It is called inside the signal handler: it must take no lock and must not raise.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    if signal.getsignal(signal.SIGINT) not in (signal.default_int_handler, _interrupt):
        return
    _watching.append(interrupted)
    signal.signal(signal.SIGINT, _interrupt)


def let_go(interrupted: Callable[[], None]) -> None:
    """End a `watch`; the last one to end restores the earlier handler of Ctrl-C."""
    if interrupted not in _watching:
        return
    _watching.remove(interrupted)
    mine = (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGINT) is _interrupt
    )
    if mine and not _watching:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def only_release() -> None:
    """Make the next Ctrl-C release open blocks and raise nothing, and the one after it interrupt as usual.

    For a program whose own code has ended: Python joins the threads of its pools then, and prints the traceback of an
    interrupt.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    if signal.getsignal(signal.SIGINT) in (signal.default_int_handler, _interrupt):
        signal.signal(signal.SIGINT, _release)


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """Hold back Ctrl-C in the main thread until the body is done, where no handler but Python's and ours is set."""
    before = (
        signal.getsignal(signal.SIGINT) if threading.current_thread() is threading.main_thread() else None
    )
    if before not in (signal.default_int_handler, _interrupt, _release):
        yield
        return
    pass_on = _release if before is _release else _interrupt
    pressed: list[tuple[int, FrameType | None]] = []

    def note(number: int, frame: FrameType | None) -> None:
        pressed.append((number, frame))

    signal.signal(signal.SIGINT, note)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGINT) is note:
            after = (
                _release if before is _release else _interrupt if _watching else signal.default_int_handler
            )
            signal.signal(signal.SIGINT, after)
        if pressed:
            pass_on(*pressed[-1])


def _release(_number: int, _frame: FrameType | None) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for interrupted in _watching:
        interrupted()


def _interrupt(number: int, frame: FrameType | None) -> None:
    for interrupted in _watching:
        interrupted()
    signal.default_int_handler(number, frame)
