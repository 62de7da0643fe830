"""OpenAI's Files and Batches API: the defaults of the emulators of providers that follow it."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any, ClassVar

from multidict import MultiMapping

from ..answers.answers import Answer
from ..world.world import Limits
from .dialect import FileDialect, Page, Refusal
from .id_pages import page_after
from .records import Batch, BatchView, CreateAsk, StoredFile
from .scan import LineRules, listed_errors

DAY_S = 86_400


class OpenAIWords(FileDialect):
    """OpenAI's words: validation stops at the first bad line and fails the batch; lists page by batch id."""

    batchable: ClassVar[frozenset[str]]
    """The endpoints that a batch takes."""

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
        if ask.endpoint not in self.batchable:
            raise Refusal(400, f"Invalid value: '{ask.endpoint}' is not a batch endpoint.", param="endpoint")
        if ask.completion_window != "24h":
            message = f"Invalid value: '{ask.completion_window}'. Supported values are: '24h'."
            raise Refusal(400, message, code="invalid_value", param="completion_window")
        return DAY_S

    def missing_input(self, ask: CreateAsk) -> str:
        """Return why the input file cannot be used; OpenAI's batch then fails with it."""
        return f"Cannot find file {ask.input_file_id}, or organization sandbox does not have access to it."

    def line_rules(self, ask: CreateAsk) -> LineRules:
        """Return the rules for the lines of this batch."""
        return LineRules(endpoints=self.batchable, endpoint=ask.endpoint, one_model=True, models_checked=True)

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


def _usage(view: BatchView) -> dict[str, Any]:
    return {
        "input_tokens": view.input_tokens,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": view.output_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": view.input_tokens + view.output_tokens,
    }
