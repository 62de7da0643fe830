"""Doubleword's Files and Batches API, as its open server has it up to 2026-11-23."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from aiohttp import web
from multidict import MultiMapping

from ..answers import answers
from ..answers.answers import Answer, Problem
from ..api.file_batches import FileBatches
from ..api.files_api import FilesApi, refuse_error_file
from ..batches.dialect import Page, Refusal, Traits
from ..batches.records import Batch, BatchView, CreateAsk, StoredFile, Written
from ..batches.scan import LineRules, listed_errors, scan
from ..world import faults, unable
from ..world.window import window
from ..world.world import Limits, World

_MESSAGES = "/v1/messages"
_BATCHABLE = frozenset(
    {"/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses", _MESSAGES}
)
_WINDOWS_S = {"1h": 3600.0, "24h": 86_400.0}
_MAX_PAGE = 100
_TRIED_AGAIN = frozenset({408, 425, 429})
"""Statuses that the server retries by itself, as it does every 5xx."""
_RESERVED = frozenset(
    {"created_by_email", "context_name", "context_type", "request_source", "created_by", "dw_user_agent"}
)
"""Metadata keys that the server sets itself; values of callers are dropped."""
_RULES = LineRules(
    endpoints=_BATCHABLE,
    endpoint=None,
    models_checked=True,
    unique=False,
)


def _perform(endpoint: str, body: bytes | msgspec.Raw, created: int) -> Answer | Problem:
    """Answer a request; a messages request gets the answer of a chat in its own shape."""
    if endpoint != _MESSAGES:
        return answers.perform(endpoint, body, created)
    found = answers.perform("/v1/chat/completions", body, created)
    if isinstance(found, Problem):
        return found
    text = found.body["choices"][0]["message"]["content"]
    message = {
        "id": f"msg_{found.body['id']}",
        "type": "message",
        "role": "assistant",
        "model": found.body["model"],
        "content": [{"type": "text", "text": text}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": found.input_tokens, "output_tokens": found.output_tokens},
    }
    return Answer(message, found.input_tokens, found.output_tokens)


def _row_error(status: int, code: str | None, message: str) -> Mapping[str, Any]:
    """Return the error of a failed row; a refusal of the model's server is JSON that holds its status."""
    if 400 <= status < 500 and status not in _TRIED_AGAIN:
        body = json.dumps({"error": {"message": message, "type": "invalid_request_error", "code": code}})
        message = json.dumps({"type": "NonRetriableHttpStatus", "status": status, "body": body})
    return {"code": None, "message": message}


class DoublewordDialect:
    """Doubleword: uploads are checked, results can be read while a batch runs, and no batch expires."""

    traits = Traits(
        name="doubleword",
        root="/v1",
        realtime_endpoints=_BATCHABLE,
        purposes=frozenset({"batch"}),
        created_status=201,
        plain_errors=True,
        perform=_perform,
        row_error=_row_error,
        names_undone=False,
        early_files=True,
        works_late=True,
        no_money=(402, None, "Account balance too low. Please add credits to continue."),
        unable={
            **unable.NOT_PENDING,
            **unable.ONE_SHAPE,
            faults.ExpireBatch: "Its batches go on when their window is over.",
        },
        max_bytes=100_000_000,
    )

    def new_file_id(self) -> str:
        """Return a fresh file id, a bare UUID."""
        return str(uuid.uuid4())

    def new_batch_id(self) -> str:
        """Return a fresh batch id, a bare UUID."""
        return str(uuid.uuid4())

    def error_body(self, status: int, code: str | None, message: str, param: str | None) -> dict[str, Any]:
        """Return the body of an HTTP error; most are plain text."""
        return {"error": {"message": message, "type": "invalid_request_error", "param": param, "code": code}}

    def file_object(self, file: StoredFile) -> dict[str, Any]:
        """Return a file as JSON."""
        return {
            "id": file.id,
            "object": "file",
            "bytes": file.n_bytes,
            "created_at": int(file.created_at),
            "filename": file.filename,
            "purpose": file.purpose,
        }

    def batch_object(self, view: BatchView) -> dict[str, Any]:
        """Return a batch as JSON without fields that are null; a batch whose rows all failed has failed."""
        status = view.status
        counts = view.counts or {}
        if status == "completed" and not counts.get("completed") and counts.get("failed"):
            status = "failed"
        shown = {
            "id": view.id,
            "object": "batch",
            "endpoint": view.ask.endpoint,
            "errors": listed_errors(view.errors, bare=view.bare_errors),
            "input_file_id": view.ask.input_file_id,
            "completion_window": view.ask.completion_window,
            "status": status,
            "output_file_id": view.output_file_id,
            "error_file_id": view.error_file_id,
            "created_at": view.created_at,
            "in_progress_at": view.in_progress_at,
            "expires_at": view.expires_at,
            "finalizing_at": view.finalizing_at,
            "completed_at": view.completed_at,
            "failed_at": view.failed_at if status != "failed" else view.failed_at or view.completed_at,
            "expired_at": view.expired_at,
            "cancelling_at": view.cancelling_at,
            "cancelled_at": view.cancelled_at,
            "request_counts": view.counts,
            "metadata": _enriched(view.ask.metadata),
        }
        return {name: value for name, value in shown.items() if value is not None}

    def window_seconds(self, ask: CreateAsk) -> float:
        """Check everything in a create call but its file; return the completion window in seconds."""
        if ask.endpoint not in _BATCHABLE:
            raise Refusal(400, f"Unsupported endpoint '{ask.endpoint}'")
        if ask.completion_window not in _WINDOWS_S:
            raise Refusal(400, f"Unsupported completion window '{ask.completion_window}'")
        if len(ask.metadata or {}) > 16:
            raise Refusal(400, "Metadata takes 16 pairs at most")
        return _WINDOWS_S[ask.completion_window]

    def missing_input(self, ask: CreateAsk) -> str:
        """Refuse the call."""
        raise Refusal(404, f"File {ask.input_file_id} not found")

    def line_rules(self, ask: CreateAsk) -> LineRules:
        """Return the rules for the lines of this batch, which were checked at the upload."""
        return _RULES

    def wrong_file_name(self) -> Refusal:
        """Return the refusal of an input file with a wrong name."""
        return Refusal(400, "Batch files must be .jsonl")

    def page(self, query: MultiMapping[str], newest_first: Sequence[Batch], limits: Limits) -> Page:
        """Return the page of `limit` batches after `after` that match `search`."""
        limit = query.get("limit", str(limits.page_size))
        if not limit.isdigit() or not 1 <= int(limit) <= _MAX_PAGE:
            raise Refusal(400, f"'limit' must be from 1 to {_MAX_PAGE}")
        criteria = query.get("search", "")
        found = [batch for batch in newest_first if criteria in _searched(batch)]
        after, start = query.get("after"), 0
        if after:
            places = [place for place, batch in enumerate(found) if batch.id == after]
            start = places[0] + 1 if places else len(found)
        page = found[start : start + int(limit)]
        envelope = {
            "first_id": page[0].id if page else None,
            "last_id": page[-1].id if page else None,
            "has_more": len(found) > start + len(page),
        }
        return Page(batches=page, envelope=envelope)

    def not_cancellable(self, view: BatchView) -> Refusal:
        """Return the refusal for cancelling a batch that has ended."""
        return Refusal(400, f"Batch {view.id} is {view.status} and cannot be cancelled")

    def decorate(self, answer: Answer, mark: str) -> dict[str, Any]:
        """Return the body of a success unchanged."""
        return answer.body


class DoublewordFiles(FilesApi):
    """Files: lines are checked at the upload; results are read from any line on while they grow."""

    async def check_lines(self, path: Path, purpose: str) -> None:
        """Raise Refusal for the first bad line."""
        limits = self._world.limits
        most = self._dialect.traits.row_limit(limits)
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(self._world.pool, scan, path, _RULES, limits, most)
        for error in found.errors[:1]:
            where = "" if error.line is None else f"Line {error.line}: "
            raise Refusal(400, f"{where}{error.message}")

    async def content(self, request: web.Request, owner: str) -> web.StreamResponse:
        """Send `limit` lines after the first `skip`, as far as they are written."""
        growing = await self._book.growing(request.match_info["file_id"], owner)
        if growing is None or growing.complete:
            file = self.find(request, owner)
            refuse_error_file(file.refusing, file.created_at, self._world.clock.now())
            growing = Written(path=file.path, n_bytes=file.n_bytes, model=file.model, complete=True)
        elif growing.refusing is not None:
            refuse_error_file(growing.refusing, self._world.clock.now(), self._world.clock.now())
        skip, limit = (_number(request.query.get(name)) for name in ("skip", "limit"))
        loop = asyncio.get_running_loop()
        cut = await loop.run_in_executor(
            self._world.pool, window, growing.path, growing.n_bytes, skip or 0, limit
        )
        incomplete = not growing.complete or cut.end < growing.n_bytes
        return await self._call_faults.send(
            request,
            growing.path,
            growing.model,
            cut.end - cut.start,
            "application/x-ndjson",
            start=cut.start,
            headers={"X-Incomplete": str(incomplete).lower(), "X-Last-Line": str(cut.next_line)},
        )


def emulate(world: World) -> FileBatches:
    """Return Doubleword's emulator."""
    return FileBatches(world, DoublewordDialect(), files=DoublewordFiles)


def _number(said: str | None) -> int | None:
    if not said:
        return None
    if not said.isdigit():
        raise Refusal(400, f"'{said}' is not a number of lines.")
    return int(said)


def _enriched(metadata: Mapping[str, object] | None) -> dict[str, object] | None:
    if metadata is None:
        return None
    return {
        **{name: value for name, value in metadata.items() if name not in _RESERVED},
        "request_source": "api",
        "created_by_email": "somebody@sandbox.invalid",
    }


def _searched(batch: Batch) -> str:
    """Return the text that a search covers: metadata and id."""
    metadata = {} if batch.plan.no_metadata else batch.ask.metadata or {}
    return " ".join((batch.id, *(str(value) for value in metadata.values())))
