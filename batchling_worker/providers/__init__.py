"""The registry of providers: one module each, loaded on first use."""

from __future__ import annotations

import functools
import importlib
from typing import Final

from ..errors import PermanentError
from ..provider import Provider

PROVIDERS: Final = (
    "batchling_worker.providers.openai",
    "batchling_worker.providers.groq",
)
"""Each module has a constant `PROVIDER`; its last word is the provider's name."""


def names() -> tuple[str, ...]:
    """The names of the registered providers; none is loaded for it."""
    return tuple(module.rpartition(".")[2] for module in PROVIDERS)


@functools.cache
def load(name: str) -> Provider:
    """The provider of that name, the same object each time; raises `PermanentError` where there is none."""
    for module in PROVIDERS:
        if module.rpartition(".")[2] == name:
            provider: Provider = importlib.import_module(module).PROVIDER
            return provider
    raise PermanentError(f"No provider is called {name!r}: there are {', '.join(names())}.")
