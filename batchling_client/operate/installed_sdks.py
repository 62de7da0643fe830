"""The LLM SDKs and frameworks of this environment, and over which HTTP library each sends its calls."""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from ..intercept import switch
from ..intercept.library import Library

SDKS: Final = (
    "openai",
    "groq",
    "anthropic",
    "mistralai",
    "google-genai",
    "together",
    "litellm",
    "xai-sdk",
    "boto3",
    "google-cloud-aiplatform",
    "langchain-mistralai",
    "langchain-google-vertexai",
    "dspy",
)
"""Distributions that send calls by themselves, and through what they require of this list."""

FRAMEWORKS: Final = (
    "langchain-openai",
    "langchain-groq",
    "langchain-anthropic",
    "langchain-google-genai",
    "langchain-together",
    "langchain-xai",
    "langchain-aws",
    "langchain-litellm",
    "pydantic-ai-slim",
    "instructor",
)
"""Distributions that send through SDKs alone, which are often extras of theirs: what of them is here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sdk:
    """An installed SDK or framework; its libraries by colour are empty where it sends through others alone."""

    name: str
    version: str
    blocking: str
    awaiting: str
    through: tuple[str, ...]

    @property
    def libraries(self) -> tuple[str, ...]:
        """The HTTP libraries it sends over by itself."""
        return tuple(dict.fromkeys(name for name in (self.blocking, self.awaiting) if name))

    @property
    def title(self) -> str:
        return f"{self.name} {self.version}"


def installed() -> list[Sdk]:
    """Return the known SDKs that are installed."""
    versions = {}
    for name in (*SDKS, *FRAMEWORKS):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return [_read(name, version, versions) for name, version in versions.items()]


def _read(name: str, version: str, versions: Mapping[str, str]) -> Sdk:
    lines = importlib.metadata.requires(name) or []
    if name in FRAMEWORKS:
        over, others = "", [_named(line) for line in lines]
    else:
        others = [_named(line) for line in lines if "extra ==" not in line]
        over = _over(name, others)
    preferred = (library.name for library in switch.libraries() if name in library.async_sdks)
    return Sdk(
        name=name,
        version=version,
        blocking=over,
        awaiting=next((library for library in preferred if find_spec(library) is not None), over),
        through=tuple(other for other in versions if other in others and other != name),
    )


def _over(sdk: str, required: Sequence[str]) -> str:
    """Return the library over which an SDK sends by itself; empty if it is not known."""
    known = switch.libraries()
    over = [library for library in known if sdk in library.sdks or _carries(sdk, library)]
    over += [library for library in known if library.is_requirement and _named(library.name) in required]
    return over[0].name if over else ""


def _carries(sdk: str, library: Library) -> bool:
    folder = library.vendored.get(sdk)
    return folder is not None and Path(str(importlib.metadata.distribution(sdk).locate_file(folder))).is_dir()


def _named(requirement: str) -> str:
    word = re.match(r"[A-Za-z0-9_.-]+", requirement)
    return re.sub(r"[-_.]+", "-", word[0]).lower() if word else ""
