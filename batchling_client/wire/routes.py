"""The registry of batchable calls: one entry a provider, and the rule that turns a call into a lane."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

MB: Final = 1_000_000


class Place(NamedTuple):
    """Where a batchable call goes."""

    endpoint: str
    """As the batch names it."""
    model: str | None
    """None where the body names it."""


class Unbatched(NamedTuple):
    """A field of a body with which a call is nothing for a batch, on a path that is."""

    field: str
    value: bytes
    """In JSON."""
    reason: str
    """Half a sentence about such calls."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """What makes a call a provider's, which of its calls a batch takes, and how much fits into one.

    Limits and windows with their sources stand in the provider's file of the worker; the two are held equal by a test.
    """

    provider: str
    hosts: tuple[str, ...]
    """Lower case; a `*` stands for a part of a name without dots, such as a region."""
    endpoints: Mapping[str, str]
    """Path as the SDK calls it -> endpoint as the batch names it. A path may hold `{model}`, which may hold slashes,
    and other `{words}`, which may not; these are filled in where the endpoint names them."""
    max_rows: int
    max_bytes: int
    max_row_bytes: int
    windows: tuple[str, ...]
    credential_headers: tuple[str, ...] = ("authorization",)
    api_key_header: str = "authorization"
    """The one of them in which an API key travels: as a bearer in `authorization`, bare in any other."""
    query_credentials: Mapping[str, str] = field(default_factory=dict)
    """Name in a URL's query -> the credential header that it stands for, where the call has no such header."""
    batch_headers: tuple[str, ...] = ()
    """Headers that apply to a whole batch and therefore split lanes."""
    unbatched: tuple[Unbatched, ...] = ()
    variables: Mapping[str, str] = field(default_factory=dict)
    """Header -> the environment variable in which the provider's own SDK looks for it, the API key's included."""
    _templates: tuple[tuple[re.Pattern[str], str], ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        templates = tuple((_path_of(path), name) for path, name in self.endpoints.items() if "{" in path)
        object.__setattr__(self, "_templates", templates)

    def credential(self, api_key: str) -> dict[str, str]:
        """The header that carries an API key."""
        bearer = self.api_key_header == "authorization"
        return {self.api_key_header: f"Bearer {api_key}" if bearer else api_key}

    def place(self, path: str) -> Place | None:
        """Where a call of this path goes; None = no batch takes it."""
        endpoint = self.endpoints.get(path)
        if endpoint is not None and "{" not in path:
            return Place(endpoint, None)
        for template, endpoint in self._templates:
            found = template.fullmatch(path)
            if found is not None:
                words = found.groupdict()
                return Place(endpoint.format_map(words), words.get("model"))
        return None


def _path_of(template: str) -> re.Pattern[str]:
    spelt = re.sub(r"\\\{(\w+)\\\}", r"(?P<\1>[^/]+)", re.escape(template))
    return re.compile(spelt.replace("(?P<model>[^/]+)", "(?P<model>.+)"))


def _host_of(template: str) -> re.Pattern[str]:
    return re.compile(re.escape(template).replace(r"\*", "[a-z0-9-]+"))


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
    Route(
        provider="doubleword",
        hosts=("api.doubleword.ai",),
        endpoints=_openai_paths(
            "",
            ("/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses", "/v1/messages"),
        ),
        max_rows=50_000,
        max_bytes=100 * MB,
        max_row_bytes=10 * MB,
        windows=("24h", "1h"),
        variables={"authorization": "DOUBLEWORD_API_KEY"},
    ),
    Route(
        provider="xai",
        hosts=("api.x.ai",),
        endpoints=_openai_paths(
            "",
            (
                "/v1/chat/completions",
                "/v1/responses",
                "/v1/images/generations",
                "/v1/images/edits",
                "/v1/videos",
                "/v1/videos/generations",
                "/v1/videos/extensions",
            ),
        ),
        max_rows=50_000,
        max_bytes=200 * MB,
        max_row_bytes=24 * MB,
        windows=("24h",),
        variables={"authorization": "XAI_API_KEY"},
    ),
)


@dataclass(frozen=True, slots=True)
class Routes:
    """Finds the route of a host."""

    routes: tuple[Route, ...] = ROUTES
    _by_host: dict[str, Route] = field(init=False, repr=False)
    _by_template: tuple[tuple[re.Pattern[str], Route], ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        named = [(host, route) for route in self.routes for host in route.hosts]
        object.__setattr__(self, "_by_host", {host: route for host, route in named if "*" not in host})
        templates = tuple((_host_of(host), route) for host, route in named if "*" in host)
        object.__setattr__(self, "_by_template", templates)

    def of_host(self, host: str) -> Route | None:
        """The provider's route, whether or not the path is batchable."""
        route = self._by_host.get(host)
        if route is None:
            for template, one in self._by_template:
                if template.fullmatch(host):
                    return one
        return route

    def named(self, provider: str) -> Route | None:
        """The route of a provider by name."""
        return next((route for route in self.routes if route.provider == provider), None)
