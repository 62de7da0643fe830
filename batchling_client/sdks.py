"""The LLM SDKs and frameworks of this environment, and over which HTTP library each sends its calls."""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Final

from . import uncaught

KNOWN: Final = (
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
    "langchain-openai",
    "langchain-groq",
    "langchain-anthropic",
    "langchain-mistralai",
    "langchain-google-genai",
    "langchain-google-vertexai",
    "langchain-together",
    "langchain-xai",
    "langchain-aws",
    "langchain-litellm",
    "pydantic-ai-slim",
    "instructor",
    "dspy",
)
"""Distributions, those first that others send through."""

_OVER: Final[Mapping[str, str]] = {
    "xai-sdk": "grpc",
    "google-cloud-aiplatform": "grpc",
    "boto3": "urllib3",
}
"""Where the requirements do not tell: these have HTTP libraries too, for other ends."""

_ASYNC_OVER: Final[Mapping[str, str]] = {"google-genai": "aiohttp"}
"""What is preferred for async calls where it can be imported, required or not."""

_FAMILY: Final = ("httpx2", "httpx")
"""What SDKs send over by their requirements; a requirement of aiohttp or requests is mostly for other ends."""

WAYS: Final[Mapping[str, str]] = {
    "xai-sdk": uncaught.XAI_WAY,
    "google-cloud-aiplatform": uncaught.GOOGLE_WAY,
    "boto3": uncaught.BEDROCK_WAY,
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
    """The known ones that are here."""
    versions = {}
    for name in KNOWN:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return [_read(name, version, versions) for name, version in versions.items()]


def _read(name: str, version: str, versions: Mapping[str, str]) -> Sdk:
    lines = importlib.metadata.requires(name) or []
    always = [_named(line) for line in lines if "extra ==" not in line]
    over = _OVER.get(name) or next((library for library in _FAMILY if library in always), "")
    # One without a library of its own has its SDKs as extras; what of them is here can be sent through.
    others = always if over else [_named(line) for line in lines]
    preferred = _ASYNC_OVER.get(name, "")
    return Sdk(
        name=name,
        version=version,
        blocking=over,
        awaiting=preferred if preferred and find_spec(preferred) is not None else over,
        through=tuple(other for other in versions if other in others and other != name),
    )


def _named(requirement: str) -> str:
    word = re.match(r"[A-Za-z0-9_.-]+", requirement)
    return re.sub(r"[-_.]+", "-", word[0]).lower() if word else ""
