"""Together's batches and files, as published, captured and read in its SDK up to 2026-11-23."""

from __future__ import annotations

import contextlib
import datetime as dt
import hashlib
import uuid
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
from aiohttp import web
from multidict import MultiMapping

from ..answers.answers import Answer
from ..api.batches_api import BatchesApi, decode_ask
from ..api.file_batches import FileBatches
from ..api.files_api import FilesApi
from ..api.gate import Gate, json_reply
from ..api.multipart_form import Form, FormError
from ..batches.batch_book import BatchBook
from ..batches.dialect import FileDialect, Page, Refusal, Traits
from ..batches.file_store import FileShelf
from ..batches.lines import spell_out
from ..batches.records import Batch, BatchView, CreateAsk, StoredFile
from ..batches.scan import LineError, LineRules, peek_model
from ..world import unable
from ..world.world import Limits, World

BASE_URL_VARIABLES: Mapping[str, str] = {"TOGETHER_BASE_URL": ""}
"""Variables in which SDKs look for a base URL -> the path below the provider's own."""

_BATCHABLE = frozenset({"/v1/audio/transcriptions", "/v1/audio/translations", "/v1/chat/completions"})
_DAY_S = 86_400
_WORDS = {
    "validating": "VALIDATING",
    "in_progress": "IN_PROGRESS",
    "finalizing": "IN_PROGRESS",
    "completed": "COMPLETED",
    "failed": "FAILED",
    "expired": "EXPIRED",
    # Seen at Together, though the SDK's list of statuses lacks it.
    "cancelling": "CANCELING",
    "cancelled": "CANCELLED",
}


class _Response(msgspec.Struct, frozen=True):
    status_code: int
    body: msgspec.Raw


class _Row(msgspec.Struct, frozen=True):
    id: str
    custom_id: str
    response: _Response | None


class _Refused(msgspec.Struct, frozen=True):
    error: str = ""


_row_decoder = msgspec.json.Decoder(_Row)


def _result_line(line: bytes) -> bytes:
    """Return a result line of Together's: a failed row has a code and no status; rows that never ran have no line."""
    try:
        row = _row_decoder.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return line
    if row.response is None:
        return b""
    head = b'{"id":%b,"custom_id":%b' % (
        msgspec.json.encode(f"br_{row.id}"),
        msgspec.json.encode(row.custom_id),
    )
    status, body = row.response.status_code, bytes(row.response.body)
    if 200 <= status < 300:
        return head + b',"response":{"status_code":%d,"body":%b}}\n' % (status, body)
    if status == 0:
        return head + b"}\n"
    error = {"code": _code_of(status), "message": msgspec.json.decode(body, type=_Refused).error}
    return head + b',"error":%b}\n' % msgspec.json.encode(error)


def _code_of(status: int) -> str:
    if status == 404:
        return "invalid_model"
    if status in (408, 504):
        return "timeout"
    return "batch_client_error" if status < 500 else "batch_server_error"


class JobAsk(CreateAsk, frozen=True, kw_only=True):
    """The body of a create call."""

    completion_window: str = "24h"
    model_id: str | None = None
    priority: int | None = None


class TogetherDialect:
    """Together: a create accepts anything and the job fails later; jobs have no metadata and no counts."""

    traits = Traits(
        name="together",
        root="/v1",
        realtime_endpoints=_BATCHABLE | {"/v1/completions", "/v1/embeddings"},
        speech="wav",
        purposes=frozenset({"batch-api", "calibration", "eval", "fine-tune"}),
        uploads="/files/upload",
        # Together was seen to accept a file for fine-tuning as a batch's input.
        batch_purposes=frozenset({"batch-api", "fine-tune"}),
        result_line=_result_line,
        max_bytes=100_000_000,
        unwelcome_agents=("Python-urllib/",),
        cursor=None,
        no_money=(402, None, "Credit limit exceeded, please add credits."),
        unable={
            **unable.NOT_PENDING,
            **unable.ONE_SHAPE,
            **unable.OWN_LINES,
            **unable.OWN_ERRORS,
            **unable.NO_PAGES,
        },
    )

    def new_file_id(self) -> str:
        """Return a fresh file id."""
        return f"file-{uuid.uuid4()}"

    def new_batch_id(self) -> str:
        """Return a fresh job id."""
        return str(uuid.uuid4())

    def error_body(self, status: int, code: str | None, message: str, param: str | None) -> dict[str, Any]:
        """Return the JSON body of an HTTP error: a sentence."""
        return {"error": message, "request_id": uuid.uuid4().hex}

    def file_object(self, file: StoredFile) -> dict[str, Any]:
        """Return a file as JSON."""
        return {
            "id": file.id,
            "object": "file",
            "created_at": int(file.created_at),
            "filename": file.filename,
            "bytes": file.n_bytes,
            "purpose": "batch-api" if file.purpose == "batch_output" else file.purpose,
            "FileType": "jsonl",
            "LineCount": file.n_lines,
            "Processed": True,
            "processing_status": "COMPLETED",
        }

    def batch_object(self, view: BatchView) -> dict[str, Any]:
        """Return a job as JSON, without the fields that have no value yet."""
        job = {
            "id": view.id,
            "user_id": "sandbox",
            "project_id": "sandbox",
            "organization_id": "sandbox",
            "input_file_id": view.ask.input_file_id or None,
            "file_size_bytes": None,
            "status": _WORDS[view.status],
            "job_deadline": _iso(view.created_at + _DAY_S),
            "created_at": _iso(view.created_at),
            "completed_at": _iso(view.completed_at),
            "endpoint": view.ask.endpoint,
            "progress": _progress(view),
            "model_id": None if view.status == "validating" else view.model,
            "output_file_id": view.output_file_id,
            "error_file_id": view.error_file_id,
            "error": _sentence(view.errors[0]) if view.errors else None,
        }
        return {name: value for name, value in job.items() if value is not None}

    def window_seconds(self, ask: CreateAsk) -> float:
        """Check the endpoint; return one day in seconds, whatever window the call names."""
        if ask.endpoint not in _BATCHABLE:
            raise Refusal(400, f"Invalid endpoint: {ask.endpoint}")
        return _DAY_S

    def missing_input(self, ask: CreateAsk) -> str:
        """Return why the input file cannot be used; Together's job then fails with it."""
        return f"Failed to download input file {ask.input_file_id}: status 404"

    def line_rules(self, ask: CreateAsk) -> LineRules:
        """Return the rules for the lines of this job."""
        return LineRules(
            endpoints=_BATCHABLE, endpoint=None, one_model=False, models_checked=False, skips_bad_lines=False
        )

    def wrong_file_name(self) -> Refusal:
        """Return the refusal of an input file with a wrong name."""
        return Refusal(400, "The file must be a .jsonl file")

    def page(self, query: MultiMapping[str], newest_first: Sequence[Batch], limits: Limits) -> Page:
        """Return all jobs: the list has no pages."""
        return Page(batches=newest_first, envelope={})

    def not_cancellable(self, view: BatchView) -> Refusal:
        """Return the refusal for cancelling a job that has ended."""
        return Refusal(409, f"Cannot cancel job - already in terminal state: {_WORDS[view.status]}")

    def decorate(self, answer: Answer, mark: str) -> dict[str, Any]:
        """Return the body of a success; plain answers get an empty list of tool calls."""
        for choice in answer.body.get("choices", ()):
            if "message" in choice:
                choice["message"].setdefault("tool_calls", [])
        return answer.body


@dataclass(slots=True, kw_only=True)
class _Begun:
    """An upload whose URL was given out."""

    owner: str
    filename: str
    purpose: str
    checksum: str
    path: Path | None = None


class TogetherFiles(FilesApi):
    """Files: uploaded in one call or, as the SDK does, to a URL that another call returns."""

    def __init__(self, world: World, dialect: FileDialect, shelf: FileShelf, book: BatchBook) -> None:
        super().__init__(world, dialect, shelf, book)
        self._begun: dict[str, _Begun] = {}
        self._by_checksum: dict[tuple[str, str], str] = {}

    def routes(self, gate: Gate) -> Iterator[web.RouteDef]:
        """Return the routes; the upload URL needs no key."""
        yield from super().routes(gate)
        yield gate.route("POST", "/files", self._begin)
        yield gate.route("POST", "/files/{file_id}/preprocess", self._finish)
        yield web.put(f"/{self._dialect.traits.name}/_store/{{file_id}}", self._put)

    def listing(self, query: MultiMapping[str], files: list[StoredFile]) -> dict[str, Any]:
        """Return all files."""
        return {"data": [self._dialect.file_object(file) for file in files]}

    async def _begin(self, request: web.Request, owner: str) -> web.StreamResponse:
        self._call_faults.before_upload(request)
        fields: dict[str, str] = {}
        form = _form_of(request)
        with _refusing():
            async for part in form.parts():
                fields[part.name] = await form.text()
        purpose, checksum = fields.get("purpose", ""), fields.get("checksum", "")
        if purpose not in self._dialect.traits.purposes or not checksum or "file_name" not in fields:
            raise Refusal(400, "purpose, file_name and checksum are required")
        stored = self._shelf.find(self._by_checksum.get((owner, checksum), ""), owner)
        if stored is not None:
            raise Refusal(409, "", raw=msgspec.json.encode({"file_id": stored.id}).decode())
        file_id = self._dialect.new_file_id()
        self._begun[file_id] = _Begun(
            owner=owner, filename=fields["file_name"], purpose=purpose, checksum=checksum
        )
        place = request.url.origin() / self._dialect.traits.name / "_store" / file_id
        return web.Response(status=302, headers={"Location": str(place), "X-Together-File-Id": file_id})

    async def _put(self, request: web.Request) -> web.StreamResponse:
        begun = self._begun.get(request.match_info["file_id"])
        if begun is None:
            return web.Response(status=403)
        path, digest = self._shelf.scratch(), hashlib.sha256()
        with path.open("wb") as file:
            async for chunk in request.content.iter_chunked(1 << 16):
                digest.update(chunk)
                file.write(chunk)
        if digest.hexdigest() != begun.checksum:
            path.unlink()
            return web.Response(status=400)
        begun.path = path
        return web.Response()

    async def _finish(self, request: web.Request, owner: str) -> web.StreamResponse:
        file_id = request.match_info["file_id"]
        begun = self._begun.get(file_id)
        if begun is None or begun.owner != owner or begun.path is None:
            raise Refusal(404, f"File {file_id} not found")
        self.check_room(owner, begun.path.stat().st_size)
        del self._begun[file_id]
        self._by_checksum[owner, begun.checksum] = file_id
        file = self._shelf.add(
            begun.path,
            owner=owner,
            filename=begun.filename,
            purpose=begun.purpose,
            retention_s=self._dialect.traits.input_retention_s,
            model=peek_model(begun.path),
            hidden_s=self._call_faults.hides_file(),
            file_id=file_id,
        )
        return await self._call_faults.after_upload(request) or json_reply(self._dialect.file_object(file))


class TogetherJobs(BatchesApi):
    """Jobs: the answer to a create wraps the job, and a list has no pages."""

    def asked(self, body: bytes) -> JobAsk:
        """Decode the body of a create call."""
        return decode_ask(body, JobAsk)

    @contextlib.asynccontextmanager
    async def source(self, ask: CreateAsk, owner: str) -> AsyncIterator[StoredFile | LineError]:
        """Yield the job's lines, each with the job's endpoint."""
        async with super().source(ask, owner) as found:
            if not isinstance(found, StoredFile):
                yield found
                return
            stored = found
            async with self.written(lambda lines: spell_out(stored.path, lines, ask.endpoint)) as path:
                yield replace(stored, path=path)

    def created(self, batch: object) -> web.Response:
        """Return the answer to a create call."""
        return json_reply({"job": batch}, 201)

    def listing(self, batches: list[dict[str, Any]], envelope: Mapping[str, Any]) -> object:
        """Return the list without an envelope."""
        return batches


def emulate(world: World) -> FileBatches:
    """Return Together's emulator."""
    return FileBatches(world, TogetherDialect(), files=TogetherFiles, batches=TogetherJobs)


def _form_of(request: web.Request) -> Form:
    with _refusing():
        return Form(request)


@contextlib.contextmanager
def _refusing() -> Iterator[None]:
    try:
        yield
    except FormError as error:
        raise Refusal(400, str(error)) from error


def _iso(second: int | None) -> str | None:
    return None if second is None else dt.datetime.fromtimestamp(second, dt.UTC).isoformat()


def _progress(view: BatchView) -> float:
    counts = view.counts or {}
    n_total, n_done, n_failed = (counts.get(name) for name in ("total", "completed", "failed"))
    if not (isinstance(n_total, int) and isinstance(n_done, int) and isinstance(n_failed, int)):
        return 0.0
    return 100.0 * (n_done + n_failed) / n_total if n_total > 0 else 0.0


def _sentence(error: LineError) -> str:
    if error.line is None:
        return error.message
    return f"Failed to calculate tokens: input format error: Line {error.line}: {error.message}"
