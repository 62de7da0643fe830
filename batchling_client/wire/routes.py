"""The routes of all providers, one entry each, and the search for the route of a call."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from .no_batches import NO_BATCHES, VERTEX_HOSTS, NoBatches, host_pattern
from .route import (
    MB,
    FreeCall,
    LineForm,
    Place,
    Route,
    Unbatched,
    is_signature,
    plain_host,
    window_words,
)

__all__ = (
    "ROUTES",
    "LineForm",
    "Route",
    "Routes",
    "Unbatched",
    "is_signature",
    "plain_host",
    "route_of",
    "window_words",
)

_VERSION: Final = "/v1"
"""What base URLs end in, and calls may leave out."""
_SLASHES: Final = re.compile("/{2,}")


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
        console="https://platform.openai.com/batches/{}",
        # Projects with data residency are known at their region's host alone.
        hosts=(
            "api.openai.com",
            *(f"{region}.api.openai.com" for region in ("us", "eu", "ae", "au", "in", "jp")),
        ),
        endpoints=_openai_paths("", _OPENAI_ENDPOINTS),
        max_rows=50_000,
        max_bytes=200 * MB,
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
        windows=(*(f"{24 * days}h" for days in range(1, 8)), *(f"{days}d" for days in range(1, 8))),
        free_call=FreeCall("/openai/v1/batches?limit=1"),
        variables={"authorization": "GROQ_API_KEY"},
    ),
    Route(
        provider="mistral",
        lines=LineForm(lacks_model=True),
        hosts=("api.mistral.ai", "api.eu.mistral.ai", "api.us.mistral.ai"),
        endpoints=_openai_paths(
            "",
            (
                "/v1/chat/completions",
                "/v1/embeddings",
                "/v1/fim/completions",
                "/v1/moderations",
                "/v1/chat/moderations",
                "/v1/ocr",
                "/v1/classifications",
                "/v1/chat/classifications",
                "/v1/conversations",
                "/v1/audio/transcriptions",
            ),
        ),
        # Its documents contradict each other: one page says 1 M requests, another this safer figure.
        max_rows=100_000,
        max_bytes=512 * MB,
        windows=tuple(f"{hours}h" for hours in range(1, 169)),
        charges=r"/v1/(?:conversations(?:/[^/]+(?:/restart)?)?|moderations|chat/moderations)",
        free_call=FreeCall("/v1/batch/jobs?page_size=1"),
        variables={"authorization": "MISTRAL_API_KEY"},
    ),
    Route(
        provider="together",
        hosts=("api.together.ai", "api.together.xyz", "api-inference.together.ai"),
        aliases=("api.together.xyz",),
        # Where together 3.1 sends chat completions, and nothing else (run, 2026-11-25).
        calls_only=("api-inference.together.ai",),
        endpoints=_openai_paths(
            "", ("/v1/chat/completions", "/v1/audio/transcriptions", "/v1/audio/translations")
        ),
        max_rows=50_000,
        max_bytes=100 * MB,
        max_row_bytes=10 * MB,
        variables={"authorization": "TOGETHER_API_KEY"},
    ),
    Route(
        provider="gemini",
        lines=LineForm(
            body="request",
            paths={
                "requests": "/v1beta/models/{model}:batchEmbedContents",
                "contents": "/v1beta/models/{model}:generateContent",
                "content": "/v1beta/models/{model}:embedContent",
            },
            may_lack_id=True,
            # Google's examples of batch files are for this endpoint.
            model="gemini-2.5-flash",
        ),
        hosts=("generativelanguage.googleapis.com",),
        endpoints={
            f"/{{version}}/{models}/{{model}}:{verb}": f"/{{version}}/{models}:{verb}"
            for models in ("models", "tunedModels")
            for verb in ("generateContent", "embedContent", "batchEmbedContents")
        },
        # Its documents name only bytes; with more rows, one lost batch would cost days of work.
        max_rows=100_000,
        max_bytes=2_000 * MB,
        credential_headers=("authorization", "x-goog-api-key"),
        api_key_header="x-goog-api-key",
        query_credentials={"key": "x-goog-api-key"},
        batch_headers=("x-goog-user-project",),
        free_call=FreeCall("/v1beta/batches?pageSize=1"),
        variables={"x-goog-api-key": "GEMINI_API_KEY"},
    ),
    Route(
        provider="vertex",
        lines=LineForm(
            body="request",
            paths={
                "": (
                    "/v1/projects/{project}/locations/{location}/publishers/google/models/{model}:generateContent"
                )
            },
            may_lack_id=True,
            host="{location}-aiplatform.googleapis.com",
            variables={"project": "GOOGLE_CLOUD_PROJECT", "location": "GOOGLE_CLOUD_LOCATION"},
            words={"location": "us-central1"},
        ),
        hosts=VERTEX_HOSTS,
        endpoints={
            "/{version}/projects/{project}/locations/{location}/publishers/google/models/{model}:generateContent": (
                "/{version}/projects/{project}/locations/{location}:generateContent"
            )
        },
        max_rows=200_000,
        max_bytes=1_000 * MB,
        batch_headers=("x-goog-user-project",),
        renewed_bearer="an access token, which Google renews every hour",
        staged=True,
        # Its lists are below a project, which settings do not name.
        free_call=FreeCall(""),
        variables={"authorization": "CLOUDSDK_AUTH_ACCESS_TOKEN"},
    ),
    Route(
        provider="anthropic",
        console="https://platform.claude.com/settings/workspaces/default/batches",
        lines=LineForm(body="params", paths={"": "/v1/messages"}),
        # The second is the Claude Platform on AWS, where Anthropic's API has its own keys.
        hosts=("api.anthropic.com", "aws-external-anthropic.*.api.aws"),
        own_keys=("aws-external-anthropic.*.api.aws",),
        endpoints={"/v1/messages": "/v1/messages"},
        max_rows=100_000,
        max_bytes=256 * MB,
        credential_headers=("x-api-key", "authorization"),
        api_key_header="x-api-key",
        batch_headers=(
            "anthropic-beta",
            "anthropic-user-profile-id",
            "anthropic-version",
            "anthropic-workspace-id",
        ),
        free_call=FreeCall("/v1/messages/batches?limit=1", {"anthropic-version": "2023-06-01"}),
        variables={"x-api-key": "ANTHROPIC_API_KEY", "authorization": "ANTHROPIC_AUTH_TOKEN"},
        unbatched=(
            Unbatched("speed", b'"fast"', "speed='fast'"),
            Unbatched("max_tokens", b"0", "max_tokens=0, which warms a cache"),
        ),
    ),
    Route(
        provider="sference",
        hosts=("api.sference.com",),
        endpoints=_openai_paths("", ("/v1/chat/completions",)),
        max_rows=10_000,
        max_bytes=100 * MB,
        variables={"authorization": "SFERENCE_API_KEY"},
    ),
    Route(
        provider="bedrock",
        lines=LineForm(
            body="modelInput",
            paths={"": "/model/{model}/invoke"},
            may_lack_id=True,
            host="bedrock-runtime.{region}.amazonaws.com",
            variables={"region": "AWS_REGION"},
        ),
        # For each partition of AWS the plain and the dual-stack suffix, with and without FIPS.
        hosts=tuple(
            f"bedrock-runtime{fips}.*.{suffix}"
            for fips in ("", "-fips")
            for suffix in (
                *("amazonaws.com", "api.aws", "amazonaws.com.cn", "api.amazonwebservices.com.cn"),
                *(
                    "amazonaws.eu",
                    "api.amazonwebservices.eu",
                    "c2s.ic.gov",
                    "api.aws.ic.gov",
                    "sc2s.sgov.gov",
                ),
                *("api.aws.scloud", "cloud.adc-e.uk", "csp.hci.ic.gov", "api.aws.hci.ic.gov"),
            )
        ),
        endpoints={
            "/model/{model}/invoke": "/invoke",
            "/model/{model}/converse": "/converse",
            "/openai/v1/chat/completions": "/openai/v1/chat/completions",
        },
        # The body of a chat completion is what OpenAI's models are invoked with; other models have bodies of their own.
        only_models={"/openai/v1/chat/completions": "openai."},
        signed=True,
        min_rows=100,
        max_rows=50_000,
        max_bytes=1000 * MB,
        max_row_bytes=200 * MB,
        windows=tuple(f"{hours}h" for hours in range(24, 169)),
        credential_headers=("authorization", "x-aws-credentials"),
        api_key_header="x-aws-credentials",
        free_call=FreeCall("/model-invocation-jobs?maxResults=1"),
        variables={
            "authorization": "AWS_BEARER_TOKEN_BEDROCK",
            "x-aws-credentials": "BATCHLING_AWS_CREDENTIALS",
        },
    ),
    Route(
        provider="azure",
        lines=LineForm(host="{endpoint}", variables={"endpoint": "AZURE_OPENAI_ENDPOINT"}),
        hosts=("*.openai.azure.com", "*.services.ai.azure.com", "*.cognitiveservices.azure.com"),
        own_keys=("*.openai.azure.com", "*.services.ai.azure.com", "*.cognitiveservices.azure.com"),
        endpoints={
            **_openai_paths("/openai", ("/v1/chat/completions", "/v1/responses")),
            "/openai/deployments/{model}/chat/completions": "/chat/completions",
            "/openai/responses": "/v1/responses",
        },
        max_rows=100_000,
        max_bytes=200 * MB,
        credential_headers=("api-key", "authorization"),
        api_key_header="api-key",
        batch_query=("api-version",),
        model_in_row=True,
        free_call=FreeCall("/openai/v1/batches?limit=1"),
        variables={"api-key": "AZURE_OPENAI_API_KEY", "authorization": "AZURE_OPENAI_AD_TOKEN"},
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
        lines=LineForm(
            kinds={
                "chat_get_completion": "/v1/chat/completions",
                "responses": "/v1/responses",
                "image_generation": "/v1/images/generations",
                "image_edit": "/v1/images/edits",
                "video_generation": "/v1/videos/generations",
                "video_extension": "/v1/videos/extensions",
            }
        ),
        hosts=(
            "api.x.ai",
            *(f"{region}.api.x.ai" for region in ("us", "us-east-1", "us-west-1", "eu-west-1")),
        ),
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
        variables={"authorization": "XAI_API_KEY"},
    ),
)


def route_of(provider: str) -> Route:
    """Return the entry of a provider in the table; raises `LookupError` if it has none."""
    return _BY_PROVIDER[provider]


_BY_PROVIDER: Final = {route.provider: route for route in ROUTES}


def _sites(route: Route, routes: Iterable[Route]) -> list[str]:
    """Return the site that stands in for a provider, unless its host is a registered one, which stays whose it is."""
    host = route.site.partition("/")[0]
    registered = any(one.has_host(host) for one in routes)
    return [] if not route.site or registered else [route.site]


@dataclass(frozen=True, slots=True)
class Routes:
    """Finds the route of a call."""

    routes: tuple[Route, ...] = ROUTES
    _by_host: dict[str, list[tuple[str, Route]]] = field(init=False, repr=False)
    """Host -> path prefixes and routes, the longest prefix first."""
    _sites: dict[str, list[tuple[str, Route]]] = field(init=False, repr=False)
    """The same for base URLs of settings alone."""
    _by_template: tuple[tuple[re.Pattern[str], Route], ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        named = [
            (host, route) for route in self.routes for host in (*route.hosts, *_sites(route, self.routes))
        ]
        by_host: dict[str, list[tuple[str, Route]]] = {}
        for site, route in named:
            if "*" not in site:
                host, slash, prefix = site.partition("/")
                by_host.setdefault(host, []).append((slash + prefix, route))
        for prefixes in by_host.values():
            prefixes.sort(key=lambda site: -len(site[0]))
        object.__setattr__(self, "_by_host", by_host)
        sites: dict[str, list[tuple[str, Route]]] = {}
        for route in self.routes:
            for site in _sites(route, self.routes):
                host, slash, prefix = site.partition("/")
                sites.setdefault(host, []).append((slash + prefix, route))
        object.__setattr__(self, "_sites", sites)
        templates = tuple((host_pattern(host), route) for host, route in named if "*" in host)
        object.__setattr__(self, "_by_template", templates)

    def of_host(self, host: str) -> Route | None:
        """Return the provider that a whole host belongs to."""
        host = plain_host(host)
        for prefix, route in self._by_host.get(host, ()):
            if not prefix:
                return route
        for template, route in self._by_template:
            if template.fullmatch(host):
                return route
        return None

    def of_call(self, host: str, path: str) -> tuple[Route, Place | None] | None:
        """Return the provider's route, and where the call goes if it can be batched; None = no known provider."""
        host = plain_host(host)
        if "//" in path:
            path = _SLASHES.sub("/", path)
        found = self._of_path(host, path)
        if found is None or found[1] is None:
            return self._without_version(host, path) or found
        return found

    def _without_version(self, host: str, path: str) -> tuple[Route, Place] | None:
        """Return where a call goes that lacks the version of its base URL, which many servers let calls leave out."""
        for prefix, route in self._sites.get(host, ()):
            bare = prefix.removesuffix(_VERSION)
            if path.startswith(f"{bare}/"):
                rest = path[len(bare) :]
                place = route.place(rest if prefix.endswith(_VERSION) else f"{_VERSION}{rest}")
                if place is not None:
                    return route, place
        return None

    def _of_path(self, host: str, path: str) -> tuple[Route, Place | None] | None:
        met: Route | None = None
        for prefix, route in self._by_host.get(host, ()):
            if path.startswith(f"{prefix}/"):
                place = route.place(path[len(prefix) :])
                if place is not None:
                    return route, place
                met = met or route
        if met is None:
            met = self.of_host(host)
            return (met, met.place(path)) if met is not None else None
        return met, None

    def without_batches(self, host: str, path: str) -> NoBatches | None:
        """Return what is known of a place where official clients are and batches are not."""
        host = plain_host(host)
        return next((each for each in NO_BATCHES if each.has(host, path)), None)

    def named(self, provider: str) -> Route | None:
        """Return the route of a provider by name."""
        return next((route for route in self.routes if route.provider == provider), None)
