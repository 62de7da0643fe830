"""OpenAI's Files and Batches API, as published and captured up to 2026-11-23."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from multidict import MultiMapping

from ..answers.answers import Answer
from ..api.file_batches import FileBatches
from ..batches.dialect import Page, Refusal, Traits
from ..batches.id_pages import page_after
from ..batches.records import Batch, BatchView, CreateAsk, StoredFile
from ..batches.scan import LineRules, listed_errors
from ..world import unable
from ..world.world import Limits, World

BASE_URL_VARIABLES: Mapping[str, str] = {"OPENAI_BASE_URL": "/v1", "OPENAI_API_BASE": "/v1"}
"""Variables in which SDKs look for a base URL -> the path below the provider's own."""

_BATCHABLE = frozenset(
    {
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/embeddings",
        "/v1/images/edits",
        "/v1/images/generations",
        "/v1/moderations",
        "/v1/responses",
        "/v1/videos",
    }
)
_DAY_S = 86_400
_RETENTION_S = range(3600, 2592000 + 1)


class OpenAIDialect:
    """OpenAI: validation stops at the first bad line and fails the batch; lists page by batch id."""

    traits = Traits(
        name="openai",
        root="/v1",
        realtime_endpoints=_BATCHABLE
        | {"/v1/audio/transcriptions", "/v1/audio/translations", "/v1/responses/input_tokens"},
        purposes=frozenset({"assistants", "batch", "evals", "fine-tune", "user_data", "vision"}),
        scoping_headers=("OpenAI-Organization", "OpenAI-Project"),
        limits_creates=True,
        most_stored_bytes=100_000_000_000,
        speech="mp3",
        takes_parts=True,
        unable={**unable.NOT_PENDING, **unable.ONE_SHAPE},
    )

    def new_file_id(self) -> str:
        """Return a fresh file id."""
        return f"file-{secrets.token_hex(11)}"

    def new_batch_id(self) -> str:
        """Return a fresh batch id."""
        return f"batch_{secrets.token_hex(16)}"

    def error_body(self, status: int, code: str | None, message: str, param: str | None) -> dict[str, Any]:
        """Return the JSON body of an HTTP error."""
        kind = (
            "server_error"
            if status >= 500
            else "rate_limit_error"
            if status == 429
            else "invalid_request_error"
        )
        if status == 429 and code is None:
            code = "rate_limit_exceeded"
        elif code == "insufficient_quota":
            kind = code
        return {"error": {"message": message, "type": kind, "param": param, "code": code}}

    def file_object(self, file: StoredFile) -> dict[str, Any]:
        """Return a file as JSON."""
        return {
            "id": file.id,
            "object": "file",
            "bytes": file.n_bytes,
            "created_at": int(file.created_at),
            "filename": file.filename,
            "purpose": file.purpose,
            "status": "processed",
            "status_details": None,
            "expires_at": None if file.expires_at is None else int(file.expires_at),
        }

    def batch_object(self, view: BatchView) -> dict[str, Any]:
        """Return a batch as JSON."""
        return {
            "id": view.id,
            "object": "batch",
            "endpoint": view.ask.endpoint,
            "model": view.model,
            "errors": listed_errors(view.errors, bare=view.bare_errors),
            "input_file_id": view.ask.input_file_id,
            "completion_window": view.ask.completion_window,
            "status": view.status,
            "output_file_id": view.output_file_id,
            "error_file_id": view.error_file_id,
            "created_at": view.created_at,
            "in_progress_at": view.in_progress_at,
            "expires_at": view.expires_at,
            "finalizing_at": view.finalizing_at,
            "completed_at": view.completed_at,
            "failed_at": view.failed_at,
            "expired_at": view.expired_at,
            "cancelling_at": view.cancelling_at,
            "cancelled_at": view.cancelled_at,
            "request_counts": view.counts,
            "usage": _usage(view),
            "metadata": view.ask.metadata,
        }

    def window_seconds(self, ask: CreateAsk) -> float:
        """Check everything in a create call but its file; return the completion window in seconds."""
        if ask.endpoint not in _BATCHABLE:
            raise Refusal(400, f"Invalid value: '{ask.endpoint}' is not a batch endpoint.", param="endpoint")
        if ask.completion_window != "24h":
            message = f"Invalid value: '{ask.completion_window}'. Supported values are: '24h'."
            raise Refusal(400, message, code="invalid_value", param="completion_window")
        _check_metadata(ask.metadata or {})
        wanted = ask.output_expires_after
        if wanted is not None and (
            wanted.get("anchor") != "created_at" or wanted.get("seconds") not in _RETENTION_S
        ):
            message = "'output_expires_after' needs the anchor 'created_at' and 3600 to 2592000 seconds."
            raise Refusal(400, message, param="output_expires_after")
        return _DAY_S

    def missing_input(self, ask: CreateAsk) -> str:
        """Return why the input file cannot be used; OpenAI's batch then fails with it."""
        return f"Cannot find file {ask.input_file_id}, or organization sandbox does not have access to it."

    def line_rules(self, ask: CreateAsk) -> LineRules:
        """Return the rules for the lines of this batch."""
        return LineRules(endpoints=_BATCHABLE, endpoint=ask.endpoint, one_model=True, models_checked=True)

    def wrong_file_name(self) -> Refusal:
        """Return the refusal of an input file with a wrong name; OpenAI repeats the sentence."""
        message = "Invalid file format for the Batch API. The file name must end in .jsonl."
        return Refusal(400, message, beside={"detail": {"message": message, "code": None}})

    def page(self, query: MultiMapping[str], newest_first: Sequence[Batch], limits: Limits) -> Page:
        """Return the page of `limit` batches after `after`."""
        return page_after(query, newest_first, limits)

    def not_cancellable(self, view: BatchView) -> Refusal:
        """Return the refusal for cancelling a batch that has ended."""
        return Refusal(409, f"Cannot cancel a batch with status '{view.status}'.")

    def decorate(self, answer: Answer, mark: str) -> dict[str, Any]:
        """Return the body of a success unchanged."""
        return answer.body


def emulate(world: World) -> FileBatches:
    """Return OpenAI's emulator."""
    return FileBatches(world, OpenAIDialect())


def _usage(view: BatchView) -> dict[str, Any]:
    return {
        "input_tokens": view.input_tokens,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": view.output_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": view.input_tokens + view.output_tokens,
    }


def _check_metadata(metadata: dict[str, object]) -> None:
    fits = len(metadata) <= 16 and all(
        len(key) <= 64 and isinstance(value, str) and len(value) <= 512 for key, value in metadata.items()
    )
    if not fits:
        message = "'metadata' takes 16 pairs of strings, keys of 64 and values of 512 characters."
        raise Refusal(400, message, param="metadata")
