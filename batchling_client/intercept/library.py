"""What an interceptor says of its library: how to see that its calls are caught, and which SDKs send over it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, Final

PROBE_HOST: Final = "probe.batchling.invalid"
PROBE_URL: Final = f"https://{PROBE_HOST}/"
CAUGHT: Final = 299
"""The status of the answer to a probe that was caught."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Library:
    """One library that sends calls, whether they are caught or only seen and warned of."""

    name: str
    """What `batchling doctor` and the requirements of SDKs call it."""
    modules: tuple[str, ...]
    """The modules that are patched once they are imported; `batchling doctor` imports the first one."""
    marks: tuple[str, ...] = ()
    """Names that a module of the library has, and a stand-in of the same name has not."""
    probe: Callable[[Any], Awaitable[bool]] | None = None
    """Sends a POST to `PROBE_URL` by each method that is patched, and returns whether all were `CAUGHT`.

    It must fail before it opens a connection. None = nothing is caught.
    """
    asked_first: tuple[str, ...] = ()
    """The patched method and those above it, with their classes, if tests and programs replace them by their own."""
    warned_of: bool = False
    """Whether its calls are seen and not caught: they pass with a warning."""
    is_requirement: bool = False
    """Whether an SDK that requires it sends over it; a requirement of most others is for other ends."""
    sdks: Mapping[str, str] = field(default_factory=dict)
    """SDKs that send over it, required or not -> what to do instead, where its calls are not caught."""
    async_sdks: tuple[str, ...] = ()
    """SDKs that prefer it for async calls wherever it can be imported."""
    vendored: Mapping[str, str] = field(default_factory=dict)
    """SDKs that carry a copy of it -> the folder of their distribution in which it is, if the release has one."""

    def is_in(self, module: ModuleType) -> bool:
        """Return whether a module is the library, and not a stand-in."""
        return all(hasattr(module, mark) for mark in self.marks)
