"""The LLM SDKs and frameworks of this environment, and over which HTTP library each sends its calls."""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from ..intercept import uncovered_clients

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

_OVER: Final[Mapping[str, str]] = {
    "xai-sdk": "grpc",
    "google-cloud-aiplatform": "grpc",
    "boto3": "urllib3",
}
"""SDKs whose requirements do not show it: they need HTTP libraries for other purposes, too."""

_VENDORED: Final[Mapping[str, tuple[str, str]]] = {"dspy": ("dspy/_vendor/lm15", "lm15")}
"""A folder of a distribution -> the HTTP library that is in it, where this release has it."""

_ASYNC_OVER: Final[Mapping[str, str]] = {"google-genai": "aiohttp"}
"""What is preferred for async calls where it can be imported, required or not."""

_FAMILY: Final = ("httpx2", "httpx")
"""What SDKs send over by their requirements; a requirement of aiohttp or requests is mostly for other ends."""

WAYS: Final[Mapping[str, str]] = {
    "xai-sdk": uncovered_clients.XAI_WAY,
    "google-cloud-aiplatform": uncovered_clients.GOOGLE_WAY,
    "boto3": uncovered_clients.BEDROCK_WAY,
}
"""What to do instead, where no call of an SDK is caught."""


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
        over = _OVER.get(name) or _vendored(name)
        over = over or next((library for library in _FAMILY if library in others), "")
    preferred = _ASYNC_OVER.get(name, "")
    return Sdk(
        name=name,
        version=version,
        blocking=over,
        awaiting=preferred if preferred and find_spec(preferred) is not None else over,
        through=tuple(other for other in versions if other in others and other != name),
    )


def _vendored(name: str) -> str:
    folder, library = _VENDORED.get(name, ("", ""))
    if not folder:
        return ""
    place = importlib.metadata.distribution(name).locate_file(folder)
    return library if Path(str(place)).is_dir() else ""


def _named(requirement: str) -> str:
    word = re.match(r"[A-Za-z0-9_.-]+", requirement)
    return re.sub(r"[-_.]+", "-", word[0]).lower() if word else ""
