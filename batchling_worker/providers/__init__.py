"""The providers of the route registry: each has one module here, of its name, loaded on first use."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Mapping
from importlib.metadata import metadata
from typing import Final

from batchling_client.wire.deployment.installing import install
from batchling_client.wire.routes import ROUTES

from ..dialects.openai.own_endpoint import own_endpoint
from ..errors import PermanentError
from ..provider import Provider
from ..settings import ProviderSettings


def names() -> tuple[str, ...]:
    """Return the names of the registered providers, without loading any."""
    return tuple(route.provider for route in ROUTES)


@functools.cache
def load(name: str) -> Provider:
    """Return the provider of that name, the same object each time; raises `PermanentError` if it cannot be loaded."""
    # The name comes from a stored record: only modules that the registry names are ever imported.
    if name not in names():
        raise PermanentError(
            f"No provider is called {name!r}: there are {', '.join(names())}, and such endpoints as the workers' "
            "BATCHLING_PROVIDERS__NAME__BASE_URL name."
        )
    try:
        provider: Provider = importlib.import_module(f"{__name__}.{name}").PROVIDER
    except ModuleNotFoundError as error:
        # A provider with libraries of its own has an extra of its name.
        extra = name if name in (metadata("batchling").get_all("Provides-Extra") or ()) else "worker"
        raise PermanentError(
            f"{name} needs {error.name}, which this worker does not have: run {install(extra)}."
        ) from None
    return provider


class Providers:
    """The providers of one deployment: the registry's, and the endpoints that its settings make."""

    def __init__(self, settings: Mapping[str, ProviderSettings]) -> None:
        registered = names()
        self._own: Final = {
            name: own_endpoint(name, said) for name, said in settings.items() if name not in registered
        }
        self._least_looks_s: Final = {
            name: said.poll_interval_seconds
            for name, said in settings.items()
            if said.poll_interval_seconds is not None
        }

    def load(self, name: str) -> Provider:
        """Return the provider of that name, the same object each time; raises `PermanentError` if there is none."""
        return self._own.get(name) or load(name)

    def least_look_s(self, name: str) -> float:
        """Return the shortest pause between two looks at a batch, in seconds: the setting's, else the provider's."""
        said = self._least_looks_s.get(name)
        return self.load(name).facts.least_look_s if said is None else said
