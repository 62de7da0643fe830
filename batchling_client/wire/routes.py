"""The registry of batchable calls: one entry a provider, and the rule that turns a call into a lane."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

MB: Final = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """What makes a call a provider's, which of its calls a batch takes, and how much fits into one.

    Limits and windows with their sources stand in the provider's file of the worker; the two are held equal by a test.
    """

    provider: str
    hosts: tuple[str, ...]
    endpoints: Mapping[str, str]
    """Path as the SDK calls it -> endpoint as the batch names it."""
    max_rows: int
    max_bytes: int
    max_row_bytes: int
    windows: tuple[str, ...]
    credential_headers: tuple[str, ...] = ("authorization",)
    batch_headers: tuple[str, ...] = ()
    """Headers that apply to a whole batch and therefore split lanes."""
    variables: Mapping[str, str] = field(default_factory=dict)
    """Header -> the environment variable in which the provider's own SDK looks for it, the API key's included."""


def _openai_paths(prefix: str, endpoints: Iterable[str]) -> dict[str, str]:
    return {prefix + endpoint: endpoint for endpoint in endpoints}


_OPENAI_ENDPOINTS: Final = (
    "/v1/chat/completions",
    "/v1/responses",
    "/v1/embeddings",
    "/v1/completions",
    "/v1/moderations",
    "/v1/images/generations",
    "/v1/images/edits",
    "/v1/videos",
)

ROUTES: Final = (
    Route(
        provider="openai",
        hosts=("api.openai.com",),
        endpoints=_openai_paths("", _OPENAI_ENDPOINTS),
        max_rows=50_000,
        max_bytes=200 * MB,
        max_row_bytes=200 * MB,
        windows=("24h",),
        batch_headers=("openai-organization", "openai-project"),
        variables={
            "authorization": "OPENAI_API_KEY",
            "openai-organization": "OPENAI_ORG_ID",
            "openai-project": "OPENAI_PROJECT_ID",
        },
    ),
    Route(
        provider="groq",
        hosts=("api.groq.com",),
        endpoints=_openai_paths(
            "/openai", ("/v1/chat/completions", "/v1/audio/transcriptions", "/v1/audio/translations")
        ),
        max_rows=50_000,
        max_bytes=200 * MB,
        max_row_bytes=200 * MB,
        windows=(
            "24h",
            "48h",
            "72h",
            "96h",
            "120h",
            "144h",
            "168h",
            "1d",
            "2d",
            "3d",
            "4d",
            "5d",
            "6d",
            "7d",
        ),
        variables={"authorization": "GROQ_API_KEY"},
    ),
)


@dataclass(frozen=True, slots=True)
class Routes:
    """Finds the route of a host and path in constant time."""

    routes: tuple[Route, ...] = ROUTES
    _by_host: dict[str, Route] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_by_host", {host: route for route in self.routes for host in route.hosts})

    def of_host(self, host: str) -> Route | None:
        """The provider's route, whether or not the path is batchable."""
        return self._by_host.get(host)

    def named(self, provider: str) -> Route | None:
        """The route of a provider by name."""
        return next((route for route in self.routes if route.provider == provider), None)
