"""Groq's Files and Batches API, as published and captured up to 2026-11-23."""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from multidict import MultiMapping

from ..answers.answers import Answer
from ..api.file_batches import FileBatches
from ..batches.dialect import Page, Refusal, Traits
from ..batches.openai_words import OpenAIWords
from ..batches.records import Batch, BatchView, CreateAsk, StoredFile
from ..batches.scan import LineRules
from ..world import unable
from ..world.world import Limits, World

BASE_URL_VARIABLES: Mapping[str, str] = {"GROQ_BASE_URL": ""}
"""Variables in which SDKs look for a base URL -> the path below the provider's own."""

_BATCHABLE = frozenset({"/v1/audio/transcriptions", "/v1/audio/translations", "/v1/chat/completions"})
_WINDOW = re.compile(r"(\d{1,4})([hd])")
_HOURS = range(24, 7 * 24 + 1)
_MAX_IDS = 200


class GroqDialect(OpenAIWords):
    """Groq: bad lines are skipped and count as failed; a file may mix models and endpoints."""

    traits = Traits(
        name="groq",
        root="/openai/v1",
        realtime_endpoints=_BATCHABLE | {"/v1/embeddings", "/v1/responses"},
        speech="mp3",
        purposes=frozenset({"batch"}),
        cursor=("cursor", ("paging", "next_cursor")),
        no_money=(400, "blocked_api_access", "API access is blocked: the spend limit has been reached."),
        unable={**unable.NOT_PENDING, **unable.ONE_SHAPE},
    )

    def new_file_id(self) -> str:
        """Return a fresh file id."""
        return f"file_01{secrets.token_hex(12)}"

    def new_batch_id(self) -> str:
        """Return a fresh batch id."""
        return f"batch_01{secrets.token_hex(12)}"

    def error_body(self, status: int, code: str | None, message: str, param: str | None) -> dict[str, Any]:
        """Return the JSON body of an HTTP error; Groq leaves out fields without a value."""
        kind = "invalid_request_error"
        if status >= 500:
            kind = "internal_server_error"
        elif status == 429:
            kind, code = "requests", code or "rate_limit_exceeded"
        error = {"message": message, "type": kind, "code": code, "param": param}
        return {"error": {name: value for name, value in error.items() if value is not None}}

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
        """Return a batch as JSON; a completed batch may have `errors`."""
        shown = super().batch_object(view)
        return {name: value for name, value in shown.items() if name not in ("model", "usage")}

    def window_seconds(self, ask: CreateAsk) -> float:
        """Check everything in a create call but its file; return the completion window in seconds."""
        if ask.endpoint not in _BATCHABLE:
            raise Refusal(400, f"'{ask.endpoint}' is not a batch endpoint.", param="endpoint")
        window = _WINDOW.fullmatch(ask.completion_window)
        hours = int(window[1]) * (24 if window[2] == "d" else 1) if window else 0
        if hours not in _HOURS:
            raise Refusal(400, "The completion window must be from 24h to 7d.", param="completion_window")
        return hours * 3600.0

    def missing_input(self, ask: CreateAsk) -> str:
        """Refuse the call: unlike OpenAI, the sandbox's Groq creates no batch for a missing file."""
        raise Refusal(400, f"The input file '{ask.input_file_id}' was not found.", param="input_file_id")

    def line_rules(self, ask: CreateAsk) -> LineRules:
        """Return the rules for the lines of this batch."""
        return LineRules(
            endpoints=_BATCHABLE, endpoint=None, one_model=False, models_checked=False, skips_bad_lines=True
        )

    def wrong_file_name(self) -> Refusal:
        """Return the refusal of an input file with a wrong name."""
        return Refusal(400, "The Batch API takes .jsonl files only.", param="file")

    def page(self, query: MultiMapping[str], newest_first: Sequence[Batch], limits: Limits) -> Page:
        """Return the batches that `id` names, else the page at `cursor`."""
        if "id" in query:
            wanted = query.getall("id")
            if len(wanted) > _MAX_IDS:
                raise Refusal(400, f"A list call takes at most {_MAX_IDS} ids.", param="id")
            found = [batch for batch in newest_first if batch.id in set(wanted)]
            return Page(batches=found, envelope={"paging": {"next_cursor": None}})
        cursor, start = query.get("cursor"), 0
        if cursor:
            places = [place for place, batch in enumerate(newest_first) if _cursor(batch) == cursor]
            if not places:
                raise Refusal(400, "The cursor is invalid.", param="cursor")
            start = places[0] + 1
        page = newest_first[start : start + limits.page_size]
        more = len(newest_first) > start + len(page)
        return Page(batches=page, envelope={"paging": {"next_cursor": _cursor(page[-1]) if more else None}})

    def not_cancellable(self, view: BatchView) -> Refusal:
        """Return the refusal for cancelling a batch that has ended."""
        return Refusal(400, f"A batch with status '{view.status}' cannot be cancelled.")

    def decorate(self, answer: Answer, mark: str) -> dict[str, Any]:
        """Return the body of a success with Groq's timings and its own request id."""
        body, n_out = answer.body, answer.output_tokens
        usage = body.get("usage")
        if isinstance(usage, dict) and "completion_tokens" in usage:
            prompt_s, completion_s = answer.input_tokens * 1e-5, n_out * 1e-3
            usage |= {
                "queue_time": 0.05,
                "prompt_time": prompt_s,
                "completion_time": completion_s,
                "total_time": prompt_s + completion_s,
            }
        # A chat names its tier since July 2025 (github.com/lofcz/LLMTornado/issues/65), and LiteLLM needs it.
        # Whether a chat in a batch names its tier is not published.
        tier = {"service_tier": "on_demand"} if body.get("object") == "chat.completion" else {}
        return {**body, **tier, "x_groq": {"id": f"req_{mark}"}}


def emulate(world: World) -> FileBatches:
    """Return Groq's emulator."""
    return FileBatches(world, GroqDialect())


def _cursor(batch: Batch) -> str:
    return batch.id.removeprefix("batch_")[::-1]
