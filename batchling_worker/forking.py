"""What a worker loads before it forks its pool."""

from __future__ import annotations

from importlib import import_module
from typing import Final

from batchling_client.wire import scripts

from . import providers

LAZY: Final = ("anyio._backends._asyncio", "anyio.streams.tls", "certifi", "h11", "httpcore._backends.anyio")
"""What httpx loads with the first call."""


def preload() -> None:
    """Loads what steps would load at first use, which may be in a thread of the worker's main process.

    A child that is forked in the middle of an import has half of the module for ever, and each of its steps fails.
    """
    for name in LAZY:
        import_module(name)
    scripts.source("begin")
    for name in providers.names():
        providers.load(name)
