"""Azure OpenAI's Files and Batches API, as documented up to 2026-11-23: a resource, under the v1 path and a dated one.

The samples of the two differ, and both are emulated: the v1 path words batches as OpenAI does, the dated path with
capital letters, ISO times, null counts and blank file ids.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import secrets
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import msgspec
from multidict import MultiMapping

from ..answers import answers
from ..answers.answers import Answer, Problem
from ..api.batches_api import BatchesApi
from ..api.file_batches import FileBatches
from ..batches.dialect import Page, Refusal, Traits
from ..batches.id_pages import page_after
from ..batches.records import Batch, BatchView, CreateAsk, StoredFile
from ..batches.scan import LineError, LineRules, listed_errors
from ..world.clock import Clock
from ..world.world import Limits, World

BASE_URL_VARIABLES: Mapping[str, str] = {"AZURE_OPENAI_ENDPOINT": ""}
"""Variables in which SDKs look for a base URL -> the path below the provider's own."""

_CHAT: Final = "/v1/chat/completions"
_RESPONSES: Final = "/v1/responses"
_BATCHABLE: Final = frozenset({_CHAT, _RESPONSES, "/chat/completions", "/responses"})
_BESIDE: Final = (
    "/audio/transcriptions",
    "/audio/translations",
    "/completions",
    "/embeddings",
    "/images/generations",
)
"""Endpoints that a resource answers but no batch accepts."""
_DAY_S: Final = 86_400
_FOR_EVER_S: Final = 3650 * _DAY_S
_RETENTION_S: Final = range(14 * _DAY_S, 30 * _DAY_S + 1)
_OWN_CODES: Final = {"invalid_url": "url_mismatch", "mismatched_model": "model_mismatch"}
_FILTERED: Final = {
    word: {"filtered": False, "severity": "safe"} for word in ("hate", "self_harm", "sexual", "violence")
}


def _perform(endpoint: str, body: bytes, created: int) -> Answer | Problem:
    return answers.perform(endpoint if endpoint.startswith("/v1/") else f"/v1{endpoint}", body, created)


_V1: Final = Traits(
    name="azure",
    root="/openai/v1",
    realtime_endpoints=frozenset(
        {_CHAT, _RESPONSES, f"{_RESPONSES}/input_tokens", *(f"/v1{path}" for path in _BESIDE)}
    ),
    purposes=frozenset({"assistants", "batch", "evals", "fine-tune"}),
    key_headers=("api-key", "Authorization"),
    perform=_perform,
    max_rows=100_000,
    quota_status=400,
    empty_files=True,
    retention_s=_RETENTION_S,
    most_lasting_files=500,
    most_files=10_000,
    speech="mp3",
    takes_parts=True,
)
_DATED: Final = replace(
    _V1,
    root="/openai",
    realtime_endpoints=frozenset({_RESPONSES}),
    realtime_paths={
        "/deployments/{deployment}/chat/completions": _CHAT,
        **{f"/deployments/{{deployment}}{path}": f"/v1{path}" for path in _BESIDE},
    },
    speech_path="/deployments/{deployment}/audio/speech",
    takes_parts=False,
    required_query=("api-version",),
)


class AzureDialect:
    """Azure OpenAI on the v1 path: OpenAI's words, with codes and limits of its own; batches do not expire."""

    def __init__(self, clock: Clock, traits: Traits = _V1) -> None:
        self.traits = traits
        self._clock = clock

    def new_file_id(self) -> str:
        """Return a fresh file id."""
        return f"file-{secrets.token_hex(16)}"

    def new_batch_id(self) -> str:
        """Return a fresh batch id."""
        return f"batch_{uuid.uuid4()}"

    def error_body(self, status: int, code: str | None, message: str, param: str | None) -> dict[str, Any]:
        """Return the JSON body of an HTTP error."""
        return {
            "error": {"message": message, "type": None, "param": param, "code": code or str(status)},
        }

    def file_object(self, file: StoredFile) -> dict[str, Any]:
        """Return a file as JSON; it is `pending` until it is processed."""
        return {
            "id": file.id,
            "object": "file",
            "bytes": file.n_bytes,
            "created_at": int(file.created_at),
            "filename": file.filename,
            "purpose": file.purpose,
            "status": "processed" if self.is_processed(file) else "pending",
            "status_details": None,
            "expires_at": None if file.expires_at is None else int(file.expires_at),
        }

    def is_processed(self, file: StoredFile) -> bool:
        """Return whether the file is processed, so that a batch can use it."""
        return file.processed_at <= self._clock.now()

    def batch_object(self, view: BatchView) -> dict[str, Any]:
        """Return a batch as JSON."""
        return dated(self._object(view)) if view.dated else self._object(view)

    def _object(self, view: BatchView) -> dict[str, Any]:
        errors = [_own(error) for error in view.errors]
        return {
            "id": view.id,
            "object": "batch",
            "endpoint": view.ask.endpoint,
            "errors": listed_errors(errors, bare=view.bare_errors),
            "input_file_id": view.ask.input_file_id,
            "completion_window": view.ask.completion_window,
            "status": view.status,
            "output_file_id": view.output_file_id,
            "error_file_id": view.error_file_id,
            "created_at": view.created_at,
            "in_progress_at": view.in_progress_at,
            # Azure names this time and does not enforce it: a batch runs until it is done or cancelled.
            "expires_at": view.created_at + _DAY_S,
            "finalizing_at": view.finalizing_at,
            "completed_at": view.completed_at,
            "failed_at": view.failed_at,
            "expired_at": view.expired_at,
            "cancelling_at": view.cancelling_at,
            "cancelled_at": view.cancelled_at,
            "request_counts": view.counts,
            "metadata": view.ask.metadata,
        }

    def window_seconds(self, ask: CreateAsk) -> float:
        """Check everything in a create call but its file; return how long a batch may take."""
        if ask.completion_window != "24h":
            raise Refusal(400, "The completion_window must be '24h'.", code="invalid_request")
        wanted = ask.output_expires_after
        if wanted is not None and (
            wanted.get("anchor") != "created_at" or wanted.get("seconds") not in _RETENTION_S
        ):
            message = "output_expires_after needs the anchor created_at and 1209600 to 2592000 seconds."
            raise Refusal(400, message, code="invalid_request", param="output_expires_after")
        return _FOR_EVER_S

    def missing_input(self, ask: CreateAsk) -> str:
        """Refuse the call: Azure looks for the file at once."""
        message = f"File not found. File ID: {ask.input_file_id}."
        raise Refusal(400, message, code="invalid_request", param="input_file_id")

    def line_rules(self, ask: CreateAsk) -> LineRules:
        """Return the rules for the lines of this batch; the lines name the endpoint."""
        return LineRules(endpoints=_BATCHABLE, endpoint=None, one_model=True, models_checked=True)

    def wrong_file_name(self) -> Refusal:
        """Return the refusal of an input file with a wrong name."""
        return Refusal(400, "Files for batches must end in .jsonl.", code="invalidPayload", param="file")

    def page(self, query: MultiMapping[str], newest_first: Sequence[Batch], limits: Limits) -> Page:
        """Return the page of `limit` batches after `after`."""
        return page_after(query, newest_first, limits)

    def not_cancellable(self, view: BatchView) -> Refusal:
        """Return the refusal for cancelling a batch that has ended."""
        return Refusal(409, f"Cannot cancel a batch with status '{view.status}'.")

    def decorate(self, answer: Answer, mark: str) -> dict[str, Any]:
        """Return the body of a success with the content filter's results."""
        choices = answer.body.get("choices")
        if not isinstance(choices, list):
            return answer.body
        return {
            **answer.body,
            "choices": [{**choice, "content_filter_results": _FILTERED} for choice in choices],
            "prompt_filter_results": [{"prompt_index": 0, "content_filter_results": _FILTERED}],
        }


def dated(shown: dict[str, Any]) -> dict[str, Any]:
    """Convert a batch's JSON to the shape of the REST samples of dated versions."""
    times = {name: _iso(at) for name, at in shown.items() if name.endswith("_at")}
    blank = {name: shown[name] or "" for name in ("output_file_id", "error_file_id")}
    counts = None if shown["status"] == "validating" else shown["request_counts"]
    word = shown["status"].capitalize()
    return {**shown, **times, **blank, "status": word, "request_counts": counts, "endpoint": None}


class DatedDialect(AzureDialect):
    """The same resource under `?api-version=`, as the REST samples show it."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock, _DATED)

    def batch_object(self, view: BatchView) -> dict[str, Any]:
        """Return a batch as JSON."""
        return dated(self._object(view))


class AzureBatches(BatchesApi):
    """Batches whose input files must be processed first."""

    @contextlib.asynccontextmanager
    async def source(self, ask: CreateAsk, owner: str) -> AsyncIterator[StoredFile | LineError]:
        """Yield the input of a batch; raise Refusal while it is not processed."""
        async with super().source(ask, owner) as source:
            if isinstance(source, StoredFile) and source.processed_at > self._world.clock.now():
                message = f"File {ask.input_file_id} is not processed yet: its status is pending."
                raise Refusal(400, message, code="invalid_request", param="input_file_id")
            yield source


def emulate(world: World) -> FileBatches:
    """Return Azure OpenAI's emulator."""
    clock = world.clock
    return FileBatches(world, AzureDialect(clock), DatedDialect(clock), batches=AzureBatches)


def settings(base_url: str) -> dict[str, str]:
    """Return the worker's other settings: polls without a pause, because the emulator has no rate limit."""
    return {"BATCHLING_PROVIDERS__AZURE__POLL_INTERVAL_SECONDS": "0"}


def _own(error: LineError) -> LineError:
    return msgspec.structs.replace(error, code=_OWN_CODES.get(error.code, error.code))


def _iso(at: int | None) -> str | None:
    """Return a time as the samples show it, with seven digits after the decimal point."""
    if at is None:
        return None
    return dt.datetime.fromtimestamp(at, dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.0000000+00:00")
