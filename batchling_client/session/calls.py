"""Reads a caught call: a request of a lane, a reply that refuses it, or a pass-through."""

from __future__ import annotations

import hashlib
import re
import secrets
from dataclasses import replace
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

import msgspec

from ..intercept.interceptor import PASS_THROUGH, HttpCall, HttpReply, PassThrough
from ..intercept.passed import Passed, Why, costs
from ..wire import ids
from ..wire.charges import Charge, charge
from ..wire.keys import RequestId
from ..wire.records import row_and_result
from ..wire.records.row_and_result import Row
from ..wire.routes import ROUTES, Route, Routes, Unbatched
from . import call_words, sse
from .call_words import Passage
from .gateways import Gateways
from .lanes import Lane, Lanes, Terms
from .occurrences import Occurrence, Occurrences
from .unbatched import unbatched

LONGEST_MODEL: Final = 512
"""More characters than the name of a model has: it is part of each batch's record, and of lists and log lines."""
_OR_GIVE: Final = ", or give batchify stream='batch',"
_MODEL_OPTIONAL: Final = re.compile(r"/(?:moderations|responses|images/[a-z]+|videos(?:/[a-z]+)?)$")
"""Endpoints at which the provider, or a stored prompt, names the model where the request does not."""
_REGISTERED: Final = frozenset(route.provider for route in ROUTES)


class _Head(msgspec.Struct):
    """The two fields of a body that decide where it goes."""

    model: Any = None
    stream: Any = None


_decode_head: Final = msgspec.json.Decoder(_Head).decode
_decode_fields: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode: Final = msgspec.json.Decoder().decode
_encode_sorted: Final = msgspec.json.Encoder(order="sorted").encode


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
        self._gateways = Gateways(self.passed)
        self._lanes = Lanes(terms, self.passed, self._gateways)
        self._occurrences = Occurrences()
        # Without the cache no other run may share its requests, while its own repeated calls still do.
        self._salt = b"" if terms.cache else secrets.token_bytes(16)

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
        unknown = call_words.unknown_host(host)
        self.passed.note(unknown.why, host, unknown.sentence)
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
        return self._lanes.n_reused

    def free(self, place: Occurrence, *, left: bool) -> None:
        """Free the place of a call that got no answer: the next equal call takes it, and joins its request."""
        self._occurrences.free(place, left=left)

    def streamed(self, call: HttpCall) -> sse.Streamed | None:
        """Return the call if it asks for a stream that can be built from a batch's answer, else None."""
        return sse.read(call) if self.terms.stream == "batch" else None

    def lane_of(self, call: HttpCall) -> Lane | HttpReply | PassThrough:
        """Return the lane of a call that can be batched, else its reply; count a call that passes, and warn of it."""
        found = self._lane_of(call)
        if not isinstance(found, Passage):
            return found
        # A call that an SDK sends again is one call.
        if not call.is_retry:
            self.passed.note(found.why, call.host, found.sentence)
        return PASS_THROUGH

    def _lane_of(self, call: HttpCall) -> Lane | HttpReply | PassThrough | Passage:
        route, place = self._routes.of_call(call.host, call.path) or (None, None)
        if route is None or place is None:
            return PASS_THROUGH
        body = call.body
        if call.body_unread:
            return call_words.form(route, call) or call_words.STREAMED_BODY
        try:
            head = _decode_head(body)
            # The decoder does not check strings that it skips, and one such row spoils a whole file.
            body.decode()
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return call_words.form(route, call) or call_words.not_json()
        if head.stream is True:
            can_build = self.terms.stream == "pass" and sse.read(call) is not None
            return call_words.streamed(route.provider, _OR_GIVE if can_build else "")
        field = _unbatched(route, body)
        if field is not None:
            return call_words.unbatched(route, field)
        model = place.model or head.model
        if model is None and _needs_no_model(route, place.endpoint):
            is_free = charge(call.path, route.charges) is Charge.FREE
            return PASS_THROUGH if is_free else call_words.no_model_named(route, call)
        if not isinstance(model, str) or not model:
            return call_words.no_model()
        if len(model) > LONGEST_MODEL:
            return call_words.model_too_long(LONGEST_MODEL)
        part = route.only_models.get(place.endpoint, "")
        if part not in model:
            return call_words.other_model(route, call, part, model)
        most = min(route.max_row_bytes, route.max_bytes)
        if row_and_result.line_bytes(body) > most:
            return call_words.too_large(route, len(body), most)
        return self._lanes.of(route, _with_key(route, call), place.endpoint, route.models.get(model, model))

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
        packed = Row.pack(
            request_id=request_id,
            run_id=self.terms.run_id,
            body=body,
            lane_id=lane.lane_id,
            cipher=lane.cipher,
        )
        return Request(lane, request_id, packed, size, place)

    def _placed(self, lane: Lane, call: HttpCall) -> Request:
        """Return the call as the request of the lowest free place among equal calls."""
        try:
            canonical = _encode_sorted(_decode(call.body))
        except (ValueError, RecursionError):
            # The provider decides on JSON that the decoder cannot read (numbers, surrogates).
            canonical = call.body
        canonical += self._gateways.apart(lane.route, call)
        identity = lane.identity
        equal = hashlib.blake2b(canonical, digest_size=16, key=identity.encode()).digest()
        place = self._occurrences.take(equal, is_retry=call.is_retry)
        request_id = ids.request_id(identity, canonical, place.number, self._salt)
        return self.request(lane, request_id, call.body, place)


def _with_key(route: Route, call: HttpCall) -> HttpCall:
    """Copy a credential that the URL's query carries into the header that it stands for: URLs are never stored."""
    if not route.query_credentials or any(call.headers.get(name) for name in route.credential_headers):
        return call
    given = {
        route.query_credentials[name]: value
        for name, value in parse_qsl(urlsplit(call.url).query)
        if name in route.query_credentials
    }
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
