"""Anthropic's Message Batches, as published and captured up to 2026-11-23."""

from __future__ import annotations

import datetime as dt
import hashlib
import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec
from multidict import MultiMapping

from ..answers import answers, message_events, schema_examples, streams
from ..answers.answers import Answer, Problem
from ..api.gate import new_request_id
from ..api.inline_batches import InlineBatches
from ..batches.dialect import Page, Refusal, Traits
from ..batches.inline_dialect import InlineRow, ResultRow, Told
from ..batches.records import Batch, BatchView, CreateAsk
from ..batches.scan import LineRules
from ..world import faults, unable
from ..world.world import Limits, World

BASE_URL_VARIABLES: Mapping[str, str] = {"ANTHROPIC_BASE_URL": ""}
"""Variables in which SDKs look for a base URL -> the path below the provider's own."""

_MESSAGES: Final = "/v1/messages"
_IN_BATCH: Final = "/v1/messages/batches"
"""The endpoint of a row: it takes less than that of a realtime call."""
_COUNT: Final = "/v1/messages/count_tokens"
_STRICT: Final = "#strict"
"""The suffix of an endpoint whose call names a version without sampling parameters and with fewer blocks."""
_STRICT_FROM: Final = "2026-10-21"
_SAMPLING: Final = ("temperature", "top_p", "top_k")
_CUSTOM_ID: Final = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_MOST_LISTED: Final = 1_000
_TYPES: Final = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}
_UNDONE: Final = {"batch_expired": "expired", "batch_cancelled": "canceled"}


class _Request(msgspec.Struct, frozen=True):
    custom_id: str
    params: msgspec.Raw


class _Params(msgspec.Struct, frozen=True):
    model: str = ""
    max_tokens: int | None = None
    messages: list[answers.Message] = []
    stream: bool | None = None
    speed: str | None = None
    tools: list[dict[str, Any]] = []
    tool_choice: dict[str, Any] | None = None
    output_config: Any = None
    system: str | list[answers.Part] | None = None


_decode_params = msgspec.json.Decoder(_Params).decode


class AnthropicDialect:
    """Anthropic: a create checks only the fields around its requests; errors in a row are in the row's result."""

    batches = "/messages/batches"
    results = "/results"
    results_type = "application/x-jsonl"
    list_name = "data"
    endpoint = _MESSAGES
    row_endpoint = _IN_BATCH
    window_s = 86_400.0
    created_status = 200

    def __init__(self) -> None:
        self.traits = Traits(
            name="anthropic",
            root="/v1",
            realtime_endpoints=frozenset({_MESSAGES, _COUNT}),
            purposes=frozenset(),
            output_retention_s=29 * 86_400,
            scoping_headers=("anthropic-workspace-id",),
            key_headers=("x-api-key", "Authorization"),
            perform=perform,
            endpoint_of=_versioned,
            events={_MESSAGES: _events},
            max_rows=100_000,
            max_bytes=256_000_000,
            request_id_header="request-id",
            status_path=("processing_status",),
            cursor=("after_id", ("last_id",)),
            no_money=(400, None, "Your credit balance is too low to access the Anthropic API."),
            unable={
                **unable.NOT_PENDING,
                **unable.ONE_SHAPE,
                **unable.OWN_LINES,
                **unable.OWN_ERRORS,
                **unable.ONE_RESULT_FILE,
                **unable.NO_UPLOADS,
                **unable.NO_METADATA,
                faults.FailBatch: "Its batches do not fail as a whole.",
            },
        )

    def new_batch_id(self) -> str:
        """Return a fresh batch id."""
        return f"msgbatch_01{secrets.token_hex(11)}"

    def error_body(self, status: int, code: str | None, message: str, param: str | None) -> dict[str, Any]:
        """Return the JSON body of an HTTP error; a failed row has the same body."""
        kind = _TYPES.get(status, "api_error" if status >= 500 else "invalid_request_error")
        error: dict[str, Any] = {"type": kind, "message": message}
        if code is not None:
            error["details"] = {"error_code": code}
        return {"type": "error", "error": error, "request_id": new_request_id()}

    def line_rules(self, ask: CreateAsk) -> LineRules:
        """Return rules that check nothing: the lines were checked on arrival."""
        return LineRules(endpoints=frozenset(), endpoint=None, skips_bad_lines=True, lines_checked=False)

    def decorate(self, answer: Answer, mark: str) -> dict[str, Any]:
        """Return the body of a success unchanged."""
        return answer.body

    def check_call(self, headers: Mapping[str, str]) -> None:
        """Raise Refusal for a call that names no version."""
        if not headers.get("anthropic-version"):
            raise Refusal(400, "anthropic-version: header is required")

    def row(self, place: int, raw: bytes, first: InlineRow | None) -> InlineRow:
        """Return a request's custom_id and params; the params must be an object and are not checked further."""
        try:
            request = msgspec.json.decode(raw, type=_Request)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise Refusal(400, f"requests.{place}: {error}") from error
        if not _CUSTOM_ID.fullmatch(request.custom_id):
            message = f"requests.{place}.custom_id: String should match pattern '^{_CUSTOM_ID.pattern}$'"
            raise Refusal(400, message)
        params = bytes(request.params)
        if not params.startswith(b"{"):
            raise Refusal(400, f"requests.{place}.params: Input should be a valid dictionary")
        return InlineRow(request.custom_id, params)

    def check_create(self, frame: Mapping[str, Any], rows: Sequence[object]) -> None:
        """Refuse a create without requests, or with anything beside them."""
        if "requests" not in frame:
            raise Refusal(400, "requests: Field required")
        if not rows:
            raise Refusal(400, "requests: List should have at least 1 item after validation, not 0")
        for name in frame:
            if name != "requests":
                raise Refusal(400, f"{name}: Extra inputs are not permitted")

    def doubled(self, place: int, custom_id: str) -> Refusal:
        """Return the refusal of a request whose custom_id is not unique."""
        return Refusal(400, f"requests.{place}.custom_id: '{custom_id}' is not unique")

    def not_json(self) -> Refusal:
        """Return the refusal of a create whose body is not a JSON object with requests."""
        return Refusal(400, "The request body is not valid JSON.")

    def too_large(self, most: int) -> Refusal:
        """Return the refusal of a create that is too large; Anthropic's edge server sends it."""
        return Refusal(413, f"Request exceeds the maximum size of {most} bytes.")

    def too_many(self, most: int) -> Refusal:
        """Return the refusal of a create of too many rows."""
        return Refusal(413, f"requests: List should have at most {most} items after validation")

    def batch_object(
        self, batch: Batch, view: BatchView, n_rows: int, told: Told | None, url: str | None
    ) -> dict[str, object]:
        """Return a batch as JSON; every row counts as `processing` until the batch has ended."""
        counts: Mapping[str, object] = {"processing": n_rows}
        if told is not None:
            undone = {"expired": told.n_undone} if view.status == "expired" else {"canceled": told.n_undone}
            counts = {"succeeded": told.n_succeeded, "errored": told.n_failed, **undone}
            lie = batch.plan.told_counts
            counts = counts if lie is None else lie.counts or {}
        names = ("processing", "succeeded", "errored", "canceled", "expired")
        status = {"cancelling": "canceling"}.get(view.status, "in_progress" if told is None else "ended")
        return {
            "id": view.id,
            "type": "message_batch",
            "processing_status": status,
            "request_counts": {**dict.fromkeys(names, 0), **counts},
            "created_at": _iso(batch.created_at),
            "expires_at": _iso(batch.expires_at),
            "ended_at": _iso(batch.outcome.ended_at) if batch.outcome and told else None,
            "cancel_initiated_at": _iso(batch.cancelling_at) if batch.cancelling_at else None,
            "archived_at": None,
            "results_url": url,
        }

    def result_line(self, row: ResultRow) -> bytes:
        """Return a row's result; its error is the same object as the body of a realtime error."""
        result: dict[str, object]
        if row.undone is not None:
            result = {"type": _UNDONE.get(row.undone, "expired")}
        elif row.status >= 400:
            result = {"type": "errored", "error": row.body}
        else:
            result = {"type": "succeeded", "message": row.body} if row.status else {}
        return msgspec.json.encode({"custom_id": row.custom_id, "result": result})

    def page(self, query: MultiMapping[str], newest_first: Sequence[Batch], limits: Limits) -> Page:
        """Return the page of `limit` batches after `after_id` or before `before_id`."""
        limit = query.get("limit", str(limits.page_size))
        if not limit.isdigit() or not 1 <= int(limit) <= _MOST_LISTED:
            raise Refusal(400, f"limit: Input should be from 1 to {_MOST_LISTED}")
        after, before = query.get("after_id"), query.get("before_id")
        ids = [batch.id for batch in newest_first]
        for cursor in (after, before):
            if cursor and cursor not in ids:
                raise Refusal(404, f"No batch found with id {cursor}")
        start, end = ids.index(after) + 1 if after else 0, ids.index(before) if before else len(ids)
        start = max(start, end - int(limit)) if before else start
        page = newest_first[start : min(end, start + int(limit))]
        more = start > 0 if before else start + len(page) < len(ids)
        first, last = (page[0].id, page[-1].id) if page else (None, None)
        return Page(batches=page, envelope={"has_more": more, "first_id": first, "last_id": last})

    def not_found(self, batch_id: str) -> Refusal:
        """Return the refusal of a call for a batch that is not there."""
        return Refusal(404, f"Message batch not found: {batch_id}")

    def no_results(self, batch: Batch) -> Refusal:
        """Return the refusal of results that cannot be read (yet)."""
        return Refusal(404, f"Results of {batch.id} are not available yet: it has not ended.")

    def not_cancellable(self, view: BatchView) -> Refusal:
        """Return the refusal for cancelling a batch that has ended."""
        return Refusal(400, f"Batch {view.id} cannot be canceled: it has ended.")

    def deleted(self, view: BatchView) -> dict[str, Any]:
        """Return the answer to a delete; only a batch that has ended can be deleted."""
        if view.status not in ("completed", "failed", "expired", "cancelled"):
            raise Refusal(400, f"Batch {view.id} cannot be deleted while it is processing: cancel it first.")
        return {"id": view.id, "type": "message_batch_deleted"}


def emulate(world: World) -> InlineBatches:
    """Return Anthropic's emulator."""
    return InlineBatches(world, AnthropicDialect())


def perform(endpoint: str, body: bytes | msgspec.Raw, created: int) -> Answer | Problem:
    """Answer a message; a batch refuses some parameters that a realtime call accepts."""
    try:
        params = _decode_params(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        return Problem(400, None, f"The request body is invalid: {error}.")
    strict, endpoint = endpoint.endswith(_STRICT), endpoint.removesuffix(_STRICT)
    problem = _problem(endpoint, params) or (_refused_since(body) if strict else None)
    if problem is not None:
        return problem
    system = [answers.Message(role="system", content=params.system)] if params.system else []
    ask = answers.Ask(model=params.model, messages=system + params.messages, text=params.output_config)
    n_in = answers.tokens(answers.question(ask)) + 4 * len(params.messages)
    if endpoint == _COUNT:
        return Answer({"input_tokens": n_in}, 0, 0)
    content, stop_reason = _content(params, ask, _mark(body))
    n_out = answers.tokens(msgspec.json.encode(content).decode())
    message = {
        "id": f"msg_01{_mark(body)}",
        "type": "message",
        "role": "assistant",
        "model": params.model,
        "content": [content],
        "stop_reason": stop_reason,
        "stop_sequence": None,
        "usage": {
            "input_tokens": n_in,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
            "output_tokens": n_out,
            "service_tier": "batch" if endpoint == _IN_BATCH else "standard",
        },
    }
    return Answer(message, n_in, n_out)


def _problem(endpoint: str, params: _Params) -> Problem | None:
    in_batch = endpoint == _IN_BATCH
    if not params.model:
        return Problem(400, None, "model: Field required")
    if params.model.startswith(answers.UNKNOWN_MODEL_PREFIX):
        return Problem(404, None, f"model: {params.model}")
    if not params.messages:
        return Problem(400, None, "messages: at least one message is required")
    if endpoint != _COUNT and (params.max_tokens is None or params.max_tokens < in_batch):
        return Problem(400, None, "max_tokens: Field required, and greater than 0 in a batch")
    if in_batch and params.stream:
        return Problem(400, None, "stream: streaming is not supported in a batch")
    if in_batch and params.speed == "fast":
        return Problem(400, None, "speed: fast mode is not supported in a batch")
    return None


def _versioned(endpoint: str, headers: Mapping[str, str]) -> str:
    return endpoint + (_STRICT if headers.get("anthropic-version", "") >= _STRICT_FROM else "")


def _refused_since(body: bytes | msgspec.Raw) -> Problem | None:
    """Return why versions from 2026-10-21 on refuse a request, or None."""
    asked = msgspec.json.decode(body, type=dict[str, Any])
    for name in _SAMPLING:
        if asked.get(name) is not None:
            return Problem(400, None, f"{name}: sampling parameters are not supported since {_STRICT_FROM}")
    for number, message in enumerate(asked.get("messages", [])):
        content = message.get("content") if isinstance(message, dict) else None
        for block in content if isinstance(content, list) else []:
            if not isinstance(block, dict):
                continue
            where = f"messages.{number}.content"
            if message.get("role") == "assistant" and block.get("type") == "document":
                return Problem(400, None, f"{where}: a document is not allowed in an assistant message")
            if message.get("role") == "user" and block.get("type") == "text" and block.get("citations"):
                return Problem(400, None, f"{where}: citations are not allowed in a user's text")
    return None


def _content(params: _Params, ask: answers.Ask, mark: str) -> tuple[dict[str, Any], str]:
    """Return a text block, or a call of the tool that the request requires."""
    choice = params.tool_choice or {}
    if params.tools and choice.get("type") in ("any", "tool"):
        named = [tool for tool in params.tools if tool.get("name") == choice.get("name")]
        tool = (named or params.tools)[0]
        given = schema_examples.example(tool.get("input_schema", {}), answers.question(ask))
        return {
            "type": "tool_use",
            "id": f"toolu_01{mark}",
            "name": tool.get("name"),
            "input": given,
        }, "tool_use"
    return {"type": "text", "text": answers.reply(ask)}, "end_turn"


def _events(message: dict[str, Any]) -> Iterator[bytes]:
    for event in message_events.events(message):
        yield streams.sse(event, event["type"])


def _mark(body: bytes | msgspec.Raw) -> str:
    return hashlib.blake2b(bytes(body), digest_size=11).hexdigest()


def _iso(moment: float) -> str:
    return dt.datetime.fromtimestamp(moment, dt.UTC).isoformat().replace("+00:00", "Z")
