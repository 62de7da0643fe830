"""The registry of providers is that of the routes: each has one module here, of its name, loaded on first use."""

from __future__ import annotations

import functools
import importlib

from batchling_client.wire.routes import ROUTES

from ..errors import PermanentError
from ..provider import Provider


def names() -> tuple[str, ...]:
    """The names of the registered providers; none is loaded for it."""
    return tuple(route.provider for route in ROUTES)


@functools.cache
def load(name: str) -> Provider:
    """The provider of that name, the same object each time; raises `PermanentError` where it cannot be had."""
    # A name comes out of a stored record: only what the registry names is ever imported.
    if name not in names():
        raise PermanentError(f"No provider is called {name!r}: there are {', '.join(names())}.")
    try:
        provider: Provider = importlib.import_module(f"{__name__}.{name}").PROVIDER
    except ModuleNotFoundError as error:
        raise PermanentError(
            f"{name} needs {error.name}, which this worker does not have: pip install 'batchling[{name}]'."
        ) from None
    return provider
