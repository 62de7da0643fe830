"""The port of the sandbox: the interface of a provider's emulator, and how the server loads emulators."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Mapping
from types import ModuleType
from typing import Protocol

from aiohttp import web

from batchling_client.wire.routes import ROUTES

from .batches.dialect import Traits
from .world.world import World


class Emulator(Protocol):
    """One provider; its routes start with `/` and its name."""

    name: str
    traits: Traits

    def routes(self) -> Iterable[web.RouteDef]:
        """Return every route of the provider."""

    async def batches(self) -> list[Mapping[str, object]]:
        """Move every batch on to now, which completes the ledger, and return them as JSON, oldest first."""

    async def clear(self) -> None:
        """Forget files and batches."""


def load(world: World) -> tuple[Emulator, ...]:
    """Return an emulator of each registered provider, from its module's function `emulate(world)`."""
    return tuple(_load(world, name) for name in names())


def _load(world: World, name: str) -> Emulator:
    emulator: Emulator = module_of(name).emulate(world.seen_by(name))
    world.faults.spare(name, emulator.traits.unable)
    return emulator


def settings(name: str, base_url: str) -> dict[str, str]:
    """Return the environment variables that point workers at a provider's emulator.

    If more than a base URL is needed, its module has a function `settings(base_url)` for the rest.
    """
    module = module_of(name)
    more: Callable[[str], dict[str, str]] | None = getattr(module, "settings", None)
    # A rehearsal must not reach a real provider, whatever region a call names.
    setting = f"BATCHLING_PROVIDERS__{name.upper()}"
    plain = {f"{setting}__BASE_URL": base_url, f"{setting}__ALL_HOSTS": "true"}
    return {**plain, **(more(base_url) if more else {})}


def names() -> tuple[str, ...]:
    """Return the names of the registered providers, without loading them."""
    return tuple(route.provider for route in ROUTES)


def module_of(name: str) -> ModuleType:
    """Import the emulator's module of a provider."""
    return importlib.import_module(f"{__package__}.providers.{name}")
