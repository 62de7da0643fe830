"""The registry of libraries whose calls are caught, or seen and warned of, and the switch for all of them.

Threads are in it too: what a block starts remembers the block, so that calls after its end are seen.
"""

import importlib
import os
import sys
import threading
from typing import Final, cast

from .interceptor import Interceptor

__all__ = ["ADAPTERS", "WARNED_OF", "install", "let_go", "uninstall"]

ADAPTERS: Final = (
    "batchling_client.intercept.libraries.httpx",
    "batchling_client.intercept.libraries.httpcore",
    "batchling_client.intercept.libraries.aiohttp",
    "batchling_client.intercept.libraries.requests",
    "batchling_client.intercept.libraries.lm15",
    "batchling_client.intercept.libraries.urllib3",
    "batchling_client.intercept.libraries.http_client",
    "batchling_client.intercept.libraries.grpc",
    "batchling_client.intercept.libraries.threads",
)

WARNED_OF: Final = frozenset({"urllib3", "http.client", "grpc"})
"""Libraries whose calls are seen and not caught: they pass with a warning."""


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
        for name in ADAPTERS:
            _adapter(name).install()
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
        for name in ADAPTERS:
            _adapter(name).uninstall()


def _adapter(name: str) -> Interceptor:
    return cast("Interceptor", importlib.import_module(name))
