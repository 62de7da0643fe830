"""Sference: chats go with the create, are checked there, and come back as chat completions; no batch shows a label.

Neither limits nor a price of batches are published: those here are cautious guesses of ours.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from batchling_client.wire.keys import ProviderBatchId
from batchling_client.wire.routes import route_of
from batchling_client.wire.states import Outcome

from ..decisions import status_words
from ..dialects import bounds
from ..dialects.inline_batches import PERHAPS, InlineBatches, InlineDialect, Shown
from ..dialects.lenient_json import fields_of, text_in
from ..dialects.row_answers import answer_of, lost, unrun
from ..dialects.row_errors import EMPTY_BODIES, LONGEST_WORDS, stated_in
from ..provider import Answer, Ended, Ending, ProviderFacts, Running, Submission

FACTS: Final = ProviderFacts(
    route=route_of("sference"),
    looks_at_once=1_000,
    searchable=False,
    early_results=False,
    discount_percent=0,
    source="https://github.com/s-ference/sference/blob/main/docs/batches.md",
    checked_on=dt.date(2026, 11, 23),
    inline=True,
    verified=("SDK", "docs"),
)
UNRUN: Final = {
    "cancelled": "batch_cancelled",
    "canceled": "batch_cancelled",
    "expired": "batch_expired",
}


class _Batch(msgspec.Struct, frozen=True, kw_only=True):
    """Every field may be absent or of an undocumented type."""

    id: object = None
    status: object = None
    request_count: object = None
    created_at: object = None

    def shown(self) -> Shown:
        provider_batch_id = ProviderBatchId(bounds.identifier(self.id))
        n_rows = bounds.count(self.request_count)
        return Shown(
            provider_batch_id=provider_batch_id,
            look=self._look(provider_batch_id, n_rows),
            n_rows=n_rows,
            created_at=bounds.aware(self.created_at),
        )

    def _look(self, provider_batch_id: ProviderBatchId, n_rows: int) -> Running | Ended:
        word = bounds.text(self.status).lower()
        outcome = status_words.outcome_of(word)
        if outcome is None:
            return Running(status=word or "unknown", n_done=0, n_total=n_rows)
        # It is not documented whether a cancelled batch returns the finished answers.
        one = f"{PERHAPS}{provider_batch_id}" if outcome is Outcome.CANCELLED else provider_batch_id
        return Ended(
            status=word, outcome=outcome, ending=Ending(results=(one,)), n_done=n_rows, n_total=n_rows
        )


class _Page(msgspec.Struct, frozen=True, kw_only=True):
    """The list, which has one page."""

    items: list[_Batch] | msgspec.UnsetType | None = msgspec.UNSET

    @property
    def batches(self) -> Sequence[_Batch]:
        return self.items or []

    @property
    def is_whole(self) -> bool:
        return self.items is not msgspec.UNSET

    @property
    def next_cursor(self) -> str:
        return ""

    @property
    def tells_more(self) -> bool:
        return True


def _opening(submission: Submission) -> bytes:
    return b'{"window":%b,"requests":' % msgspec.json.encode(submission.completion_window)


def read_row(custom_id: str, fields: Mapping[str, bytes]) -> Answer:
    """Return the answer of a result line, from its custom_id and its fields in JSON."""
    result, error = fields.get("result_json", b""), fields.get("error_json", b"")
    word = text_in(fields.get("status", b"")).lower()
    if result not in EMPTY_BODIES or (word == "completed" and result not in (b"", b"null")):
        return answer_of(custom_id, 200, result)
    if word in UNRUN:
        return unrun(custom_id, UNRUN[word])
    if error in EMPTY_BODIES:
        error = stated_in({name: said for name, said in fields.items() if name != "status"})
    return _failed(custom_id, error) if error else lost(custom_id)


def _failed(custom_id: str, error: bytes) -> Answer:
    """Return the answer of a row with an error, in the shape that OpenAI's SDK reads; its status is 500 if it has none.

    So the row is tried again: Sference refuses a faulty request at the create.
    """
    try:
        said = fields_of(error)
    except (ValueError, TypeError, RecursionError):
        said = {"message": error}
        error = msgspec.json.encode(
            {"message": text_in(error) or error[:LONGEST_WORDS].decode(errors="replace")}
        )
    inner = fields_of(said["error"]) if said.get("error", b"").startswith(b"{") else said
    body = error if inner is not said else b'{"error":%b}' % error
    told = (inner.get(name, said.get(name, b"")) for name in ("status_code", "status", "code"))
    status = next((one for one in map(bounds.http_status, (one.decode() for one in told)) if one >= 400), 0)
    if not status:
        status = 400 if text_in(inner.get("type", b"")) == "invalid_request_error" else 500
    return answer_of(custom_id, status, body)


PROVIDER: Final = InlineBatches(
    FACTS,
    InlineDialect(
        root="/v1/batches",
        opening=_opening,
        body_name="body",
        batch=_Batch,
        page=_Page,
        page_query=lambda cursor, n_wanted: (),
        read_row=read_row,
        results="/results.jsonl",
    ),
)
