"""Mistral's batch jobs and files, as published, captured and read in its SDK up to 2026-11-23."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import secrets
import uuid
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Literal

import msgspec
from aiohttp import web
from msgspec import Meta
from multidict import MultiMapping

from ..answers import rare_answers
from ..answers.answers import UNKNOWN_MODEL_PREFIX, Answer
from ..api.batches_api import TERMINAL, BatchesApi, decode_ask
from ..api.file_batches import FileBatches
from ..api.files_api import FilesApi
from ..api.gate import Gate, json_reply
from ..batches import timing
from ..batches.batch_book import BatchBook
from ..batches.dialect import FileDialect, Page, Refusal, Traits
from ..batches.file_store import FileShelf
from ..batches.line_errors import flaws_in, invalid, unfit
from ..batches.lines import full_line, spell_out
from ..batches.records import Batch, BatchView, CreateAsk, StoredFile
from ..batches.scan import LineError, LineRules
from ..world import unable
from ..world.world import Limits, World

BASE_URL_VARIABLES: Mapping[str, str] = {"MISTRAL_API_BASE": "/v1"}
"""Variables in which SDKs look for a base URL -> the path below the provider's own."""

_BATCHABLE = frozenset(
    {
        "/v1/audio/transcriptions",
        "/v1/chat/classifications",
        "/v1/chat/completions",
        "/v1/chat/moderations",
        "/v1/classifications",
        "/v1/conversations",
        "/v1/embeddings",
        "/v1/fim/completions",
        "/v1/moderations",
        "/v1/ocr",
    }
)
_WORDS = {
    "validating": "QUEUED",
    "in_progress": "RUNNING",
    "finalizing": "RUNNING",
    "completed": "SUCCESS",
    "failed": "FAILED",
    "expired": "TIMEOUT_EXCEEDED",
    "cancelling": "CANCELLATION_REQUESTED",
    "cancelled": "CANCELLED",
}
_HOURS = range(1, 7 * 24 + 1)
_MOST_INLINE = 10_000
_LIST_WORDS = frozenset(
    {"page", "page_size", "model", "agent_id", "created_after", "created_by_me", "status", "order_by"}
)


class InlineRequest(msgspec.Struct, frozen=True):
    """A request that the create call itself holds."""

    body: msgspec.Raw
    custom_id: str | None = None


class JobAsk(CreateAsk, frozen=True, kw_only=True):
    """The body of a create call, in Mistral's fields and in the sandbox's."""

    input_file_id: str = ""
    completion_window: str = ""
    input_files: list[str] | None = None
    requests: list[InlineRequest] | None = None
    model: str | None = None
    agent_id: str | None = None
    timeout_hours: int = 24


class MistralDialect:
    """Mistral: an upload with bad lines is refused; a job has one endpoint and one model."""

    def __init__(self, world: World) -> None:
        self._clock = world.clock
        self.traits = Traits(
            name="mistral",
            root="/v1",
            realtime_endpoints=_BATCHABLE | {"/v1/audio/speech"},
            purposes=frozenset({"batch", "fine-tune", "ocr"}),
            # One page of Mistral's documentation says for ever, another says one day.
            output_retention_s=86_400,
            perform=rare_answers.perform,
            batches="/batch/jobs",
            result_line=_result_line,
            max_rows=100_000,
            max_bytes=512_000_000,
            cursor=None,
            request_id_header="mistral-correlation-id",
            no_money=(402, None, "Payment is required: the workspace has no credits left."),
            unable={**unable.NOT_PENDING, **unable.ONE_SHAPE, **unable.OWN_LINES, **unable.OWN_ERRORS},
        )

    def new_file_id(self) -> str:
        """Return a fresh file id."""
        return str(uuid.uuid4())

    def new_batch_id(self) -> str:
        """Return a fresh job id."""
        return str(uuid.uuid4())

    def error_body(self, status: int, code: str | None, message: str, param: str | None) -> dict[str, Any]:
        """Return the JSON body of an HTTP error; that of a refused key has fewer fields."""
        if status == 401:
            return {"detail": message}
        kind = "invalid_request_error" if status < 500 else "server_error"
        return {
            "object": "error",
            "message": message,
            "type": kind,
            "param": param,
            "code": code,
            "raw_status_code": status,
        }

    def file_object(self, file: StoredFile) -> dict[str, Any]:
        """Return a file as JSON; result files have the purpose `batch`, too."""
        made = file.purpose == "batch_output"
        failed = made and file.filename.endswith("_error.jsonl")
        sample_type = "batch_error" if failed else "batch_result" if made else "batch_request"
        return {
            "id": file.id,
            "object": "file",
            "bytes": file.n_bytes,
            "created_at": int(file.created_at),
            "filename": file.filename,
            "purpose": "batch" if made else file.purpose,
            "sample_type": sample_type if made or file.purpose == "batch" else "pretrain",
            "source": "mistral" if made else "upload",
            "num_lines": file.n_lines,
            "mimetype": "application/jsonl",
            "signature": None,
            "expires_at": None if file.expires_at is None else int(file.expires_at),
            "visibility": "workspace",
            "deleted": False,
        }

    def batch_object(self, view: BatchView) -> dict[str, Any]:
        """Return a job as JSON."""
        ask, counts = _job_ask(view.ask), view.counts or {}
        n_failed, n_succeeded = counts.get("failed"), counts.get("completed")
        if isinstance(n_failed, int):
            n_failed -= view.n_undone
        n_done = sum(n for n in (n_failed, n_succeeded) if isinstance(n, int))
        ended = (view.completed_at, view.failed_at, view.expired_at, view.cancelled_at)
        return {
            "id": view.id,
            "object": "batch",
            "input_files": ask.input_files if ask.input_file_id else [],
            "metadata": ask.metadata,
            "endpoint": ask.endpoint,
            "model": view.model,
            "agent_id": ask.agent_id,
            "output_file": view.output_file_id,
            "error_file": view.error_file_id,
            "errors": [{"message": error.message, "count": 1} for error in view.errors],
            "outputs": None,
            "status": _WORDS[view.status],
            "created_at": view.created_at,
            "started_at": view.in_progress_at,
            "completed_at": next((moment for moment in ended if moment is not None), None),
            "total_requests": counts.get("total"),
            "completed_requests": n_done,
            "succeeded_requests": n_succeeded,
            "failed_requests": n_failed,
        }

    def window_seconds(self, ask: CreateAsk) -> float:
        """Check everything in a create call but its files; return the time it may take in seconds."""
        asked = _job_ask(ask)
        if asked.endpoint not in _BATCHABLE:
            raise invalid("enum", ["body", "endpoint"], f"'{asked.endpoint}' is not a batch endpoint")
        if asked.timeout_hours not in _HOURS:
            raise invalid("less_than_equal", ["body", "timeout_hours"], "Input should be from 1 to 168")
        if not asked.model and not asked.agent_id:
            raise invalid("missing", ["body", "model"], "A model or an agent is required")
        if asked.model and asked.model.startswith(UNKNOWN_MODEL_PREFIX):
            raise Refusal(422, f"Invalid model: {asked.model}", code="1500", param="model")
        if bool(asked.input_files) == bool(asked.requests):
            raise invalid("value_error", ["body"], "Either input_files or requests is required")
        if len(asked.requests or ()) > _MOST_INLINE:
            raise invalid("too_long", ["body", "requests"], f"At most {_MOST_INLINE} items are allowed")
        _check_metadata(asked.metadata or {})
        return asked.timeout_hours * 3600.0

    def missing_input(self, ask: CreateAsk) -> str:
        """Refuse the call."""
        raise Refusal(404, f"No file found with id {ask.input_file_id}.", param="input_files")

    def line_rules(self, ask: CreateAsk) -> LineRules:
        """Return the rules for the lines of this job; most were checked at the upload."""
        return LineRules(endpoints=_BATCHABLE, endpoint=None, skips_bad_lines=True, lines_checked=False)

    def wrong_file_name(self) -> Refusal:
        """Return the refusal of an input file with a wrong name."""
        return invalid("value_error", ["body", "file"], "A file for batches must be a .jsonl file")

    def page(self, query: MultiMapping[str], newest_first: Sequence[Batch], limits: Limits) -> Page:
        """Return the page with the number asked for, of the jobs that match the filters."""
        found = [batch for batch in newest_first if self._wanted(query, batch)]
        if query.get("order_by", "-created") == "created":
            found.reverse()
        number, size = _page_of(query)
        return Page(batches=found[number * size :][:size], envelope={"total": len(found)})

    def _wanted(self, query: MultiMapping[str], batch: Batch) -> bool:
        statuses, after = query.getall("status", []), query.get("created_after")
        # The SDK sends the filter for metadata as query parameters (mistralai 3.7).
        labels = {name: value for name, value in query.items() if name not in _LIST_WORDS}
        metadata = batch.ask.metadata or {}
        return (
            (not statuses or _WORDS[timing.status(batch, self._clock.now())] in statuses)
            and (after is None or batch.created_at > _moment(after))
            and query.get("model") in (None, "", batch.model)
            and all(metadata.get(name) == value for name, value in labels.items())
        )

    def not_cancellable(self, view: BatchView) -> Refusal:
        """Return the refusal for cancelling a job that has ended."""
        return Refusal(400, f"A job with status {_WORDS[view.status]} cannot be cancelled.")

    def decorate(self, answer: Answer, mark: str) -> dict[str, Any]:
        """Return the body of a success unchanged."""
        return answer.body


class MistralFiles(FilesApi):
    """Files: the lines of a batch are checked at the upload, and lists page by number."""

    def __init__(self, world: World, dialect: FileDialect, shelf: FileShelf, book: BatchBook) -> None:
        super().__init__(world, dialect, shelf, book)
        self._signed: dict[str, tuple[StoredFile, float]] = {}

    def routes(self, gate: Gate) -> Iterator[web.RouteDef]:
        """Return the routes; a signed URL needs no key."""
        yield from super().routes(gate)
        yield gate.route("GET", "/files/{file_id}/url", self._sign)
        yield gate.route("GET", "/signed/{signature}", self._read_signed, keyless=lambda request: True)

    def retention_s(self, fields: dict[str, str]) -> float:
        """Return how long an upload is kept: `expiry` is in hours."""
        hours, allowed = fields.get("expiry"), self._dialect.traits.retention_s
        if hours is None:
            return self._dialect.traits.input_retention_s
        if not hours.isdigit() or int(hours) * 3600 not in allowed:
            most = allowed[-1] // 3600
            raise invalid("less_than_equal", ["body", "expiry"], f"Input should be from 1 to {most}")
        return int(hours) * 3600.0

    async def _sign(self, request: web.Request, owner: str) -> web.StreamResponse:
        file, hours = self.find(request, owner), request.query.get("expiry", "24")
        if not hours.isdigit() or int(hours) not in _HOURS:
            raise invalid("less_than_equal", ["query", "expiry"], "Input should be from 1 to 168")
        signature = secrets.token_urlsafe(24)
        self._signed[signature] = file, self._world.clock.now() + int(hours) * 3600
        traits = self._dialect.traits
        return json_reply({"url": f"{request.url.origin()}/{traits.name}{traits.root}/signed/{signature}"})

    async def _read_signed(self, request: web.Request, owner: str) -> web.StreamResponse:
        file, until = self._signed.get(request.match_info["signature"], (None, 0.0))
        if file is None or until <= self._world.clock.now() or not self._shelf.taken(file.id):
            raise Refusal(403, "The signature is not valid, or has expired.")
        return await self._call_faults.send(request, file.path, file.model, file.n_bytes)

    async def check_lines(self, path: Path, purpose: str) -> None:
        """Raise Refusal with every bad line of a file for batches."""
        if purpose == "batch":
            loop = asyncio.get_running_loop()
            flaws = await loop.run_in_executor(self._world.pool, flaws_in, path, _Line)
            if flaws:
                raise unfit(flaws)

    def listing(self, query: MultiMapping[str], files: list[StoredFile]) -> dict[str, Any]:
        """Return the page asked for, of the files whose name contains `search`."""
        found = [file for file in files if query.get("search", "") in file.filename]
        number, size = _page_of(query)
        shown = [self._dialect.file_object(file) for file in found[number * size :][:size]]
        return {"object": "list", "data": shown, "total": len(found)}


class MistralJobs(BatchesApi):
    """Jobs of files or of requests in the create call; lines without a model get the model of the job."""

    def routes(self, gate: Gate) -> Iterator[web.RouteDef]:
        """Return the routes, with a route that deletes a job."""
        yield from super().routes(gate)
        yield gate.route("DELETE", self._dialect.traits.batches + "/{batch_id}", self._delete)

    async def _delete(self, request: web.Request, owner: str) -> web.StreamResponse:
        batch = self._find(request, owner)
        if (await self._book.show(batch)).status not in TERMINAL:
            raise Refusal(400, "A job that runs cannot be deleted: cancel it first.")
        self._book.remove(batch)
        return json_reply({"id": batch.id, "object": "batch", "deleted": True})

    async def told(self, request: web.Request, batch: Batch) -> dict[str, Any]:
        """Return a job as JSON, with its rows in `outputs` if the call asks for them."""
        job = await super().told(request, batch)
        if request.query.get("inline", "").lower() != "true" or batch.outcome is None:
            return job
        files = (self._shelf.find(one, batch.owner) for one in (job["output_file"], job["error_file"]) if one)
        lines = [line for file in files if file for line in file.path.read_bytes().splitlines()]
        return {**job, "outputs": [msgspec.Raw(line) for line in lines if _is_object(line)]}

    def asked(self, body: bytes) -> JobAsk:
        """Decode a create call and fill in the sandbox's own fields, too."""
        ask = decode_ask(body, JobAsk)
        return msgspec.structs.replace(
            ask, input_file_id=(ask.input_files or [""])[0], completion_window=f"{ask.timeout_hours}h"
        )

    def model(self, ask: CreateAsk, owner: str) -> str | None:
        """Return the model that the job names."""
        return _job_ask(ask).model

    @contextlib.asynccontextmanager
    async def source(self, ask: CreateAsk, owner: str) -> AsyncIterator[StoredFile | LineError]:
        """Yield the job's lines, each with endpoint and model; several input files are joined."""
        asked = _job_ask(ask)
        files = [self._stored(asked, file_id, owner) for file_id in asked.input_files or ()]
        async with self.written(lambda lines: _write_lines(lines, asked, files)) as path:
            yield _as_input(files, path, asked, owner, self._world.clock.now())

    def _stored(self, ask: JobAsk, file_id: str, owner: str) -> StoredFile:
        file = self._shelf.find(file_id, owner)
        if file is None or file.purpose != "batch":
            self._dialect.missing_input(msgspec.structs.replace(ask, input_file_id=file_id))
            raise AssertionError
        return file


def emulate(world: World) -> FileBatches:
    """Return Mistral's emulator."""
    return FileBatches(world, MistralDialect(world), files=MistralFiles, batches=MistralJobs)


def _job_ask(ask: CreateAsk) -> JobAsk:
    if not isinstance(ask, JobAsk):
        raise TypeError("a job is made of a JobAsk")
    return ask


def _as_input(files: list[StoredFile], path: Path, ask: JobAsk, owner: str, now: float) -> StoredFile:
    if files:
        return replace(files[0], path=path, model=ask.model)
    return StoredFile(
        id="",
        owner=owner,
        path=path,
        filename="",
        purpose="batch",
        n_bytes=0,
        created_at=now,
        expires_at=None,
        model=ask.model,
    )


def _write_lines(lines: BinaryIO, ask: JobAsk, files: list[StoredFile]) -> None:
    for file in files:
        spell_out(file.path, lines, ask.endpoint, ask.model)
    for number, request in enumerate(ask.requests or ()):
        name = str(number) if request.custom_id is None else request.custom_id
        lines.write(full_line(name, ask.endpoint, bytes(request.body), ask.model))


def _check_metadata(metadata: dict[str, object]) -> None:
    for name, value in metadata.items():
        if not 1 <= len(name) <= 32 or not isinstance(value, str) or not 1 <= len(value) <= 512:
            raise invalid(
                "string_too_long", ["body", "metadata", name], "Keys have 1 to 32 characters, values 1 to 512"
            )


def _page_of(query: MultiMapping[str]) -> tuple[int, int]:
    number, size = query.get("page", "0"), query.get("page_size", "100")
    if not number.isdigit() or not size.isdigit() or int(size) < 1:
        raise invalid("int_parsing", ["query", "page"], "Input should be a valid integer")
    return int(number), int(size)


def _moment(said: str) -> float:
    try:
        return dt.datetime.fromisoformat(said).timestamp()
    except ValueError:
        raise invalid(
            "datetime_parsing", ["query", "created_after"], "Input should be a valid datetime"
        ) from None


class _Message(msgspec.Struct, frozen=True):
    role: Literal["system", "user", "assistant", "tool"]


class _Body(msgspec.Struct, frozen=True):
    """The part of the requests' schema that the upload is known to check."""

    temperature: Annotated[float, Meta(ge=0, le=1.5)] | None = None
    max_tokens: Annotated[int, Meta(ge=0)] | None = None
    messages: list[_Message] | None = None
    stream: Literal[False] | None = None


class _Line(msgspec.Struct, frozen=True):
    body: _Body
    custom_id: str | None = None


class _Response(msgspec.Struct, frozen=True):
    status_code: int
    body: msgspec.Raw


class _Row(msgspec.Struct, frozen=True):
    id: str
    custom_id: str
    response: _Response | None


_row_decoder = msgspec.json.Decoder(_Row)


def _is_object(line: bytes) -> bool:
    try:
        return isinstance(msgspec.json.decode(line), dict)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False


def _result_line(line: bytes) -> bytes:
    """Return a result line of Mistral's: a failed body is JSON in a string; a row that never ran has no line."""
    try:
        row = _row_decoder.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return line
    if row.response is None:
        return b""
    status, body = row.response.status_code, bytes(row.response.body)
    if not 200 <= status < 300:
        body = msgspec.json.encode(body.decode())
    custom_id, row_id = msgspec.json.encode(row.custom_id), msgspec.json.encode(f"batch-{row.id}")
    return b'{"id":%b,"custom_id":%b,"response":{"status_code":%d,"body":%b},"error":null}\n' % (
        row_id,
        custom_id,
        status,
        body,
    )
