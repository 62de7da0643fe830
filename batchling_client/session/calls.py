"""Reads a caught call: a request of a lane, a reply that refuses it, or a pass-through."""

from __future__ import annotations

import hashlib
import re
import secrets
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal
from urllib.parse import parse_qsl, urlsplit

import msgspec

from ..intercept.interceptor import PASS_THROUGH, HttpCall, HttpReply, PassThrough
from ..intercept.passed import Passed, Why, costs
from ..wire import carried, ids, sealing
from ..wire.charges import Charge, charge
from ..wire.keys import LaneId, RequestId, RunId
from ..wire.records import row_and_result
from ..wire.records.row_and_result import LaneSpec, Row
from ..wire.routes import (
    ROUTES,
    STAGING_HEADER,
    Route,
    Routes,
    Unbatched,
    is_signature,
    plain_host,
    window_words,
)
from ..wire.scripts import BatchCap
from . import renewed_tokens, replies, sse
from .occurrences import Occurrence, Occurrences
from .pace import Pace
from .unbatched import unbatched

OnStream = Literal["pass", "batch"]
"""What becomes of a call that asks for a streamed answer."""

IDENTITY_WINDOW: Final = "24h"
"""The completion window in the ids of requests, whatever theirs is."""
LONGEST_LINGERS: Final = 15
"""An open batch is sealed at the latest after this many lingers."""

MOST_REMEMBERED: Final = 1_000
"""So many hosts, and sets of header names, a run remembers what follows from them."""

_STREAMED: Final = (
    "Batches do not support streamed answers: a call to {} that asks for a stream is sent at full price. "
    "Leave out stream=True{} to have it batched."
)
_OR_GIVE: Final = ", or give batchify stream='batch',"
_STREAMED_BODY: Final = (
    "A call that could be batched sends its body as a stream, which can be read only once: it goes straight "
    "to the provider at full price. Pass the body as bytes, text or json= to have it batched."
)
_UNKNOWN_HOST: Final = (
    "A call to {0} went there at full price: batchling knows no provider at this host. If it has Files and Batches "
    "like OpenAI's, register it with BATCHLING_PROVIDERS__<NAME>__BASE_URL; if it is a gateway to a known provider, "
    "set that provider's BASE_URL."
)
_MULTIPART: Final = (
    "A call to {} {} uploads a file, which batches do not support: it is sent at full price. "
    "If the endpoint accepts a URL instead of a file, pass a URL to have it batched."
)
_UNBATCHED: Final = "Batches of {} do not support {}; such calls are sent at full price."
_UNSTAGED: Final = (
    "Batches of {} are made of files in your Cloud Storage: say where in "
    "batchify(vertex_gcs_prefix='gs://BUCKET/PREFIX')."
)
_KEY_FOLLOWS: Final = (
    "A call to {} has no API key; a key added later by a middleware is invisible to batchling, so the call is sent "
    "at full price. Set the key in the client's own headers to have its calls batched."
)
_SIGNED: Final = (
    "A call to {} is signed with AWS credentials, and a signature is valid for one call only: it is sent at full "
    "price. Give the client an API key to have it batched."
)
_OTHER_MODEL: Final = (
    "Calls to {} at {} are batched for models whose name holds {!r} only: those to {} go there at full price."
)
_NO_MODEL: Final = (
    "A call to {} {} names no model, but a batch is made for a model: it is sent at full price. "
    "Name a model to have it batched."
)
_MODEL_OPTIONAL: Final = re.compile(r"/(?:moderations|responses|images/[a-z]+|videos(?:/[a-z]+)?)$")
"""Endpoints at which the provider, or a stored prompt, names the model where the request does not."""
_REGISTERED: Final = frozenset(route.provider for route in ROUTES)
_GCS_PREFIX: Final = re.compile(r"gs://[a-z0-9][a-z0-9._-]+(?:/[^\r\n\t#?*\[\]]*)?")
_URLENCODED: Final = (
    "A call to {} {} sends a form, which batches do not support: it is sent at full price. "
    "If the client can send JSON instead, send JSON to have the call batched."
)
_FORMS: Final = {"multipart/": _MULTIPART, "application/x-www-form-urlencoded": _URLENCODED}
"""How the content type of a form begins -> the warning about it."""
_LEFT_OUT: Final = (
    "Calls to {} carry the {} {!r}, which is not sent with their batches; calls that differ in it share no answers. "
    "If the server needs it, name it in BATCHLING_PROVIDERS__{}__{}, for callers and workers."
)
_RENEWED: Final = (
    "Calls to {} {}. With the next token a rerun counts as another account, and pays for its requests again. "
    "Give the account a name to prevent that: batchify(account='NAME'), or BATCHLING_ACCOUNT=NAME."
)


class _Head(msgspec.Struct):
    """The two fields of a body that decide where it goes."""

    model: Any = None
    stream: Any = None


_decode_head: Final = msgspec.json.Decoder(_Head).decode
_decode_fields: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode: Final = msgspec.json.Decoder().decode
_encode_sorted: Final = msgspec.json.Encoder(order="sorted").encode


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What one run asks for all of its requests; times are in seconds."""

    run_id: RunId
    run_name: str
    completion_window: str = "24h"
    batch_size: int | None = None
    linger_s: float = 2.0
    poll_s: float = 0.0
    """0 = the worker's own setting decides."""
    cache: bool = True
    vertex_gcs_prefix: str | None = None
    stream: OnStream = "pass"
    account: str | None = None
    """Whose requests these are, by name; None = the credential tells accounts apart."""
    namespace: str = ""
    """The deployment in which that name counts."""

    @property
    def title(self) -> str:
        """The run as warnings name it."""
        return f"{self.run_name!r} {self.run_id}" if self.run_name else self.run_id

    def cap(self, route: Route) -> BatchCap:
        """Return how many of these requests fit into a batch of the provider, and how long an open batch lingers."""
        linger_ms = int(self.linger_s * 1000)
        return BatchCap(
            rows=min(self.batch_size or route.max_rows, route.max_rows),
            bytes=route.max_bytes,
            linger_ms=linger_ms,
            longest_ms=LONGEST_LINGERS * linger_ms,
        )


@dataclass(slots=True, kw_only=True, eq=False)
class Lane:
    """A lane as one run uses it."""

    lane_id: LaneId
    spec: LaneSpec
    packed_spec: bytes
    cap: BatchCap
    terms: Terms
    pace: Pace
    """Shared by all that this run has of the lane."""
    secrets: Mapping[str, str] = field(repr=False)
    """The credential headers as the SDK sent them, and what travels beside them; of a named account those of the latest
    call."""
    route: Route
    reused: list[int] = field(default_factory=list)
    """How many of the run's requests here earlier runs had made, a number for each time that some were queued."""

    @property
    def identity(self) -> LaneId:
        """What its requests are known by: answers count for every completion window of the lane."""
        spec = self.spec
        if spec.completion_window == IDENTITY_WINDOW:
            return self.lane_id
        return msgspec.structs.replace(spec, completion_window=IDENTITY_WINDOW).lane_id


class Request(msgspec.Struct, frozen=True, eq=False, gc=False):
    """A caught call that goes into a batch; unseen by the garbage collector, of which thousands would make work."""

    lane: Lane
    request_id: RequestId
    packed: bytes
    size: int
    """Bytes of its line in the provider's file, at most."""
    place: Occurrence | None = None
    """None where the request is made anew for a call that has its place."""


class Calls:
    """Reads the calls of one run, in any thread."""

    def __init__(self, terms: Terms, routes: Routes, passed: Passed | None = None) -> None:
        self.terms = terms
        self.passed = passed or Passed(routes)
        self._routes = routes
        self._lanes: dict[tuple[str | None, ...], Lane] = {}
        self._paces: dict[LaneId, Pace] = {}
        self._fingerprints: dict[tuple[str | None, ...], str] = {}
        self._occurrences = Occurrences()
        self._gateways: dict[tuple[str, str], bool] = {}
        self._left_out: dict[tuple[str, ...], list[str]] = {}
        # Without the cache no other run may share its requests, while its own repeated calls still do.
        self._salt = b"" if terms.cache else secrets.token_bytes(16)
        self._lock = threading.Lock()

    def wants(self, method: str, host: str, path: str) -> bool:
        """Return whether such a call may be batched."""
        if method != "POST":
            return False
        found = self._routes.of_call(host, path)
        return found is not None and found[1] is not None

    def passes(self, method: str, host: str, path: str) -> bool:
        """Count a call that cannot be batched and warn about it, if it costs money; return whether it does."""
        if method != "POST":
            return False
        known = unbatched(self._routes, host, path)
        if known is not None and known.charge is Charge.UNKNOWN:
            self.passed.warn(known.sentence)
            return False
        if known is not None:
            self.passed.note(Why.STREAM if known.streamed else Why.NO_BATCHES, host, known.sentence)
            return True
        if self._routes.of_call(host, path) is not None:
            return False
        if not costs(method, path):
            self.passed.saw(host)
            return False
        self.passed.note(Why.UNKNOWN_HOST, host, _UNKNOWN_HOST.format(host))
        return True

    def read(self, call: HttpCall) -> Request | HttpReply | PassThrough:
        """Return the call's request, reply or pass-through."""
        lane = self.lane_of(call)
        if not isinstance(lane, Lane):
            return lane
        return self._placed(lane, call)

    @property
    def n_reused(self) -> int:
        """How many of the run's requests earlier runs had made already."""
        return sum(sum(lane.reused) for lane in list(self._lanes.values()))

    def free(self, place: Occurrence, *, left: bool) -> None:
        """Free the place of a call that got no answer: the next equal call takes it, and joins its request."""
        self._occurrences.free(place, left=left)

    def streamed(self, call: HttpCall) -> sse.Streamed | None:
        """Return the call if it asks for a stream that can be built from a batch's answer, else None."""
        return sse.read(call) if self.terms.stream == "batch" else None

    def _pass_form(self, call: HttpCall, route: Route) -> PassThrough | None:
        """Let a form pass; None for a body of another kind."""
        content_type = call.headers.get("content-type", "")
        told = next((told for start, told in _FORMS.items() if content_type.startswith(start)), None)
        return None if told is None else self._pass(call, Why.UPLOAD, told.format(route.provider, call.path))

    def lane_of(self, call: HttpCall) -> Lane | HttpReply | PassThrough:
        """Return the lane of a call that can be batched, else its reply or pass-through."""
        route, place = self._routes.of_call(call.host, call.path) or (None, None)
        if route is None or place is None:
            return PASS_THROUGH
        body = call.body
        if call.body_unread:
            return self._pass_form(call, route) or self._pass(call, Why.STREAMED_BODY, _STREAMED_BODY)
        try:
            head = _decode_head(body)
            # The decoder does not check strings that it skips, and one such row spoils a whole file.
            body.decode()
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            not_json = "The body of the request is not a JSON object."
            return self._pass_form(call, route) or replies.refusal(not_json, code="body_not_json")
        if head.stream is True:
            instead = _OR_GIVE if self.terms.stream == "pass" and sse.read(call) is not None else ""
            return self._pass(call, Why.STREAM, _STREAMED.format(route.provider, instead))
        reason = _unbatched(route, body)
        if reason is not None:
            sentence = _UNBATCHED.format(route.provider, reason.shown)
            return self._pass(call, Why.UNBATCHED, sentence)
        model = place.model or head.model
        if model is None and _needs_no_model(route, place.endpoint):
            if charge(call.path, route.charges) is Charge.FREE:
                return PASS_THROUGH
            return self._pass(call, Why.NO_MODEL, _NO_MODEL.format(route.provider, call.path))
        if not isinstance(model, str) or not model:
            return replies.refusal(
                "The request names no model, which a batch is made for: give `model`.",
                code="model_missing",
                param="model",
            )
        part = route.only_models.get(place.endpoint, "")
        if part not in model:
            sentence = _OTHER_MODEL.format(call.path, route.provider, part, model)
            return self._pass(call, Why.NO_BATCHES, sentence)
        size = row_and_result.line_bytes(body)
        if size > min(route.max_row_bytes, route.max_bytes):
            return replies.refusal(
                f"The request is {len(body):,} bytes long, more than {route.provider} takes in a batch: "
                f"{min(route.max_row_bytes, route.max_bytes):,} bytes. Send a shorter one.",
                code="request_too_large",
            )
        model = route.models.get(model, model)
        return self._lane(route, _with_query(route, call), place.endpoint, model)

    def _pass(self, call: HttpCall, why: Why, sentence: str) -> PassThrough:
        # A call that an SDK sends again is one call.
        if call.headers.get("x-stainless-retry-count", "0") == "0":
            self.passed.note(why, call.host, sentence)
        return PASS_THROUGH

    def request(
        self, lane: Lane, request_id: RequestId, body: bytes, place: Occurrence | None = None
    ) -> Request:
        """Return the body as a request with an id; the same body gives the same id."""
        if lane.route.model_in_row or lane.route.models:
            body = _naming(body, lane.spec.model, always=lane.route.model_in_row)
        size = row_and_result.line_bytes(body)
        if b"\n" in body or b"\r" in body:
            # A request is one line of the provider's file; inside JSON strings line breaks are escaped.
            body = msgspec.json.format(body, indent=-1)
        packed = Row.pack(request_id=request_id, run_id=self.terms.run_id, body=body)
        return Request(lane, request_id, packed, size, place)

    def _placed(self, lane: Lane, call: HttpCall) -> Request:
        """Return the call as the request of the lowest free place among equal calls."""
        try:
            canonical = _encode_sorted(_decode(call.body))
        except (ValueError, RecursionError):
            # The provider decides on JSON that the decoder cannot read (numbers, surrogates).
            canonical = call.body
        canonical += self._apart(lane, call)
        identity = lane.identity
        equal = hashlib.blake2b(canonical, digest_size=16, key=identity.encode()).digest()
        is_retry = call.headers.get("x-stainless-retry-count", "0") != "0"
        place = self._occurrences.take(equal, is_retry=is_retry)
        request_id = ids.request_id(identity, canonical, place.number, self._salt)
        return self.request(lane, request_id, call.body, place)

    def _apart(self, lane: Lane, call: HttpCall) -> bytes:
        """Tell calls apart by what a gateway may need and does not get, and warn of it: it may name a tenant."""
        route = lane.route
        if not self._at_gateway(route, call.host):
            return b""
        query = carried.query_of(call.url)
        # An SDK's calls have the same names from first to last.
        names = (route.provider, *call.headers, *query)
        missed = self._left_out.get(names)
        if missed is None:
            missed = route.left_out([*(f"{carried.HEADER}{name}" for name in call.headers), *query])
            if len(self._left_out) < MOST_REMEMBERED:
                self._left_out[names] = missed
            self._warn_of(route, call.host, missed)
        if not missed:
            return b""
        fields = {**query, **{f"{carried.HEADER}{name}": said for name, said in call.headers.items()}}
        return f"\n{carried.digest({name: fields[name] for name in missed})}".encode()

    def _warn_of(self, route: Route, host: str, missed: Sequence[str]) -> None:
        for name in missed:
            is_query = name.startswith(carried.QUERY)
            what, setting = ("query field", "LANE_QUERY") if is_query else ("header", "LANE_HEADERS")
            place = host.rpartition("://")[2]
            self.passed.warn(_LEFT_OUT.format(place, what, name[1:65], route.provider.upper(), setting))

    def _at_gateway(self, route: Route, host: str) -> bool:
        """Return whether settings name the host as a provider's gateway or as an endpoint of the user's own."""
        if not route.stand_in or route.rehearsed:
            return False
        place = (route.provider, host)
        known = self._gateways.get(place)
        if known is None:
            known = route.stands_in_for(plain_host(host))
            if len(self._gateways) < MOST_REMEMBERED:
                self._gateways[place] = known
        return known

    def _secrets(self, route: Route, call: HttpCall) -> dict[str, str]:
        """Return the credential headers of a call and, marked, the other values that travel with its batch."""
        at_gateway = self._at_gateway(route, call.host)
        return {
            **route.secrets(call.headers),
            **route.carried(call.headers, call.url, at_gateway=at_gateway),
        }

    def _lane(
        self, route: Route, call: HttpCall, endpoint: str, model: str
    ) -> Lane | HttpReply | PassThrough:
        header = call.headers.get
        terms, secrets = self.terms, self._secrets(route, call)
        shared = (route.provider, call.host, endpoint, model, *[header(name) for name in route.batch_headers])
        named = terms.account is not None and _has_credential(secrets)
        told = carried.parted(secrets)[1] if named else secrets
        key = (*shared, terms.account if named else None, *(word for one in told.items() for word in one))
        lane = self._lanes.get(key)
        if lane is not None:
            if named:
                lane.secrets = secrets
            return lane
        made = self._new_lane(route, call, endpoint, model)
        if not isinstance(made, Lane):
            return made
        with self._lock:
            lane = self._lanes.setdefault(key, made)
            # Values carried for a gateway beside the key may differ between tenants.
            credential = sealing.fingerprint(carried.parted(lane.secrets)[0])
            before = self._fingerprints.setdefault(shared, credential)
        if terms.account is None and terms.cache:
            self._warn_of_renewal(route, lane, changed=before != credential)
        return lane

    def _pace_of(self, spec: LaneSpec, route: Route) -> Pace:
        made = Pace(run=self.terms.title, lane=f"{spec.provider}/{spec.model}", max_rows=route.max_rows)
        with self._lock:
            return self._paces.setdefault(spec.lane_id, made)

    def _warn_of_renewal(self, route: Route, lane: Lane, *, changed: bool) -> None:
        what = renewed_tokens.kind_of(route, carried.parted(lane.secrets)[0])
        if what is None and not changed:
            return
        seen = f"carry {what}" if what else "have changed their API key"
        self.passed.warn(_RENEWED.format(route.provider, seen))

    def _new_lane(
        self, route: Route, call: HttpCall, endpoint: str, model: str
    ) -> Lane | HttpReply | PassThrough:
        terms = self.terms
        if terms.completion_window not in route.windows:
            return replies.refusal(
                f"{route.provider} takes no completion_window of {terms.completion_window!r}; "
                f"it takes {window_words(route.windows)}.",
                code="completion_window_unknown",
                param="completion_window",
            )
        secrets = self._secrets(route, call)
        beside = carried.parted(secrets)[1]
        if not route.signed and any(is_signature(value) for value in secrets.values()):
            return self._pass(call, Why.SIGNED, _SIGNED.format(call.host))
        if not _has_credential(secrets):
            if call.headers_may_follow:
                return self._pass(call, Why.NO_KEY, _KEY_FOLLOWS.format(route.provider))
            return replies.refusal(
                f"The request carries no API key for {route.provider}: give the SDK's client one.",
                code="credential_missing",
                status=401,
            )
        headers = {name: call.headers[name] for name in route.batch_headers if name in call.headers}
        if route.staged:
            if not _GCS_PREFIX.fullmatch(terms.vertex_gcs_prefix or ""):
                return replies.refusal(
                    _UNSTAGED.format(route.provider), code="staging_missing", param="vertex_gcs_prefix"
                )
            headers[STAGING_HEADER] = (terms.vertex_gcs_prefix or "").rstrip("/")
        if beside:
            headers[carried.CARRIED_HEADER] = carried.named(beside)
        spec = LaneSpec(
            provider=route.provider,
            # Use the whole base URL: a sandbox's answers must never be served as the provider's own.
            host=route.batch_host(call.host),
            endpoint=endpoint,
            model=model,
            fingerprint=sealing.fingerprint(secrets)
            if terms.account is None
            else sealing.account_fingerprint(
                terms.account, route.provider, terms.namespace, carried.digest(beside)
            ),
            completion_window=terms.completion_window,
            headers=tuple(sorted(headers.items())),
        )
        return Lane(
            lane_id=spec.lane_id,
            spec=spec,
            packed_spec=spec.encode(),
            cap=terms.cap(route),
            pace=self._pace_of(spec, route),
            terms=terms,
            secrets=secrets,
            route=route,
        )


def _has_credential(secrets: Mapping[str, str]) -> bool:
    return any(value.removeprefix("Bearer").strip() for value in secrets.values())


def _with_query(route: Route, call: HttpCall) -> HttpCall:
    """Copy the query parameters that select lane or credential into the headers, because URLs are never stored."""
    if not route.query_credentials and not route.batch_queries:
        return call
    keyed = any(call.headers.get(name) for name in route.credential_headers)
    given = {}
    for name, value in parse_qsl(urlsplit(call.url).query):
        if name in route.query_credentials and not keyed:
            given[route.query_credentials[name]] = value
        if f"?{name}" in route.batch_queries:
            given[f"?{name}"] = value
    return replace(call, headers={**call.headers, **given}) if given else call


def _naming(body: bytes, model: str, *, always: bool) -> bytes:
    """Return the body with that model, other fields unchanged; a body without a model gets it only if `always`."""
    fields = _decode_fields(body)
    spelt = msgspec.json.encode(model)
    if bytes(fields.get("model", b"" if always else spelt)) == spelt:
        return body
    return msgspec.json.encode({**fields, "model": msgspec.Raw(spelt)})


def _unbatched(route: Route, body: bytes) -> Unbatched | None:
    """Return the field of this body that the provider's batches do not support, None if there is none."""
    if not route.unbatched:
        return None
    fields = _decode_fields(body)
    return next((one for one in route.unbatched if bytes(fields.get(one.field, b"")) == one.value), None)


def _needs_no_model(route: Route, endpoint: str) -> bool:
    """Say whether the provider takes a request without a model; servers of one model, as endpoints of one's own, do."""
    return route.provider not in _REGISTERED or _MODEL_OPTIONAL.search(endpoint) is not None
