"""Anthropic's Message Batches: the requests go with the create, each under its own model, and show no label.

The SDK raises `ValueError` before any call for a `max_tokens` of more than 21,333 where its client has the default
timeout: who asks for more gives the client one, such as `timeout=3600`. It does not apply to a call that is batched.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from batchling_client.wire.error_words import STATUS_FIELDS, number_of
from batchling_client.wire.keys import ProviderBatchId
from batchling_client.wire.routes import route_of
from batchling_client.wire.states import Outcome

from ..decisions import status_words
from ..dialects import bounds
from ..dialects.inline_batches import InlineBatches, InlineDialect, Query, Shown
from ..dialects.lenient_json import fields_of, text_in
from ..dialects.openai.dialect import no_cursor, says_more
from ..dialects.row_answers import answer_of, lost, unrun
from ..dialects.row_errors import LONGEST_WORDS, stated_in
from ..provider import Answer, Ended, Ending, ProviderFacts, Running

FACTS: Final = ProviderFacts(
    route=route_of("anthropic"),
    looks_at_once=250,
    searchable=False,
    early_results=False,
    discount_percent=50,
    source="https://platform.claude.com/docs/en/build-with-claude/batch-processing",
    checked_on=dt.date(2026, 11, 23),
    inline=True,
    verified=("docs", "SDK"),
)
SHORT_PAGE: Final = 100
LONG_PAGE: Final = 1_000
MANY: Final = 50
"""With this many batches or more, pages are long. There are only two lengths, so that steps can share pages."""

STATUSES: Final = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "conflict_error": 409,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}
"""Type of a row's error -> the HTTP status of the same error in a realtime call."""
UNKNOWN_ERROR: Final = 500
UNRUN: Final = {"expired": "batch_expired", "canceled": "batch_cancelled"}


class _Batch(msgspec.Struct, frozen=True, kw_only=True):
    """Every field may be absent or of an undocumented type."""

    id: object = None
    processing_status: object = None
    request_counts: object = None
    created_at: object = None
    ended_at: object = None

    def shown(self) -> Shown:
        known = self.request_counts if isinstance(self.request_counts, dict) else {}
        counts = {name: bounds.count(n) for name, n in known.items() if bounds.count(n)}
        n_rows = sum(counts.values())
        provider_batch_id = ProviderBatchId(bounds.identifier(self.id))
        return Shown(
            provider_batch_id=provider_batch_id,
            look=self._look(provider_batch_id, counts, n_rows),
            n_rows=n_rows,
            created_at=bounds.aware(self.created_at),
        )

    def _look(
        self, provider_batch_id: ProviderBatchId, counts: Mapping[str, int], n_rows: int
    ) -> Running | Ended:
        word = bounds.text(self.processing_status)
        if not self._has_ended(word, counts):
            n_done = n_rows - counts.get("processing", n_rows)
            return Running(status=word or "unknown", n_done=n_done, n_total=n_rows)
        # An archived batch is read as any other: it was paid for, and only a download shows whether it is gone.
        ending = Ending(results=(provider_batch_id,), n_succeeded=self._n_succeeded(counts))
        return Ended(status=word, outcome=_outcome(counts), ending=ending, n_done=n_rows, n_total=n_rows)

    def _n_succeeded(self, counts: Mapping[str, int]) -> int | None:
        """Return how many requests were answered; None if counts are absent or still show unanswered requests."""
        known = self.request_counts if isinstance(self.request_counts, dict) else {}
        if not counts or not bounds.is_count(known.get("succeeded")):
            return None
        return None if "processing" in counts and "succeeded" not in counts else counts.get("succeeded", 0)

    def _has_ended(self, word: str, counts: Mapping[str, int]) -> bool:
        """Return whether the status means an end, or is unknown and the rest of the object shows an end."""
        if status_words.is_known(word):
            return status_words.outcome_of(word) is not None
        return isinstance(self.ended_at, str) and bool(counts) and "processing" not in counts


class _Page(msgspec.Struct, frozen=True, kw_only=True):
    data: list[_Batch] | msgspec.UnsetType | None = msgspec.UNSET
    has_more: object = None
    last_id: object = None

    @property
    def batches(self) -> Sequence[_Batch]:
        return self.data or []

    @property
    def is_whole(self) -> bool:
        return self.data is not msgspec.UNSET

    @property
    def next_cursor(self) -> str:
        last = "".join([known for one in self.batches if (known := bounds.identifier(one.id))][-1:])
        if not self.tells_more:
            return last
        if not says_more(self.has_more):
            return ""
        cursor = bounds.identifier(self.last_id) or last
        if not cursor:
            raise no_cursor()
        return cursor

    @property
    def tells_more(self) -> bool:
        return self.has_more is not None


def _outcome(counts: Mapping[str, int]) -> Outcome:
    """Return the outcome from the counts: every batch ends with the status `ended`."""
    if "canceled" in counts:
        return Outcome.CANCELLED
    return Outcome.EXPIRED if "expired" in counts else Outcome.COMPLETED


def _page_query(cursor: str, n_wanted: int) -> Query:
    limit = SHORT_PAGE if n_wanted < MANY else LONG_PAGE
    return [("limit", str(limit)), *([("after_id", cursor)] if cursor else [])]


def _read_row(custom_id: str, fields: Mapping[str, bytes]) -> Answer:
    result = fields_of(fields.get("result", b"{}"))
    word = text_in(result.get("type", b""))
    if word in UNRUN:
        return unrun(custom_id, UNRUN[word])
    if word == "succeeded":
        return answer_of(custom_id, 200, result.get("message", b""), custom_id, "request-id")
    error = stated_in({name: said for name, said in result.items() if name != "type"}) or stated_in(fields)
    return _failed(custom_id, error) if error else lost(custom_id)


def _failed(custom_id: str, body: bytes) -> Answer:
    """Return the answer of a row with an error, which holds the body of a realtime error; gateways send less."""
    if not body.lstrip().startswith(b"{"):
        body = msgspec.json.encode(
            {"message": text_in(body) or body[:LONGEST_WORDS].decode(errors="replace")}
        )
    outer = fields_of(body)
    if not outer.get("error", b"").startswith(b"{"):
        outer, body = {"error": body}, b'{"type":"error","error":%b}' % body
    error = fields_of(outer["error"])
    kind = text_in(error.get("type", b""))
    named = next(
        (n for name in STATUS_FIELDS if (n := number_of(error.get(name, b"").decode(errors="replace")))), 0
    )
    request_id = text_in(outer.get("request_id", b"")) or custom_id
    return answer_of(custom_id, STATUSES.get(kind, named or UNKNOWN_ERROR), body, request_id, "request-id")


PROVIDER: Final = InlineBatches(
    FACTS,
    InlineDialect(
        root="/v1/messages/batches",
        opening=lambda submission: b'{"requests":',
        body_name="params",
        batch=_Batch,
        page=_Page,
        page_query=_page_query,
        read_row=_read_row,
        results="/results",
        headers={"anthropic-version": "2023-06-01"},
    ),
)
