"""Headers and query fields of calls that a gateway needs: which travel with a batch, sealed, and which do not.

A name is marked where it stands beside credential headers: `+name` is a header, `?name` a field of the query.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterable, Mapping
from typing import Final
from urllib.parse import parse_qsl, urlsplit

import msgspec

HEADER: Final = "+"
QUERY: Final = "?"

KNOWN_HEADERS: Final = frozenset(
    {
        "api-key",
        "apikey",
        "cf-access-client-id",
        "cf-access-client-secret",
        "cf-aig-authorization",
        "helicone-auth",
        "ocp-apim-subscription-key",
        "x-api-key",
        "x-bf-vk",
        "x-functions-key",
        "x-gateway-api-key",
        "x-litellm-api-key",
        "x-llm-gateway-key",
        "x-portkey-api-key",
        "x-portkey-config",
        "x-portkey-provider",
        "x-portkey-virtual-key",
        "x-serverless-authorization",
        "x-tfy-api-key",
    }
)
"""By these, well-known gateways let a call in, or choose what it goes to: they travel without being named."""
KNOWN_QUERY: Final = frozenset({"api-version", "subscription-key"})
KNOWN: Final = (KNOWN_HEADERS, KNOWN_QUERY)
CHOOSES_A_HOST: Final = frozenset(
    {"helicone-openai-api-base", "helicone-target-url", "x-portkey-custom-host"}
)
"""A request never chooses where a key is sent, not even behind a gateway; settings may."""
LONGEST_VALUE: Final = 8192
MOST_CARRIED: Final = 32

_NAME: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}")
_VALUE: Final = re.compile(r"[\x20-\x7e]*")
_REFUSED: Final = re.compile(
    r"(?:host|connection|keep-alive|upgrade|te|trailer|expect|range|forwarded|user-agent|accept|accept-encoding"
    r"|authorization|content-.*|transfer-.*|proxy-.*|x-forwarded.*|x-host|x-original-.*|x-rewrite-.*"
    r"|x-(?:http-)?method.*|x-batchling-.*)"
)
"""Names that could turn a worker's call into another one."""
_STANDARD: Final = re.compile(
    r"(?:accept.*|cache-control|connection|content-.*|cookie|date|dnt|expect|host|http-referer|keep-alive|origin|pragma"
    r"|priority|referer|te|upgrade.*|user-agent|via|x-title|baggage|b3|traceparent|tracestate|uber-trace-id"
    r"|(?:x-stainless|x-goog|x-amz|x-amzn|amz|openai|anthropic|x-ms|sec|x-b3|x-datadog|sentry|x-fern|x-client|x-sdk"
    r"|x-forwarded|proxy|transfer|x-server|x-cloud|x-batchling)-.*"
    r"|.*(?:request|correlation|trace|span|transaction|operation|invocation|idempotency)[-_]?(?:id|key|parent)?.*"
    r"|.*(?:timestamp|nonce|retry|attempt).*"
    r"|.*(?:session|conversation|run|task|job|message|call|event|generation|execution|sample)[-_]id"
    r"|x-irid|x-ray-id|helicone-session-.*|langfuse.*|langsmith.*)"
)
"""What HTTP libraries, SDKs and tracers send by themselves, and what has another value in each call or run.

`x-irid` is the id that inspect_ai gives each of its calls.
"""
_STANDARD_QUERY: Final = frozenset({"alt", "beta", "key", "$alt", "prettyprint"})


def refusal_of(name: str, *, chosen_by: str) -> str:
    """Return why a header of this name cannot be set by `calls` or `settings`; '' where it can."""
    if _NAME.fullmatch(name) is None:
        return "is not a valid header name"
    if _REFUSED.fullmatch(name) or (chosen_by == "calls" and name in CHOOSES_A_HOST):
        return "cannot travel with a batch"
    return ""


def refused(name: str) -> bool:
    """Return whether a call may not bring a header of this name."""
    return refusal_of(name, chosen_by="calls") != ""


def is_usable(value: str) -> bool:
    """Return whether a header may have this value."""
    return len(value) <= LONGEST_VALUE and _VALUE.fullmatch(value) is not None


def of_call(
    headers: Mapping[str, str], url: str, *, names: Iterable[str], query_names: Collection[str]
) -> dict[str, str]:
    """Return what travels with the batch of a call: the fields of these names, marked and sorted."""
    found = {
        f"{HEADER}{name}": headers[name] for name in names if name in headers and is_usable(headers[name])
    }
    if query_names and "?" in url:
        fields = query_of(url)
        found |= {mark: said for mark, said in fields.items() if mark[1:] in query_names and is_usable(said)}
    return dict(sorted(found.items())[:MOST_CARRIED]) if found else found


def left_out(names: Iterable[str], *, known: Collection[str]) -> list[str]:
    """Return the fields of a call, by marked names, that no batch carries though a gateway may need them."""
    return [name for name in names if name not in known and not _is_standard(name)]


def query_of(url: str) -> dict[str, str]:
    """Return the fields of a URL's query by marked names."""
    query = urlsplit(url).query if "?" in url else ""
    return {f"{QUERY}{name}": said for name, said in parse_qsl(query)} if query else {}


def _is_standard(name: str) -> bool:
    if name.startswith(QUERY):
        return name[1:].lower() in _STANDARD_QUERY
    return _STANDARD.fullmatch(name[1:]) is not None


def parted(secrets: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """Return the credential headers and what is carried beside them, the latter marked."""
    beside = {name: said for name, said in secrets.items() if name.startswith((HEADER, QUERY))}
    return {name: said for name, said in secrets.items() if name not in beside}, beside


def digest(fields: Mapping[str, str]) -> str:
    """Return a digest of the carried values, which does not reveal them; '' for none."""
    if not fields:
        return ""
    packed = msgspec.json.encode(sorted(fields.items()))
    return hashlib.blake2b(packed, digest_size=16, person=b"batchling-carr").hexdigest()


def named(fields: Iterable[str]) -> str:
    """Return marked names as a lane holds them."""
    return ",".join(sorted(fields))
