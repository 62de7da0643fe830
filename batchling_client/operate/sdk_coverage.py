"""Finds which HTTP libraries of this environment are covered, and whether each SDK's calls are caught."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from importlib.util import find_spec

from ..errors import NotIntercepted
from ..intercept import probe, switch
from ..intercept.library import Library
from ..wire.deployment.finding import Finding, Health
from . import installed_sdks
from .installed_sdks import Sdk


async def interception() -> list[Finding]:
    """Send a probe through each HTTP library; return which libraries and SDKs are covered, and what each SDK uses."""
    found = installed_sdks.installed()
    libraries = {}
    switch.install()
    try:
        for library in [one for one in switch.libraries() if one.probe is not None]:
            used_by = [sdk.title for sdk in found if library.name in sdk.libraries]
            # A vendored library is probed only if the SDK that vendors it is installed.
            if used_by or (not library.vendored and find_spec(library.modules[0]) is not None):
                titles = ", ".join(used_by) or "no SDK here"
                libraries[library.name] = await _of_library(library, used_by=titles)
    finally:
        switch.uninstall()
    return [*libraries.values(), *(of_sdk(sdk, libraries) for sdk in found)]


def of_sdk(sdk: Sdk, libraries: Mapping[str, Finding]) -> Finding:
    """Return whether an SDK's calls are caught, by the findings on the libraries that it uses."""
    if not sdk.libraries and not sdk.through:
        return Finding(
            check=sdk.name,
            health=Health.NOTE,
            says=f"{sdk.version}: none of the HTTP clients it uses is installed; its calls may not be intercepted",
            mend="Install the SDK of the provider that it is to call, or see that its calls go over httpx.",
        )
    through = [f"through {', '.join(sdk.through)}: see there"] if sdk.through else []
    missed = [library for library in sdk.libraries if library not in libraries]
    says = f"{sdk.version}, {'; '.join([*_own(sdk, libraries), *through])}"
    if not missed:
        broken = [
            libraries[library] for library in sdk.libraries if libraries[library].health is not Health.OK
        ]
        health, mend = (broken[0].health, broken[0].mend) if broken else (Health.OK, "")
        return Finding(check=sdk.name, health=health, says=says, mend=mend)
    ways = (library.sdks[sdk.name] for library in switch.libraries() if sdk.name in library.sdks)
    way = next(ways, "Send batchable calls over httpx, httpx2, aiohttp or requests.")
    return Finding(check=sdk.name, health=Health.NOTE, says=says, mend=way)


def _own(sdk: Sdk, libraries: Mapping[str, Finding]) -> Sequence[str]:
    if not sdk.libraries:
        return ()
    if len(sdk.libraries) == 1:
        return (f"over {sdk.blocking}: {_fate(sdk.blocking, libraries)}",)
    colours = (("blocking", sdk.blocking), ("async", sdk.awaiting))
    return tuple(f"{colour} over {name}: {_fate(name, libraries)}" for colour, name in colours)


def _fate(library: str, libraries: Mapping[str, Finding]) -> str:
    finding = libraries.get(library)
    if finding is not None:
        return "covered" if finding.health is Health.OK else f"not covered, see {library}"
    is_warned_of = any(one.warned_of for one in switch.libraries() if one.name == library)
    return "not batched, with a warning" if is_warned_of else "not seen"


async def _of_library(library: Library, *, used_by: str) -> Finding:
    try:
        importlib.import_module(library.modules[0])
        await probe.check()
    except NotIntercepted as error:
        return Finding(
            check=library.name,
            health=Health.FAILURE,
            says=str(error),
            mend="Import what patches the library before batchling, or take it out.",
        )
    except ImportError as error:
        return Finding(
            check=library.name,
            health=Health.NOTE,
            says=f"cannot be imported ({error.name})",
            mend=f"Reinstall {library.name}.",
        )
    return Finding(
        check=library.name, health=Health.OK, says=f"covered, a probe was caught (used by {used_by})"
    )
