"""A route: what makes a call a provider's, which of its calls a batch takes, and how much fits into one."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, NamedTuple

from . import carried
from .charges import VERSION
from .no_batches import host_pattern

MB: Final = 1_000_000
_SIGNATURE: Final = "AWS4-HMAC-SHA256 Credential="
"""Of AWS: an access key's id follows, then a slash and what else the signature is for."""

_PART: Final = r"(?!\.\.?(?:[/:]|$))[^/?#\\\s]+"
_NAMED: Final = r"[A-Za-z0-9](?:(?!\.\.)[A-Za-z0-9._:-])*"
WORDS: Final = {
    "version": VERSION.pattern,
    "project": _NAMED,
    "location": _NAMED,
    "model": rf"{_PART}(?:/{_PART})*",
}
"""What the words of a path may be. Endpoints become paths again, below a base URL that none of them may leave."""

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

    Worker and client take limits and windows from here; their source is that of the provider's facts.
    """

    provider: str
    hosts: tuple[str, ...]
    """Lower case, with the port where that is not the scheme's own; a `*` stands for a part of a name without dots,
    such as a region. A path may follow, below which the endpoints are."""
    console: str = ""
    """The page of its website that shows batches; `{}` stands for the id of one, if the page of one can be named."""
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
    max_row_bytes: int = 0
    """0 = `max_bytes`."""
    windows: tuple[str, ...] = ("24h",)
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
    """Headers that apply to a whole batch and therefore split lanes."""
    batch_query: tuple[str, ...] = ()
    """The same of fields of the URL's query."""
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
    """Whether its files lie in the caller's Cloud Storage, so that a lane has a place there."""
    free_call: FreeCall = _LIST
    """The list of batches, as short as it can be asked for."""
    lines: LineForm = field(default_factory=LineForm)
    """What lines of its own batch files look like."""
    variables: Mapping[str, str] = field(default_factory=dict)
    """Header -> the environment variable in which the provider's own SDK looks for it, the API key's included."""
    _carrying: tuple[tuple[tuple[str, ...], frozenset[str]], ...] = field(
        init=False, repr=False, compare=False
    )
    """Names of headers and of query fields that travel: from a provider's own host, and from a gateway."""
    _own_carried: Mapping[str, str] = field(init=False, repr=False, compare=False)
    _templates: tuple[tuple[re.Pattern[str], str], ...] = field(init=False, repr=False, compare=False)
    _host_patterns: tuple[re.Pattern[str], ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "max_row_bytes", self.max_row_bytes or self.max_bytes)
        patterns = tuple(host_pattern(host) for host in self.hosts)
        object.__setattr__(self, "_host_patterns", patterns)
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
        return tuple(sorted(names)), frozenset((*self.lane_query, *query)) - {*self.batch_query}

    def batch_host(self, host: str) -> str:
        """Return the host, or the base URL, that batches of a call to this host go to."""
        host = plain_host(host)
        if self.stand_in and self.stands_in_for(host):
            return self.stand_in
        return self.hosts[0] if host in self.calls_only else host

    def stands_in_for(self, host: str) -> bool:
        """Return whether the base URL in the settings takes the place of a host; regions keep their own."""
        home = {self.hosts[0], *self.aliases, *self.calls_only, self.site.partition("/")[0]}
        return self.all_hosts or host in home or not self.has_host(host)

    def has_host(self, host: str) -> bool:
        """Return whether a plain host is one of the provider's own."""
        return any(each.fullmatch(host) for each in self._host_patterns)

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
        known = {f"{carried.HEADER}{name}" for name in standard}
        known |= {
            f"{carried.QUERY}{name}" for name in (*self.query_credentials, *query_now, *self.batch_query)
        }
        return carried.left_out(names, known=known)

    def query(self, url: str) -> dict[str, str]:
        """Return the fields of a call's query that apply to a whole batch."""
        if not self.batch_query:
            return {}
        return {
            mark[1:]: said for mark, said in carried.query_of(url).items() if mark[1:] in self.batch_query
        }

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


OWN_PORTS: Final = {"http": 80, "https": 443}
"""Scheme -> the port that a URL leaves out."""


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
