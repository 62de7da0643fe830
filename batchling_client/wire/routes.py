"""The registry of batchable calls: one entry a provider, and the rule that turns a call into a lane."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, NamedTuple

from . import carried
from .no_batches import NO_BATCHES, VERTEX_HOSTS, NoBatches, host_pattern

MB: Final = 1_000_000
STAGING_HEADER: Final = "x-batchling-staging"
"""Among the headers of a lane, and no HTTP header at all: where the files of its batches lie."""
_SIGNATURE: Final = "AWS4-HMAC-SHA256 Credential="
"""Of AWS: an access key's id follows, then a slash and what else the signature is for."""

_PART: Final = r"(?!\.\.?(?:[/:]|$))[^/?#\\\s]+"
_NAMED: Final = r"[A-Za-z0-9](?:(?!\.\.)[A-Za-z0-9._:-])*"
WORDS: Final = {
    "version": r"v\d+[a-z0-9]*",
    "project": _NAMED,
    "location": _NAMED,
    "model": rf"{_PART}(?:/{_PART})*",
}
"""What the words of a path may be. Endpoints become paths again, below a base URL that none of them may leave."""

_SLASHES: Final = re.compile("/{2,}")
_LOOPBACK: Final = re.compile(r"(?:localhost|0\.0\.0\.0|::1?|\[::1?\])(:\d+)?")
_FINAL_DOT: Final = re.compile(r"\.(?=(?::\d+)?$)")
_HOURS: Final = re.compile(r"[0-9]{1,6}h")


class Place(NamedTuple):
    """Where a batchable call goes."""

    endpoint: str
    """As the batch names it."""
    model: str | None
    """None where the body names it."""


class Unbatched(NamedTuple):
    """A field of a body that a provider's batches do not support, on a path that they do."""

    field: str
    value: bytes
    """In JSON."""
    shown: str
    """The field as the warning names it."""


class FreeCall(NamedTuple):
    """A GET that costs nothing, with which a base URL is tried."""

    path: str
    """Below the base URL, query included; "" = whether a server answers at all is all that is asked."""
    headers: Mapping[str, str] = MappingProxyType({})
    """Those that it needs beside the key."""


_LIST: Final = FreeCall("/v1/batches?limit=1")


@dataclass(frozen=True, slots=True, kw_only=True)
class LineForm:
    """What lines of a provider's own batch files leave out, and where it comes from instead."""

    body: str = "body"
    """The field of a line that holds the request."""
    paths: Mapping[str, str] = field(default_factory=lambda: {"messages": "/v1/chat/completions"})
    """A field of the body -> the path of the call, for lines that name none; "" stands for any body."""
    kinds: Mapping[str, str] = field(default_factory=dict)
    """The key of a request in the provider's own lists -> the path of a call of that kind."""
    may_lack_id: bool = False
    lacks_model: bool = False
    """Whether the create names the model, so that lines need not."""
    model: str = ""
    """The model of lines that name none, where nobody has said another one; "" = it must be said."""
    host: str = ""
    """The host of calls, where the route has none of its own; it may hold `{words}` of the variables."""
    variables: Mapping[str, str] = field(default_factory=dict)
    """A word of path or host -> the variable in which the provider's SDK looks for it; a URL stands for its host."""
    words: Mapping[str, str] = field(default_factory=dict)
    """What SDKs take for a word whose variable is not set."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """What makes a call a provider's, which of its calls a batch takes, and how much fits into one.

    Limits and windows with their sources stand in the provider's file of the worker; the two are held equal by a test.
    """

    provider: str
    hosts: tuple[str, ...]
    """Lower case, with the port where that is not the scheme's own; a `*` stands for a part of a name without dots,
    such as a region. A path may follow, below which the endpoints are."""
    calls_only: tuple[str, ...] = ()
    """Those of the hosts that take calls and no batches: batches of such calls go to the first host."""
    aliases: tuple[str, ...] = ()
    """Those of the hosts that are other names of the first one, and no regions."""
    stand_in: str = ""
    """The base URL in the settings, which stands in for the first host and its aliases."""
    site: str = ""
    """The host of that base URL, and its path: calls below it are the provider's."""
    all_hosts: bool = False
    """Whether the base URL stands in for every host of the provider."""
    rehearsed: bool = False
    """Whether the base URL is that of the sandbox, which takes what the provider's own host takes."""
    endpoints: Mapping[str, str]
    """Path as the SDK calls it -> endpoint as the batch names it. A path may hold `{model}`, which may hold slashes,
    and other `{words}`, which may not, as `WORDS` has it; these are filled in where the endpoint names them."""
    min_rows: int = 1
    """Fewer requests than this are no batch that the provider takes."""
    max_rows: int
    max_bytes: int
    max_row_bytes: int
    windows: tuple[str, ...]
    credential_headers: tuple[str, ...] = ("authorization",)
    api_key_header: str = "authorization"
    """The one of them in which an API key travels: as a bearer in `authorization`, bare in any other."""
    query_credentials: Mapping[str, str] = field(default_factory=dict)
    """Name in a URL's query -> the credential header that it stands for, where the call has no such header."""
    renewed_bearer: str = ""
    """What a bearer token is here, in words, where every one of them is renewed; "" where keys stay."""
    own_keys: tuple[str, ...] = ()
    """Those of the hosts that take keys of their own, such as each customer's: the workers' key is sent to one of them
    only if settings name it."""
    signed: bool = False
    """Whether signed calls are batched, with a credential of the workers' own."""
    batch_headers: tuple[str, ...] = ()
    """Headers that apply to a whole batch and therefore split lanes; `?name` stands for a name in the URL's query."""
    own_headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Headers with which settings have every call there sent; secrets."""
    lane_headers: frozenset[str] = frozenset()
    """Headers of calls that settings have travel with the batch, and split lanes."""
    lane_query: frozenset[str] = frozenset()
    """The same of fields of a call's query."""
    model_in_row: bool = False
    """Whether a row names its model in the body, also where the call names it in the path, and that counts."""
    models: Mapping[str, str] = field(default_factory=dict)
    """A call's model -> the model of its batches, where settings name another."""
    only_models: Mapping[str, str] = field(default_factory=dict)
    """Endpoint -> what the name of a model must hold for a batch to take it there."""
    charges: str = ""
    """A pattern of paths that cost money here, and elsewhere nothing."""
    unbatched: tuple[Unbatched, ...] = ()
    staged: bool = False
    """Whether its files lie in the caller's Cloud Storage, so that a lane has a place there in `STAGING_HEADER`."""
    free_call: FreeCall = _LIST
    """The list of batches, as short as it can be asked for."""
    lines: LineForm = field(default_factory=LineForm)
    """What lines of its own batch files look like."""
    variables: Mapping[str, str] = field(default_factory=dict)
    """Header -> the environment variable in which the provider's own SDK looks for it, the API key's included."""
    batch_queries: frozenset[str] = field(init=False, repr=False, compare=False)
    """The batch headers that stand for names in the query."""
    _carrying: tuple[tuple[tuple[str, ...], frozenset[str]], ...] = field(
        init=False, repr=False, compare=False
    )
    """Names of headers and of query fields that travel: from a provider's own host, and from a gateway."""
    _own_carried: Mapping[str, str] = field(init=False, repr=False, compare=False)
    _templates: tuple[tuple[re.Pattern[str], str], ...] = field(init=False, repr=False, compare=False)
    _host_patterns: tuple[re.Pattern[str], ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        patterns = tuple(host_pattern(host) for host in self.hosts)
        object.__setattr__(self, "_host_patterns", patterns)
        queries = frozenset(name for name in self.batch_headers if name.startswith("?"))
        object.__setattr__(self, "batch_queries", queries)
        object.__setattr__(self, "_carrying", (self._travelling((), ()), self._travelling(*carried.KNOWN)))
        own = {
            f"{carried.HEADER}{name}": said
            for name, said in self.own_headers.items()
            if not carried.refused(name)
        }
        object.__setattr__(self, "_own_carried", own)
        templates = tuple((_path_of(path), name) for path, name in self.endpoints.items() if "{" in path)
        object.__setattr__(self, "_templates", templates)

    def _travelling(
        self, headers: Iterable[str], query: Iterable[str]
    ) -> tuple[tuple[str, ...], frozenset[str]]:
        elsewhere = {*self.credential_headers, *self.batch_headers}
        named = (name for name in self.own_headers if not carried.refused(name))
        names = {*self.lane_headers, *named, *headers} - elsewhere
        return tuple(sorted(names)), frozenset(
            name for name in (*self.lane_query, *query) if f"{carried.QUERY}{name}" not in elsewhere
        )

    def batch_host(self, host: str) -> str:
        """Return the host, or the base URL, that batches of a call to this host go to."""
        host = plain_host(host)
        if self.stand_in and self.stands_in_for(host):
            return self.stand_in
        return self.hosts[0] if host in self.calls_only else host

    def stands_in_for(self, host: str) -> bool:
        """Return whether the base URL in the settings takes the place of a host; regions keep their own."""
        home = {self.hosts[0], *self.aliases, *self.calls_only, self.site.partition("/")[0]}
        return self.all_hosts or host in home or not any(each.fullmatch(host) for each in self._host_patterns)

    def takes_own_keys(self, host: str) -> bool:
        """Return whether a host takes keys of its own, so that the workers' is not meant for it."""
        return any(host_pattern(each).fullmatch(host) for each in self.own_keys)

    def carried(self, headers: Mapping[str, str], url: str, *, at_gateway: bool) -> dict[str, str]:
        """Return what travels with the batch of a call beside its credential, by marked names.

        A header of the call comes before the same header of the settings, as it would without batchling.
        """
        names, query_names = self._carrying[at_gateway]
        found = carried.of_call(headers, url, names=names, query_names=query_names)
        if not self._own_carried:
            return found
        own = {mark: said for mark, said in self._own_carried.items() if mark[1:] not in headers}
        return {**own, **found}

    def left_out(self, names: Iterable[str]) -> list[str]:
        """Return which headers and query fields a gateway may need and does not get, all by marked names."""
        names_now, query_now = self._carrying[True]
        standard = {*self.credential_headers, *self.batch_headers, *carried.KNOWN_HEADERS, *names_now}
        known = {f"{carried.HEADER}{name}" for name in standard if not name.startswith(carried.QUERY)}
        known |= {f"{carried.QUERY}{name}" for name in (*self.query_credentials, *query_now)}
        return carried.left_out(names, known={*known, *self.batch_queries})

    def credential(self, api_key: str) -> dict[str, str]:
        """Return the header that carries an API key."""
        bearer = self.api_key_header == "authorization"
        return {self.api_key_header: f"Bearer {api_key}" if bearer else api_key}

    def secrets(self, headers: Mapping[str, str]) -> dict[str, str]:
        """Return the credential headers of a call; for a signature, which differs per call, only the signer."""
        return {name: _signer(headers[name]) for name in self.credential_headers if name in headers}

    def place(self, path: str) -> Place | None:
        """Return where a call of this path goes; None = it cannot be batched."""
        endpoint = self.endpoints.get(path)
        if endpoint is not None and "{" not in path:
            return Place(endpoint, None)
        for template, endpoint in self._templates:
            found = template.fullmatch(path)
            if found is not None:
                words = found.groupdict()
                return Place(endpoint.format_map(words), words.get("model"))
        return None


def is_signature(value: str) -> bool:
    """Return whether a credential is a signature of AWS, which is good for one call alone."""
    return value.startswith(_SIGNATURE)


def _signer(value: str) -> str:
    return value.partition("/")[0] if is_signature(value) else value


def in_ascii(host: str) -> str:
    """Return an international host name in the ASCII form that DNS uses; unchanged if it has no such form."""
    try:
        return host.encode("idna").decode()
    except UnicodeError:
        return host


def plain_host(host: str) -> str:
    """Return the one spelling of a host, with or without a port: this machine is 127.0.0.1 by all of its names.

    A name in letters beyond ASCII is spelt as DNS spells it (RFC 3490).
    """
    plain = _FINAL_DOT.sub("", host if host.isascii() else in_ascii(host))
    own = _LOOPBACK.fullmatch(plain)
    return plain if own is None else f"127.0.0.1{own[1] or ''}"


def window_words(windows: Collection[str]) -> str:
    """Return completion windows as text; consecutive hours appear as the first and the last only."""
    hours = sorted(int(window[:-1]) for window in windows if _HOURS.fullmatch(window))
    rows: list[list[int]] = []
    for hour in hours:
        if rows and hour == rows[-1][-1] + 1:
            rows[-1].append(hour)
        else:
            rows.append([hour])
    words = [f"{row[0]}h to {row[-1]}h" if len(row) > 1 else f"{row[0]}h" for row in rows]
    return ", ".join([*words, *(window for window in windows if not _HOURS.fullmatch(window))])


def _path_of(template: str) -> re.Pattern[str]:
    return re.compile(
        re.sub(
            r"\\\{(\w+)\\\}",
            lambda found: f"(?P<{found[1]}>{WORDS.get(found[1], _PART)})",
            re.escape(template),
        )
    )


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
        # Projects with data residency are known at their region's host alone.
        hosts=(
            "api.openai.com",
            *(f"{region}.api.openai.com" for region in ("us", "eu", "ae", "au", "in", "jp")),
        ),
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
        max_rows=100_000,
        max_bytes=512 * MB,
        max_row_bytes=512 * MB,
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
        windows=("24h",),
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
        max_rows=100_000,
        max_bytes=2_000 * MB,
        max_row_bytes=2_000 * MB,
        windows=("24h",),
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
        max_row_bytes=1_000 * MB,
        windows=("24h",),
        batch_headers=("x-goog-user-project",),
        renewed_bearer="an access token, which Google renews every hour",
        staged=True,
        # Its lists are below a project, which settings do not name.
        free_call=FreeCall(""),
        variables={"authorization": "CLOUDSDK_AUTH_ACCESS_TOKEN"},
    ),
    Route(
        provider="anthropic",
        lines=LineForm(body="params", paths={"": "/v1/messages"}),
        # The second is the Claude Platform on AWS, where Anthropic's API has its own keys.
        hosts=("api.anthropic.com", "aws-external-anthropic.*.api.aws"),
        own_keys=("aws-external-anthropic.*.api.aws",),
        endpoints={"/v1/messages": "/v1/messages"},
        max_rows=100_000,
        max_bytes=256 * MB,
        max_row_bytes=256 * MB,
        windows=("24h",),
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
        max_row_bytes=100 * MB,
        windows=("24h",),
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
        max_row_bytes=200 * MB,
        windows=("24h",),
        credential_headers=("api-key", "authorization"),
        api_key_header="api-key",
        batch_headers=("?api-version",),
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
        windows=("24h",),
        variables={"authorization": "XAI_API_KEY"},
    ),
)


def _sites(route: Route, routes: Iterable[Route]) -> list[str]:
    """Return the site that stands in for a provider, unless its host is a registered one, which stays whose it is."""
    host = route.site.partition("/")[0]
    registered = any(each.fullmatch(host) for one in routes for each in one._host_patterns)
    return [] if not route.site or registered else [route.site]


@dataclass(frozen=True, slots=True)
class Routes:
    """Finds the route of a call."""

    routes: tuple[Route, ...] = ROUTES
    _by_host: dict[str, list[tuple[str, Route]]] = field(init=False, repr=False)
    """Host -> path prefixes and routes, the longest prefix first."""
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
        for sites in by_host.values():
            sites.sort(key=lambda site: -len(site[0]))
        object.__setattr__(self, "_by_host", by_host)
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
