"""What the settings of a deployment say of providers, and the routes that come of it.

A base URL stands in for a registered provider's own, or makes a provider of an endpoint that speaks OpenAI's API.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, Final, TypeVar
from urllib.parse import SplitResult, unquote, urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr
from pydantic_settings import NoDecode

from .. import carried
from ..charges import VERSION
from ..route import MB, OWN_PORTS, FreeCall, Route, in_ascii, plain_host
from ..routes import ROUTES, Routes
from .download_hosts import usable

OWN_ENDPOINTS: Final = ("/v1/chat/completions", "/v1/responses", "/v1/embeddings", "/v1/completions")
OWN_WINDOWS: Final = ("24h",)
OWN_MAX_ROWS: Final = 50_000
OWN_MAX_BYTES: Final = 100 * MB
"""What every provider of files takes, as far as they are known."""

_NAME: Final = re.compile(r"[a-z][a-z0-9_-]{0,31}")
_ENDPOINT: Final = re.compile(r"(/[A-Za-z0-9_.-]+)+")
_VERSION: Final = re.compile(f"/{VERSION.pattern}")
_VERSIONS: Final = re.compile(rf"/(?:{VERSION.pattern}|\{{version\}})(?=/)")
_CALLED: Final = re.compile(
    r"/(?:completions|responses|messages|embeddings|moderations|rerank|ocr|batches|batch/jobs"
    r"|(?:images|audio|videos)/\w+|[^/]*:\w+)$"
    r"|/v\d[^/]*/(?:chat|models|files|uploads|images|audio|videos|realtime|generate|conversations)$"
)
"""How the URL of a call ends, which SDKs add themselves."""
_TWICE: Final = re.compile(rf"({_VERSION.pattern})\1$", re.IGNORECASE)
_SHOUTED: Final = re.compile(r"/V\d+[A-Za-z0-9]*$")
_HOST: Final = re.compile(r"[a-z0-9_-]+(?:\.[a-z0-9_-]+)*|[0-9a-f:.]+(?:%\w+)?")
_UNFIT_PATH: Final = re.compile(r"[\s\\<>\"{}^`|\x00-\x1f]|(?:^|/)\.{1,2}(?:/|$)|://")


def _usable_url(url: str | None) -> str | None:
    """Return the base URL in one spelling; refuse a key in it, which would be stored in Redis as part of a lane."""
    url = _bare(url or "")
    if not url:
        return None
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ValueError("is not a URL") from None
    if parts.scheme not in OWN_PORTS or not parts.hostname or port == 0:
        raise ValueError("must begin with http:// or https:// and a host, such as https://gateway.example/v1")
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise ValueError("may hold scheme, host, port and path only: a key goes into API_KEY")
    name = in_ascii(parts.hostname.removesuffix("."))
    if not _HOST.fullmatch(name):
        raise ValueError("has an invalid host name: give one URL, without blanks and placeholders")
    if _UNFIT_PATH.search(parts.path):
        raise ValueError("has a path with blanks, backslashes, placeholders, dots alone or another URL in it")
    path = re.sub("/{2,}", "/", parts.path).rstrip("/")
    if _CALLED.search(path):
        raise ValueError("ends in the path of a call: leave out what comes behind the version, such as /v1")
    twice = _TWICE.search(path)
    if twice:
        raise ValueError(f"ends in the version twice: leave out one {twice[1]}")
    shouted = _SHOUTED.search(path)
    if shouted:
        raise ValueError(f"ends in {shouted[0]}: write {shouted[0].lower()}, as SDKs do")
    return f"{parts.scheme}://{_host(parts)}{path}"


def _bare(url: str) -> str:
    """Return the text without the quotes and blanks that environment files leave around it."""
    url = url.strip()
    while len(url) > 1 and url[0] == url[-1] and url[0] in "'\"":
        url = url[1:-1].strip()
    return url


def _json(text: str) -> object:
    try:
        parsed: object = json.loads(text)
    except ValueError:
        raise ValueError("begins like JSON, but is not valid JSON") from None
    return parsed


def _listed(said: object) -> object:
    """Parse words between commas, or a JSON list."""
    if isinstance(said, str):
        return (
            _json(said) if said.startswith("[") else [one.strip() for one in said.split(",") if one.strip()]
        )
    return said


def _mapped(said: object) -> object:
    """Parse pairs like `a=b` between commas, or a JSON object."""
    if not isinstance(said, str):
        return said
    if said.startswith("{"):
        return _json(said)
    pairs = [one.partition("=") for one in said.split(",") if one.strip()]
    if not all(name.strip() and value.strip() for name, _, value in pairs):
        raise ValueError("holds pairs between commas, such as gpt-4o=gpt-4o-batch")
    return {name.strip(): value.strip() for name, _, value in pairs}


def _usable_endpoints(endpoints: tuple[str, ...]) -> tuple[str, ...]:
    for one in endpoints:
        if _ENDPOINT.fullmatch(one) is None:
            raise ValueError("holds paths between commas, such as /v1/chat/completions")
    return endpoints


def _header_pairs(said: object) -> object:
    """Parse pairs like `name=value` or `name: value` between commas, or a JSON object."""
    if isinstance(said, str) and not said.strip().startswith("{"):
        pairs = [re.split("[=:]", one, maxsplit=1) for one in said.split(",") if one.strip()]
        if not all(len(pair) == 2 and pair[0].strip() and pair[1].strip() for pair in pairs):
            raise ValueError(
                'must be a JSON object such as {"x-portkey-api-key": "pk-..."}, or name=value between commas'
            )
        return {name.strip(): value.strip() for name, value in pairs}
    if isinstance(said, str):
        try:
            return json.loads(said)
        except ValueError:
            # The error would hold the text, and with it a key.
            pass
        raise ValueError('must be a JSON object such as {"x-portkey-api-key": "pk-..."}')
    return said


def _usable_headers(headers: dict[str, SecretStr]) -> dict[str, SecretStr]:
    found = {name.lower(): value for name, value in headers.items()}
    for name, value in found.items():
        refusal = "" if name == "authorization" else carried.refusal_of(name, chosen_by="settings")
        if refusal:
            raise ValueError(f"has {name[:40]!r}, which {refusal}")
        if not carried.is_usable(value.get_secret_value()):
            raise ValueError(f"has a value for {name} that is not valid in a header")
    return found


def _usable_names(names: tuple[str, ...]) -> tuple[str, ...]:
    for name in names:
        refusal = carried.refusal_of(name.lower(), chosen_by="calls")
        if refusal:
            raise ValueError(f"names {name[:40]!r}, which {refusal}")
    return tuple(name.lower() for name in names)


class EndpointSettings(BaseModel):
    """What a deployment says of one provider, as far as client and workers read it alike; never its key."""

    model_config = ConfigDict(extra="ignore", frozen=True, hide_input_in_errors=True)

    base_url: Annotated[str | None, AfterValidator(_usable_url)] = None
    """Stands in for a registered provider's scheme and host, a path prefix included, and not for those of its other
    regions; or is the endpoint's own. With or without the version at its end, as SDKs spell it."""
    all_hosts: bool = False
    """The base URL stands in for every host of a registered provider, its regions included."""
    endpoints: Annotated[
        tuple[str, ...], NoDecode, BeforeValidator(_listed), AfterValidator(_usable_endpoints)
    ] = ()
    """What the batches of an endpoint of the user's own take."""
    windows: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_listed)] = ()
    """The completion windows that it takes."""
    models: Annotated[dict[str, str], NoDecode, BeforeValidator(_mapped)] = {}
    """A call's model -> the model of its batches, such as the batch deployment beside a standard deployment."""
    headers: Annotated[
        dict[str, SecretStr], NoDecode, BeforeValidator(_header_pairs), AfterValidator(_usable_headers)
    ] = Field(default={}, repr=False)
    """Sent with every call there, such as the key of a gateway; kept like an API key."""
    lane_headers: Annotated[
        tuple[str, ...], NoDecode, BeforeValidator(_listed), AfterValidator(_usable_names)
    ] = ()
    """Headers of calls that a gateway needs beside the key: they travel with the batch, sealed, and split lanes."""
    lane_query: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_listed)] = ()
    """Fields of a call's query that do the same."""
    download_hosts: Annotated[
        tuple[str, ...], NoDecode, BeforeValidator(_listed), AfterValidator(usable)
    ] = ()
    """Hosts beside the provider's own that workers fetch its result files from, without any credential, where a
    download redirects there."""
    max_rows: int | None = Field(default=None, ge=1)
    """How many requests a batch may hold; for a registered provider, fewer than it takes."""
    max_bytes: int | None = Field(default=None, ge=1)
    """How large an input file may be; for a registered provider, smaller than it takes."""


S = TypeVar("S", bound=EndpointSettings)


def checked(stand_ins: Mapping[str, S]) -> dict[str, S]:
    """Return the settings by lower-case name, own endpoints' base URLs ending in a version; raise ValueError."""
    registry = Routes()
    found: dict[str, S] = {}
    for spelt, said in stand_ins.items():
        name = spelt.lower()
        route = registry.named(name)
        if route is not None:
            if said.endpoints or said.windows:
                raise ValueError(f"has ENDPOINTS or WINDOWS for {name}, whose own are known: leave them out")
            _check_headers(name, said, route.api_key_header)
            found[name] = _rooted(name, said, registry)
            continue
        _check_headers(name, said, "authorization")
        own = said.model_copy(update={"base_url": _root(name, said)})
        host, _ = site_of(own.base_url or "")
        taken = registry.of_host(host)
        if taken is not None:
            raise ValueError(
                f"{_setting(name)} names {host}, a host of {taken.provider}: "
                f"set {_setting(taken.provider)} instead"
            )
        found[name] = own
    return found


def _check_headers(name: str, said: EndpointSettings, api_key_header: str) -> None:
    if api_key_header in said.headers:
        setting = f"BATCHLING_PROVIDERS__{name.upper()}"
        raise ValueError(f"{setting}__HEADERS holds {api_key_header}: give that key in {setting}__API_KEY")


def told_apart(stand_ins: Mapping[str, S]) -> dict[str, S]:
    """Return the settings; raise ValueError if a call could belong to two endpoints.

    Registered providers may share one URL, as a gateway or a test server for many of them has it: calls that could be
    of several are of the first in the registry.
    """
    registry = Routes()
    names: dict[tuple[str, str], str] = {}
    for route in routes_of(stand_ins).routes:
        said = stand_ins.get(route.provider)
        if said is None or said.base_url is None:
            continue
        host, prefix = site_of(said.base_url)
        for path in route.endpoints:
            other = names.setdefault((host, prefix + path), route.provider)
            if other != route.provider and not (registry.named(other) and registry.named(route.provider)):
                raise ValueError(
                    f"{_setting(route.provider)} is the same URL as {_setting(other)}: "
                    f"calls to {prefix}{path} there could be of either"
                )
    return dict(stand_ins)


def _setting(provider: str) -> str:
    return f"BATCHLING_PROVIDERS__{provider.upper()}__BASE_URL"


def _rooted(name: str, said: S, registry: Routes) -> S:
    """Return a registered provider's settings, the base URL without the part that its own paths begin with."""
    route = registry.named(name)
    if said.base_url is None or route is None:
        return said
    path = urlsplit(said.base_url).path
    _check_version(name, path, route)
    longest = max((len(found[0]) for root in _roots(route) if (found := root.search(path))), default=0)
    return said.model_copy(update={"base_url": said.base_url[: len(said.base_url) - longest]})


def _check_version(name: str, path: str, route: Route) -> None:
    """Refuse a version in which the provider has no calls: its SDKs would call paths that nobody catches."""
    version = re.search(f"{_VERSION.pattern}$", path)
    known = {found for endpoint in route.endpoints for found in _VERSIONS.findall(endpoint)}
    if version is not None and known and not {version[0], "/{version}"} & known:
        own = " or ".join(sorted(known))
        raise ValueError(f"{_setting(name)} ends in {version[0]}: the paths of {name} have {own}")


def _roots(route: Route) -> list[re.Pattern[str]]:
    """Return how SDKs' base URLs for a provider end: with its paths up to the version, or up to a deployment."""
    roots = {_VERSION.pattern}
    for path in route.endpoints:
        before, version, _ = path.partition("/v1/")
        if version and before:
            roots |= {re.escape(before), re.escape(before) + _VERSION.pattern}
        before, deployments, _ = path.partition("/deployments/")
        if deployments:
            roots.add(f"{re.escape(before)}/deployments/[^/]+")
    return [re.compile(f"{root}$") for root in roots]


def _root(name: str, said: EndpointSettings) -> str:
    if _NAME.fullmatch(name) is None:
        raise ValueError(f"has {name[:40]!r}: a name is up to 32 letters, digits, dashes and underscores")
    if said.base_url is None:
        known = ", ".join(route.provider for route in ROUTES)
        raise ValueError(
            f"has {name}, which is not a known provider ({known}): for an OpenAI-compatible endpoint of yours "
            f"set BATCHLING_PROVIDERS__{name.upper()}__BASE_URL too"
        )
    return said.base_url if _ends_in_version(said.base_url) else f"{said.base_url}/v1"


def _ends_in_version(url: str) -> bool:
    last = urlsplit(url).path.rpartition("/")[2]
    return _VERSION.fullmatch(f"/{last}") is not None


def site_of(base_url: str) -> tuple[str, str]:
    """Return host and path prefix of calls to a base URL, as routes compare them."""
    parts = urlsplit(base_url)
    return plain_host(_host(parts)), unquote(parts.path).rstrip("/")


def _host(parts: SplitResult) -> str:
    name = in_ascii((parts.hostname or "").removesuffix("."))
    if parts.port is None or parts.port == OWN_PORTS.get(parts.scheme):
        return f"[{name}]" if ":" in name else name
    return f"[{name}]:{parts.port}" if ":" in name else f"{name}:{parts.port}"


def routes_of(stand_ins: Mapping[str, EndpointSettings]) -> Routes:
    """Return the registry with the settings applied: gateways under their provider, own endpoints as providers."""
    registry = Routes()
    routes = [_stood_in(route, stand_ins.get(route.provider, EndpointSettings())) for route in ROUTES]
    own = [own_route(name, said) for name, said in stand_ins.items() if registry.named(name) is None]
    return Routes((*routes, *own))


def _stood_in(route: Route, said: EndpointSettings) -> Route:
    max_bytes = min(route.max_bytes, said.max_bytes or route.max_bytes)
    return replace(
        route,
        stand_in=said.base_url or "",
        site="".join(site_of(said.base_url)) if said.base_url else "",
        all_hosts=said.all_hosts,
        max_rows=min(route.max_rows, said.max_rows or route.max_rows),
        max_bytes=max_bytes,
        max_row_bytes=min(route.max_row_bytes, max_bytes),
        models=said.models,
        **_carrying(said),
    )


def own_route(name: str, said: EndpointSettings) -> Route:
    """Return the route of an endpoint of the user's own, from checked settings."""
    host, prefix = site_of(said.base_url or "")
    endpoints = said.endpoints or OWN_ENDPOINTS
    max_bytes = said.max_bytes or OWN_MAX_BYTES
    return Route(
        provider=name,
        hosts=(host + prefix,),
        stand_in=said.base_url or "",
        site=host + prefix,
        endpoints={_below_version(endpoint): endpoint for endpoint in endpoints},
        max_rows=said.max_rows or OWN_MAX_ROWS,
        max_bytes=max_bytes,
        max_row_bytes=max_bytes,
        windows=said.windows or OWN_WINDOWS,
        batch_headers=("openai-organization", "openai-project"),
        models=said.models,
        **_carrying(said),
        free_call=FreeCall("/batches?limit=1"),
        variables={"authorization": f"{re.sub('[^A-Z0-9]', '_', name.upper())}_API_KEY"},
    )


def _carrying(said: EndpointSettings) -> dict[str, Any]:
    return {
        "own_headers": {name: value.get_secret_value() for name, value in said.headers.items()},
        "lane_headers": frozenset(said.lane_headers),
        "lane_query": frozenset(said.lane_query),
    }


def _below_version(endpoint: str) -> str:
    """Return the path of an endpoint below a base URL that ends in a version."""
    version = _VERSION.match(endpoint)
    rest = endpoint[version.end() :] if version is not None else ""
    return rest if rest.startswith("/") else endpoint
