"""The port of the sandbox: what the server asks of a provider's emulator, and how it finds one."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping
from typing import Protocol

from aiohttp import web

from .world import World

PROVIDERS = (
    "batchling_worker.sandbox.openai",
    "batchling_worker.sandbox.groq",
)


class Emulator(Protocol):
    """One provider; its routes start with `/` and its name."""

    name: str

    def routes(self) -> Iterable[web.RouteDef]:
        """Return every route of the provider."""

    async def batches(self) -> list[Mapping[str, object]]:
        """Move every batch on to now, which completes the ledger, and return them as JSON, oldest first."""

    async def clear(self) -> None:
        """Forget files and batches."""


def load(world: World) -> tuple[Emulator, ...]:
    """Return an emulator of each registered provider; its module has a function `emulate(world)`."""
    return tuple(importlib.import_module(module).emulate(world) for module in PROVIDERS)


def names() -> tuple[str, ...]:
    """Return the names of the registered providers, without loading them."""
    return tuple(module.rpartition(".")[2] for module in PROVIDERS)
