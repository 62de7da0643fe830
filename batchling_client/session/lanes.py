"""Finds the lane of a call that can be batched: what all requests of one batch have in common."""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

import msgspec

from ..intercept.interceptor import HttpCall, HttpReply
from ..intercept.passed import Passed
from ..wire import carried
from ..wire.keys import LaneId, RunId
from ..wire.records.row_and_result import LaneSpec
from ..wire.roots import Root, Roots
from ..wire.routes import Route, is_signature
from ..wire.row_cipher import RowCipher
from ..wire.scripts import BatchCap
from ..wire.shown import shown
from . import call_words, renewed_tokens
from .call_words import Passage
from .gateways import Gateways
from .pace import Pace

OnStream = Literal["pass", "batch"]
"""What becomes of a call that asks for a streamed answer."""
IDENTITY_WINDOW: Final = "24h"
"""The completion window in the ids of requests, whatever theirs is."""
LONGEST_NAME: Final = 200
"""So many characters of a run's name are kept."""
LONGEST_LINGERS: Final = 15
"""An open batch is sealed at the latest after this many lingers."""
_GCS_PREFIX: Final = re.compile(r"gs://[a-z0-9][a-z0-9._-]+(?:/[^\r\n\t#?*\[\]]*)?")


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
    roots: Roots = field(default_factory=lambda: Roots(""), repr=False)
    """Derives fingerprints and keys in the deployment that gets the requests."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "run_name", self.run_name[:LONGEST_NAME])

    @property
    def title(self) -> str:
        """The run as warnings name it."""
        return f"'{shown(self.run_name)}' {self.run_id}" if self.run_name else self.run_id

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
    root: Root = field(repr=False)
    """What its credential, or its account's name, gives in this deployment."""
    identity: str = field(init=False, repr=False)
    """What its requests are known by: answers count for every completion window of the lane."""
    cipher: RowCipher = field(init=False, repr=False)
    """Encrypts its rows and results."""
    reused: list[int] = field(default_factory=list)
    """How many of the run's requests here earlier runs had made, a number for each time that some were queued."""

    def __post_init__(self) -> None:
        for_all_windows = msgspec.structs.replace(self.spec, completion_window=IDENTITY_WINDOW)
        self.identity = self.root.identity(for_all_windows.lane_id)
        self.cipher = self.root.cipher()


class Lanes:
    """The lanes of one run; found in any thread."""

    def __init__(self, terms: Terms, passed: Passed, gateways: Gateways) -> None:
        self._terms = terms
        self._passed = passed
        self._gateways = gateways
        self._lanes: dict[tuple[str | None, ...], Lane] = {}
        self._paces: dict[LaneId, Pace] = {}
        self._credentials: dict[tuple[str | None, ...], str] = {}
        self._lock = threading.Lock()

    @property
    def n_reused(self) -> int:
        """How many of the run's requests earlier runs had made already."""
        return sum(sum(lane.reused) for lane in list(self._lanes.values()))

    def of(self, route: Route, call: HttpCall, endpoint: str, model: str) -> Lane | HttpReply | Passage:
        """Return the call's lane, or why it has none."""
        header = call.headers.get
        terms, secrets = self._terms, self._secrets(route, call)
        query = route.query(call.url).get
        whole = [*map(header, route.batch_headers), *map(query, route.batch_query)]
        shared = (route.provider, call.host, endpoint, model, *whole)
        named = terms.account is not None and _has_credential(secrets)
        counted = carried.parted(secrets)[1] if named else secrets
        key = (*shared, terms.account if named else None, *(word for one in counted.items() for word in one))
        lane = self._lanes.get(key)
        if lane is not None:
            if named:
                lane.secrets = secrets
            return lane
        made = self._new(route, call, endpoint, model)
        if not isinstance(made, Lane):
            return made
        with self._lock:
            lane = self._lanes.setdefault(key, made)
            # Values carried for a gateway beside the key may differ between tenants.
            credential = "\n".join(carried.parted(lane.secrets)[0].values())
            before = self._credentials.setdefault(shared, credential)
        if terms.account is None and terms.cache:
            kind = renewed_tokens.kind_of(route, carried.parted(lane.secrets)[0])
            if kind is not None or before != credential:
                self._passed.warn(call_words.renewed(route, kind))
        return lane

    def _new(self, route: Route, call: HttpCall, endpoint: str, model: str) -> Lane | HttpReply | Passage:
        terms = self._terms
        if terms.completion_window not in route.windows:
            return call_words.no_such_window(route, terms.completion_window)
        secrets = self._secrets(route, call)
        beside = carried.parted(secrets)[1]
        if not route.signed and any(is_signature(value) for value in secrets.values()):
            return call_words.signed(call)
        if not _has_credential(secrets):
            return call_words.no_key(route)
        headers = {name: call.headers[name] for name in route.batch_headers if name in call.headers}
        staging = (terms.vertex_gcs_prefix or "") if route.staged else ""
        if route.staged and not _GCS_PREFIX.fullmatch(staging):
            return call_words.not_staged(route)
        root = (
            terms.roots.of_credential(secrets)
            if terms.account is None
            else terms.roots.of_account(terms.account, route.provider, carried.digest(beside))
        )
        spec = LaneSpec(
            provider=route.provider,
            # Use the whole base URL: a sandbox's answers must never be served as the provider's own.
            host=route.batch_host(call.host),
            endpoint=endpoint,
            model=model,
            fingerprint=root.fingerprint,
            completion_window=terms.completion_window,
            headers=tuple(sorted(headers.items())),
            query=tuple(sorted(route.query(call.url).items())),
            staging=staging.rstrip("/"),
            carried=carried.named(beside),
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
            root=root,
        )

    def _secrets(self, route: Route, call: HttpCall) -> dict[str, str]:
        """Return the credential headers of a call and, marked, the other values that travel with its batch."""
        at_gateway = self._gateways.is_at(route, call.host)
        return {
            **route.secrets(call.headers),
            **route.carried(call.headers, call.url, at_gateway=at_gateway),
        }

    def _pace_of(self, spec: LaneSpec, route: Route) -> Pace:
        made = Pace(run=self._terms.title, lane=f"{spec.provider}/{spec.model}", max_rows=route.max_rows)
        with self._lock:
            return self._paces.setdefault(spec.lane_id, made)


def _has_credential(secrets: Mapping[str, str]) -> bool:
    return any(value.removeprefix("Bearer").strip() for value in secrets.values())
