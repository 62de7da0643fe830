"""The switch for all interceptors: each file of `libraries` holds one.

Threads are among them: what a block starts remembers the block, so that calls after its end are seen.
"""

import functools
import importlib
import os
import pkgutil
import sys
import threading
from typing import Final

from .library import Library
from .patching import Patcher

__all__ = ["install", "interceptors", "let_go", "libraries", "uninstall"]

_PACKAGE: Final = f"{__package__}.libraries"


@functools.cache
def interceptors() -> tuple[Patcher, ...]:
    """Import and return every interceptor; none imports the library that it is for."""
    files = pkgutil.iter_modules(importlib.import_module(_PACKAGE).__path__)
    return tuple(importlib.import_module(f"{_PACKAGE}.{file.name}").INTERCEPTOR for file in files)


def libraries() -> tuple[Library, ...]:
    """Return every library whose calls are caught, or seen and warned of."""
    return tuple(library for interceptor in interceptors() for library in interceptor.libraries)


class _Switch:
    def __init__(self) -> None:
        self.n_users = 0
        # Users that are gone and still counted: appended to and popped from, each one atomic.
        self.gone: list[None] = []
        self.renew_lock()
        # A thread of the parent may have held the lock at the fork and does not exist in the child.
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self.renew_lock)

    def renew_lock(self) -> None:
        self.lock = threading.Lock()


_switch = _Switch()


def install() -> None:
    """Switch interception on for one more user, and restore patches that others removed since."""
    with _switch.lock:
        _switch.n_users += 1
        for interceptor in interceptors():
            interceptor.install()
    _take_off()


def uninstall() -> None:
    """Switch interception off for one user; the last one restores every library."""
    _switch.gone.append(None)
    with _switch.lock:
        _count_gone()
    _take_off()


def let_go() -> None:
    """Switch interception off for one user, from a callback of the garbage collector: it waits for no lock."""
    if not sys.is_finalizing():
        _switch.gone.append(None)
        _take_off()


def _take_off() -> None:
    # The thread that holds the lock checks again after releasing it.
    while _switch.gone and _switch.lock.acquire(blocking=False):
        try:
            _count_gone()
        finally:
            _switch.lock.release()


def _count_gone() -> None:
    while _switch.gone:
        _switch.gone.pop()
        _switch.n_users = max(0, _switch.n_users - 1)
    if _switch.n_users == 0:
        for interceptor in interceptors():
            interceptor.uninstall()
