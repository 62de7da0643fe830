"""Tells which HTTP libraries of this environment are covered, and which SDKs send over them."""

from __future__ import annotations

import importlib
import importlib.metadata
import re
from importlib.util import find_spec
from typing import Final

from . import interceptors, self_test
from .errors import NotIntercepted
from .wire.finding import Finding, Health

HTTP_LIBRARIES: Final = ("httpx", "httpx2", "aiohttp", "requests")
SDKS: Final = ("openai", "groq", "anthropic", "mistralai", "google-genai", "together", "litellm", "xai-sdk")


async def interception() -> list[Finding]:
    """Which HTTP libraries of this environment are covered, a probe sent through each, and who sends over them."""
    adapted = {name.rpartition(".")[2] for name in interceptors.ADAPTERS}
    # One adapter serves both: they are the same library under two names.
    covered = adapted | ({"httpx2"} if "httpx" in adapted else set())
    senders = _senders()
    found = []
    interceptors.install()
    try:
        for library in HTTP_LIBRARIES:
            if find_spec(library) is not None:
                used_by = ", ".join(senders.get(library, ())) or "no SDK here"
                found.append(await _of_library(library, covered=library in covered, used_by=used_by))
    finally:
        interceptors.uninstall()
    return found


async def _of_library(library: str, *, covered: bool, used_by: str) -> Finding:
    if not covered:
        return Finding(
            check=library,
            health=Health.NOTE,
            says=f"not covered: calls over it go straight to the provider at full price (used by {used_by})",
            mend="Send batchable calls over httpx or httpx2.",
        )
    try:
        importlib.import_module(library)
        await self_test.check()
    except NotIntercepted as error:
        return Finding(
            check=library,
            health=Health.FAILURE,
            says=str(error),
            mend="Import what patches the library before batchling, or take it out.",
        )
    except ImportError as error:
        return Finding(
            check=library,
            health=Health.NOTE,
            says=f"cannot be imported ({error.name})",
            mend=f"Reinstall {library}.",
        )
    return Finding(check=library, health=Health.OK, says=f"covered, a probe was caught (used by {used_by})")


def _senders() -> dict[str, list[str]]:
    """HTTP library -> the SDKs here that require it."""
    found: dict[str, list[str]] = {}
    for sdk in SDKS:
        try:
            required = importlib.metadata.requires(sdk) or []
            title = f"{sdk} {importlib.metadata.version(sdk)}"
        except importlib.metadata.PackageNotFoundError:
            continue
        for line in required:
            name = re.match(r"[A-Za-z0-9_.-]+", line)
            if name is not None and name[0].lower() in HTTP_LIBRARIES and "extra ==" not in line:
                found.setdefault(name[0].lower(), []).append(title)
    return found
