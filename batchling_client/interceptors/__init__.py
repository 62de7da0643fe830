"""The registry of libraries whose calls are caught, or seen and warned of, and the switch for all of them."""

import importlib
import os
import threading
from typing import Final, cast

from ..interceptor import Interceptor

__all__ = ["ADAPTERS", "WARNED_OF", "install", "uninstall"]

ADAPTERS: Final = (
    "batchling_client.interceptors.httpx",
    "batchling_client.interceptors.aiohttp",
    "batchling_client.interceptors.requests",
    "batchling_client.interceptors.lm15",
    "batchling_client.interceptors.urllib3",
    "batchling_client.interceptors.grpc",
)

WARNED_OF: Final = frozenset({"urllib3", "grpc"})
"""Libraries whose calls are seen and not caught: they pass with a warning."""


class _Switch:
    def __init__(self) -> None:
        self.n_users = 0
        self.renew_lock()
        # A thread of the parent may have held the lock at the fork and does not exist in the child.
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self.renew_lock)

    def renew_lock(self) -> None:
        self.lock = threading.Lock()


_switch = _Switch()


def install() -> None:
    """Switch interception on for one more user; patches that somebody took away since come back."""
    with _switch.lock:
        _switch.n_users += 1
        for name in ADAPTERS:
            _adapter(name).install()


def uninstall() -> None:
    """Switch interception off for one user; the last one restores every library."""
    with _switch.lock:
        _switch.n_users = max(0, _switch.n_users - 1)
        if _switch.n_users == 0:
            for name in ADAPTERS:
                _adapter(name).uninstall()


def _adapter(name: str) -> Interceptor:
    return cast("Interceptor", importlib.import_module(name))
