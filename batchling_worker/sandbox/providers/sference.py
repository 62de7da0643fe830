"""Sference's batches, as published up to 2026-11-23."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec
from aiohttp import web
from multidict import MultiMapping

from ..answers.answers import Answer
from ..api.gate import json_reply
from ..api.inline_batches import InlineBatches
from ..batches.dialect import Page, Refusal, Traits
from ..batches.inline_dialect import InlineRow, ResultRow, Told
from ..batches.records import Batch, BatchView, CreateAsk
from ..batches.scan import LineRules
from ..world import faults, unable
from ..world.world import Limits, World

_CHAT: Final = "/v1/chat/completions"
_STATUSES: Final = {
    "validating": "pending",
    "in_progress": "running",
    "finalizing": "running",
    "cancelling": "running",
    "completed": "completed",
    "failed": "failed",
    # Sference has no status for an expired batch.
    "expired": "failed",
    "cancelled": "cancelled",
}
_KINDS: Final = {400: "invalid_request_error", 404: "invalid_request_error", 429: "rate_limit_error"}
_MOST_INLINE: Final = 1_000
"""With more rows a batch shows only the URL of its results; that was seen, the exact number was not."""


class _Body(msgspec.Struct, frozen=True):
    model: str
    messages: list[Any] | None = None
    input: Any = None
    background: bool = False


class _Request(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    body: msgspec.Raw
    custom_id: str | None = None


class _Said(msgspec.Struct, frozen=True):
    status_code: int = 500
    detail: str = ""


class SferenceDialect:
    """Sference: the create checks all requests and names the bad one; failed rows have an error and no status."""

    batches = "/batches"
    results = "/results.jsonl"
    results_type = "application/x-ndjson"
    list_name = "items"
    endpoint = _CHAT
    row_endpoint = _CHAT
    window_s = 86_400.0
    created_status = 201

    def __init__(self) -> None:
        self.traits = Traits(
            name="sference",
            root="/v1",
            realtime_endpoints=frozenset({_CHAT, "/v1/embeddings", "/v1/responses"}),
            purposes=frozenset(),
            key_headers=("Authorization", "X-API-Key"),
            max_rows=10_000,
            max_bytes=100_000_000,
            cursor=None,
            no_money=(402, None, "Insufficient credits"),
            unable={
                **unable.NOT_PENDING,
                **unable.ONE_SHAPE,
                **unable.OWN_LINES,
                **unable.OWN_ERRORS,
                **unable.ONE_RESULT_FILE,
                **unable.NO_RESULT_IDS,
                **unable.NO_PAGES,
                **unable.NO_UPLOADS,
                **unable.NO_METADATA,
                faults.LieInCounts: "It tells only how many requests it was given.",
            },
        )

    def new_batch_id(self) -> str:
        """Return a fresh batch id."""
        return str(uuid.uuid4())

    def error_body(self, status: int, code: str | None, message: str, param: str | None) -> dict[str, Any]:
        """Return the JSON body of an HTTP error; `extra` holds facts about the request."""
        extra = [{"key": param, "message": message}] if param is not None else {}
        return {"status_code": status, "detail": message, "extra": extra}

    def line_rules(self, ask: CreateAsk) -> LineRules:
        """Return rules that check nothing: the lines were checked on arrival."""
        return LineRules(endpoints=frozenset(), endpoint=None, skips_bad_lines=True, lines_checked=False)

    def decorate(self, answer: Answer, mark: str) -> dict[str, Any]:
        """Return the body of a success unchanged."""
        return answer.body

    def check_call(self, headers: Mapping[str, str]) -> None:
        """Take any call."""

    def row(self, place: int, raw: bytes, first: InlineRow | None) -> InlineRow:
        """Return a request; refuse requests without messages, of another model, or with `background`."""
        try:
            request = msgspec.json.decode(raw, type=_Request)
            body = msgspec.json.decode(request.body, type=_Body)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise _bad(place, "", str(error)) from error
        if not body.messages and not body.input:
            raise _bad(place, ".body.messages", "at least one message is required")
        if body.background:
            raise _bad(place, ".body.background", "background is not supported in a batch")
        if first is not None and body.model != first.model:
            raise _bad(place, ".body.model", f"all requests must use the same model ({first.model})")
        if body.model.startswith("unknown-"):
            raise _bad(place, ".body.model", f"unknown model {body.model}")
        custom_id = f"request-{place}" if request.custom_id is None else request.custom_id
        return InlineRow(custom_id, bytes(request.body), body.model)

    def check_create(self, frame: Mapping[str, Any], rows: Sequence[object]) -> None:
        """Refuse a create without requests, with another window, or with anything beside them."""
        if not rows:
            raise Refusal(400, "requests: at least one request is required", param="requests")
        if frame.get("window", "24h") != "24h":
            raise Refusal(400, "window: only 24h is supported", param="window")
        for name in frame:
            if name not in ("requests", "window"):
                raise Refusal(400, f"{name}: extra keys are not permitted", param=name)

    def doubled(self, place: int, custom_id: str) -> Refusal:
        """Return the refusal of a request whose custom_id is not unique."""
        return _bad(place, ".custom_id", f"'{custom_id}' is not unique")

    def not_json(self) -> Refusal:
        """Return the refusal of a create whose body is not a JSON object with requests."""
        return Refusal(400, "The request body is not valid JSON.")

    def too_large(self, most: int) -> Refusal:
        """Return the refusal of a create of too many bytes."""
        return Refusal(413, "Request Entity Too Large")

    def too_many(self, most: int) -> Refusal:
        """Return the refusal of a create of too many rows."""
        return Refusal(400, f"requests: at most {most} requests are supported", param="requests")

    def batch_object(
        self, batch: Batch, view: BatchView, n_rows: int, told: Told | None, url: str | None
    ) -> dict[str, object]:
        """Return a batch as JSON, with the number of its rows and no counts by outcome."""
        ended_at = _iso(batch.outcome.ended_at) if batch.outcome and told else None
        return {
            "id": view.id,
            "status": _STATUSES[view.status],
            "window": "24h",
            "request_count": n_rows,
            "created_at": _iso(batch.created_at),
            "updated_at": ended_at or _iso(batch.created_at),
            "completed_at": ended_at,
            "total_prompt_tokens": view.input_tokens,
            "total_completion_tokens": view.output_tokens,
            "total_tokens": view.input_tokens + view.output_tokens,
        }

    def result_line(self, row: ResultRow) -> bytes:
        """Return a row with its response or error; a row that never ran has neither."""
        result: object = None
        error: object = None
        if row.undone is not None:
            status = "cancelled" if row.undone == "batch_cancelled" else "failed"
        elif row.status >= 400:
            said = msgspec.json.decode(row.body, type=_Said)
            kind = _KINDS.get(row.status, "server_error" if row.status >= 500 else "invalid_request_error")
            status, error = "failed", {"type": kind, "message": said.detail}
        else:
            status, result = "completed", row.body if row.status else None
        return msgspec.json.encode(
            {"custom_id": row.custom_id, "status": status, "result_json": result, "error_json": error}
        )

    def page(self, query: MultiMapping[str], newest_first: Sequence[Batch], limits: Limits) -> Page:
        """Return all batches: there are no pages."""
        return Page(batches=newest_first, envelope={})

    def not_found(self, batch_id: str) -> Refusal:
        """Return the refusal of a call for a batch that is not there."""
        return Refusal(404, "Batch not found")

    def no_results(self, batch: Batch) -> Refusal:
        """Return the refusal of results that cannot be read (yet)."""
        return Refusal(404, "Batch results are not available")

    def not_cancellable(self, view: BatchView) -> Refusal:
        """Return the refusal for cancelling a batch that has ended."""
        return Refusal(409, f"Batch is already {_STATUSES[view.status]}")

    def deleted(self, view: BatchView) -> dict[str, Any]:
        """Refuse: nothing can be deleted."""
        raise Refusal(405, "Method Not Allowed")


class SferenceBatches(InlineBatches):
    """Sference also returns results as one JSON object."""

    def routes(self) -> Iterator[web.RouteDef]:
        """Return every route of the provider."""
        yield self.route("GET", "/batches/{batch_id}/results", self._summary)
        yield from super().routes()

    async def _summary(self, request: web.Request, owner: str) -> web.StreamResponse:
        batch = self.find(request, owner)
        found = await self.results_of(batch)
        lines = found.path.read_bytes().splitlines()
        inline = len(lines) <= _MOST_INLINE
        shown = await self.shown(batch, request)
        rows = [msgspec.Raw(line) for line in lines]
        url = f"{request.url.origin()}{request.path}.jsonl"
        return json_reply(
            {
                "batch_id": batch.id,
                "status": shown["status"],
                "completed_at": shown["completed_at"],
                "output_url": None if inline else url,
                "results": rows if inline else None,
            }
        )


def emulate(world: World) -> SferenceBatches:
    """Return Sference's emulator."""
    return SferenceBatches(world, SferenceDialect())


def _bad(place: int, field: str, why: str) -> Refusal:
    key = f"requests[{place}]{field}"
    return Refusal(400, f"{key}: {why}", param=key)


def _iso(moment: float) -> str:
    return dt.datetime.fromtimestamp(moment, dt.UTC).isoformat()
