"""Blocks the network: calls that an SDK sends past batchling are refused and recorded."""

from __future__ import annotations

import ipaddress
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_watchers: list[list[str]] = []


def _is_here(host: object) -> bool:
    if isinstance(host, bytes):
        host = host.decode()
    if not isinstance(host, str) or host in ("", "localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _look(event: str, words: tuple[Any, ...]) -> None:
    if not _watchers:
        return
    if event == "socket.getaddrinfo":
        host = words[0]
    elif event == "socket.connect" and isinstance(words[1], tuple):
        host = words[1][0]
    else:
        return
    if not _is_here(host):
        for seen in _watchers:
            seen.append(str(host))
        raise ConnectionRefusedError(f"no test talks to {host}")


# An audit hook sees every library and cannot be removed: without a watcher it does nothing.
sys.addaudithook(_look)


@contextmanager
def refused() -> Iterator[list[str]]:
    """Refuse every address except this machine's, in every thread, and yield the refused addresses."""
    seen: list[str] = []
    _watchers.append(seen)
    try:
        yield seen
    finally:
        _watchers.remove(seen)
