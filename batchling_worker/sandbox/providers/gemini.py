"""The Gemini API's files, batches and models, as published and captured up to 2026-11-23."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from aiohttp import web

from ..answers import google_answers
from ..answers.answers import Answer
from ..api.call_faults import CallFaults
from ..api.gate import Gate, json_reply
from ..api.gemini_files import PURPOSE, VERSION, GeminiFiles, timestamp
from ..api.google_realtime import VERBS, GoogleRealtime
from ..batches import empty_pages, google_lines
from ..batches.batch_book import BatchBook
from ..batches.dialect import Refusal, Traits
from ..batches.file_store import FileShelf
from ..batches.google_lines import BadLine, InputLine, Ran
from ..batches.records import Batch, BatchView, CreateAsk, StoredFile
from ..batches.scan import LineRules
from ..world import unable
from ..world.world import World

BASE_URL_VARIABLES: Mapping[str, str] = {"GOOGLE_GEMINI_BASE_URL": ""}
"""Variables in which SDKs look for a base URL -> the path below the provider's own."""

T = TypeVar("T")

BATCH_VERBS = {
    "batchGenerateContent": google_answers.GENERATE,
    "asyncBatchEmbedContent": google_answers.EMBED,
}
EXPIRES_S = 48 * 3600.0
_MAX_PAGE = 100
_MODEL = "{model:(?:models|tunedModels)/[^/:]+}"
_STATES = {
    "validating": "PENDING",
    "in_progress": "RUNNING",
    "finalizing": "RUNNING",
    "cancelling": "RUNNING",
    "completed": "SUCCEEDED",
    "failed": "FAILED",
    "cancelled": "CANCELLED",
    "expired": "EXPIRED",
}
_ENDED = frozenset({"completed", "failed", "cancelled", "expired"})
_LABEL = "displayName"


class _Line(msgspec.Struct, frozen=True):
    key: str
    request: msgspec.Raw


class _Inline(msgspec.Struct, frozen=True):
    request: msgspec.Raw
    metadata: dict[str, str] | None = None


class _Inlines(msgspec.Struct, frozen=True):
    requests: list[_Inline] = []


class _InputConfig(msgspec.Struct, frozen=True):
    fileName: str | None = None  # noqa: N815 - proto-JSON takes both spellings
    file_name: str | None = None
    requests: _Inlines | None = None


class _Wish(msgspec.Struct, frozen=True):
    displayName: str = ""  # noqa: N815
    display_name: str = ""
    inputConfig: _InputConfig | None = None  # noqa: N815
    input_config: _InputConfig | None = None


class _Create(msgspec.Struct, frozen=True):
    batch: _Wish


@dataclass(frozen=True, slots=True, kw_only=True)
class _Made:
    """Facts of a batch beside its record: the full name of its model, and the metadata of inline requests."""

    model: str
    inline: tuple[Mapping[str, str], ...] | None


_decode_line = msgspec.json.Decoder(_Line).decode
_decode_create = msgspec.json.Decoder(_Create).decode


def _storage_full(most: int) -> Refusal:
    """Return the refusal of an upload without free storage, as reported in googleapis/python-genai#1172."""
    metric = "generativelanguage.googleapis.com/file_storage_bytes"
    message = (
        "You exceeded your current quota, please check your plan and billing details.\n"
        f"* Quota exceeded for metric: {metric}, limit: {most}"
    )
    violation = {
        "quotaMetric": metric,
        "quotaId": "FileStorageBytesPerProject",
        "quotaValue": str(most),
    }
    details = [
        {"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [violation]},
        # The longest duration: only a delete frees storage.
        {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "9223372036854775807s"},
    ]
    error = {"code": 429, "message": message, "status": "RESOURCE_EXHAUSTED", "details": details}
    return Refusal(429, message, raw=msgspec.json.encode({"error": error}).decode())


class GeminiDialect:
    """How the Gemini API words things."""

    traits = Traits(
        name="gemini",
        root="",
        realtime_endpoints=frozenset(),
        purposes=frozenset(),
        key_headers=("x-goog-api-key", "Authorization"),
        bad_key_status=400,
        perform=google_answers.perform,
        max_rows=1_000_000,  # none is published
        max_bytes=2_000_000_000,
        status_path=("metadata", "state"),
        cursor=("pageToken", ("nextPageToken",)),
        most_stored_bytes=20 << 30,
        storage_full=_storage_full,
        no_money=(429, None, "You exceeded your current quota, please check your plan and billing details."),
        unable={
            **unable.NOT_PENDING,
            **unable.ONE_SHAPE,
            **unable.OWN_LINES,
            **unable.OWN_ERRORS,
            **unable.ONE_RESULT_FILE,
        },
    )

    def new_batch_id(self) -> str:
        """Return a fresh name of a batch."""
        return f"batches/{secrets.token_hex(16)}"

    def error_body(self, status: int, code: str | None, message: str, param: str | None) -> dict[str, Any]:
        """Return the JSON body of an HTTP error."""
        return google_answers.error_body(status, code, message)

    def line_rules(self, ask: CreateAsk) -> LineRules:
        """Return the rules for the lines, once the create has accepted them."""
        return LineRules(endpoints=google_answers.VERBS, endpoint=ask.endpoint)

    def decorate(self, answer: Answer, mark: str) -> dict[str, Any]:
        """Return the body of a success unchanged."""
        return answer.body


class Gemini:
    """Files, batches and realtime calls of the Gemini API."""

    name = "gemini"
    traits = GeminiDialect.traits

    def __init__(self, world: World) -> None:
        dialect = GeminiDialect()
        self._world = world
        self._gate = Gate(world, dialect)
        self._shelf = FileShelf(world, self.name, lambda: f"files/{secrets.token_hex(6)}")
        self._book = BatchBook(world, dialect, self._shelf)
        self._files = GeminiFiles(world, dialect.traits, self._shelf)
        self._realtime = GoogleRealtime(world, self.name)
        self._call_faults = CallFaults(world, dialect.traits)
        self._made: dict[str, _Made] = {}

    def routes(self) -> Iterator[web.RouteDef]:
        """Return every route of the provider."""
        gate, batch = self._gate, f"/{VERSION}/batches/{{batch:[^/:]+}}"
        yield gate.route("GET", f"/{VERSION}/files/{{results:[^/:]+}}:download", self._download)
        yield gate.route("GET", f"/download/{VERSION}/files/{{results:[^/:]+}}:download", self._download)
        yield from self._files.routes(gate)
        yield gate.route("GET", f"/{VERSION}/batches", self._list)
        yield gate.route("GET", batch, self._show)
        yield gate.route("DELETE", batch, self._delete)
        yield gate.route("POST", f"{batch}:cancel", self._cancel)
        verbs = "|".join(sorted(BATCH_VERBS))
        yield gate.route("POST", f"/{VERSION}/{_MODEL}:{{verb:{verbs}}}", self._create)
        verbs = "|".join(sorted(VERBS))
        yield gate.route("POST", f"/{VERSION}/{_MODEL}:{{verb:{verbs}}}", self._answer)
        yield gate.unknown_route()

    async def batches(self) -> list[Mapping[str, object]]:
        """Move every batch on to now and return them as JSON, oldest first."""
        return [self._operation(view) for view in await self._book.catch_up()]

    async def clear(self) -> None:
        """Forget files and batches."""
        await self._book.clear()
        self._shelf.clear()
        self._files.clear()
        self._made.clear()

    async def _answer(self, request: web.Request, owner: str) -> web.StreamResponse:
        model = request.match_info["model"].rpartition("/")[2]
        return await self._realtime.answer(request, model, request.match_info["verb"])

    async def _create(self, request: web.Request, owner: str) -> web.StreamResponse:
        full_name = request.match_info["model"]
        model, endpoint = full_name.rpartition("/")[2], BATCH_VERBS[request.match_info["verb"]]
        try:
            wish = _decode_create(await request.read()).batch
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise Refusal(400, f"Invalid JSON payload received. {error}.") from error
        lost = self._call_faults.before_create(request, model)
        if lost is not None:
            return lost
        if not google_answers.knows(full_name):
            raise Refusal(404, f"{full_name} is not found for API version v1.")
        config = wish.inputConfig or wish.input_config or _InputConfig()
        ask = CreateAsk(
            input_file_id=config.fileName or config.file_name or "",
            endpoint=endpoint,
            completion_window="24h",
            metadata={_LABEL: wish.displayName or wish.display_name},
        )
        file = await self._input(ask, config, owner, model)
        try:
            tokens = await self._book.check_quota(ask, owner, file)
            made = _Made(model=full_name, inline=_inline(config))
            batch = self._make(ask, owner, file, tokens, made)
            if self._call_faults.doubles(model):
                batch = self._make(ask, owner, file, tokens, made)
        finally:
            self._shelf.remove(file)

        async def reply() -> web.Response:
            return json_reply(self._operation(await self._book.show(batch)))

        return await self._call_faults.after_create(request, model, reply)

    def _make(self, ask: CreateAsk, owner: str, file: StoredFile, tokens: int, made: _Made) -> Batch:
        batch = self._book.create(ask, owner, EXPIRES_S, file, tokens)
        self._made[batch.id] = made
        return batch

    async def _input(self, ask: CreateAsk, config: _InputConfig, owner: str, model: str) -> StoredFile:
        """Return the requests as the sandbox runs them; one bad line refuses the create."""
        path = self._shelf.scratch()
        lines: Iterator[InputLine]

        def write() -> None:
            google_lines.write_canonical(path, lines, ask.endpoint, model)

        if config.requests is not None:
            inlines = config.requests.requests
            lines = (
                InputLine((one.metadata or {}).get("key") or f"inline-{n}", bytes(one.request))
                for n, one in enumerate(inlines)
            )
        else:
            source = self._shelf.find(ask.input_file_id, owner)
            if source is None or source.purpose != PURPOSE:
                raise Refusal(400, f"The input file {ask.input_file_id} does not exist.")
            lines = google_lines.read_lines(source.path, _read_line)
        try:
            await self._in_pool(write)
        except BadLine as error:
            path.unlink(missing_ok=True)
            raise Refusal(400, str(error)) from error
        return self._shelf.add(
            path, owner=owner, filename=ask.input_file_id, purpose="lines", retention_s=EXPIRES_S, model=model
        )

    async def _show(self, request: web.Request, owner: str) -> web.StreamResponse:
        batch = self._find(f"batches/{request.match_info['batch']}", owner)
        lost = self._call_faults.before_look(request, batch.model)
        if lost is not None:
            return lost
        view = await self._book.show(batch)
        operation, inline = self._operation(view), self._made[batch.id].inline
        if inline is not None and _results_name(view):
            await self._show_inline(operation, view, owner, inline)
        return json_reply(operation)

    async def _show_inline(
        self, operation: dict[str, Any], view: BatchView, owner: str, inline: tuple[Mapping[str, str], ...]
    ) -> None:
        rows = [msgspec.json.decode(line) for line in (await self._written(view, owner)).split(b"\n") if line]
        by_key = {row.pop("key"): row for row in rows}
        named = [(one.get("key") or f"inline-{n}", one) for n, one in enumerate(inline)]
        shown = [{**by_key[key], "metadata": one} for key, one in named if key in by_key]
        embeds = view.ask.endpoint == google_answers.EMBED
        field = "inlinedEmbedContentResponses" if embeds else "inlinedResponses"
        output = {field: {"inlinedResponses": shown}}
        operation["metadata"]["output"] = operation["response"] = output

    async def _list(self, request: web.Request, owner: str) -> web.StreamResponse:
        lost = self._call_faults.before_look(request, None)
        if lost is not None:
            return lost
        query = empty_pages.honest(self.traits, request.query)
        size = query.get("pageSize") or str(self._world.limits.page_size)
        token = query.get("pageToken") or "0"
        if not size.isdigit() or not token.isdigit():
            raise Refusal(400, "Invalid page size or token.")
        start, size_ = int(token), min(int(size), _MAX_PAGE)
        batches = self._book.newest_first(owner)
        empty = self._call_faults.empties_page()
        if empty is not None:
            return json_reply(empty_pages.beside(self.traits, request.query, {}, empty))
        page = batches[start : start + size_]
        shown = [self._operation(await self._book.listed(batch)) for batch in page]
        more = {"nextPageToken": str(start + len(page))} if start + len(page) < len(batches) else {}
        return json_reply({**({"operations": shown} if shown else {}), **more})

    async def _cancel(self, request: web.Request, owner: str) -> web.StreamResponse:
        batch = self._find(f"batches/{request.match_info['batch']}", owner)
        self._call_faults.before_cancel(batch.model)
        if (await self._book.show(batch)).status in _ENDED:
            raise Refusal(400, f"{batch.id} has ended.")
        self._book.cancel(batch)
        return json_reply({})

    async def _delete(self, request: web.Request, owner: str) -> web.StreamResponse:
        self._book.remove(self._find(f"batches/{request.match_info['batch']}", owner))
        return json_reply({})

    async def _download(self, request: web.Request, owner: str) -> web.StreamResponse:
        name = request.match_info["results"]
        batch = self._find(f"batches/{name.removeprefix('batch-')}", owner)
        view = await self._book.show(batch)
        if f"files/{name}" != _results_name(view):
            raise Refusal(404, f"files/{name} does not exist.")
        path = await self._results(view, owner)
        try:
            return await self._call_faults.send(
                request, path, batch.model, path.stat().st_size, "application/octet-stream"
            )
        finally:
            path.unlink(missing_ok=True)

    async def _written(self, view: BatchView, owner: str) -> bytes:
        path = await self._results(view, owner)
        try:
            return path.read_bytes()
        finally:
            path.unlink(missing_ok=True)

    async def _results(self, view: BatchView, owner: str) -> Path:
        """Return a fresh file with all results of a batch, successful rows and failed ones."""
        sources: list[Path] = []
        for file_id in (view.output_file_id, view.error_file_id):
            if isinstance(file_id, str) and file_id:
                file = self._shelf.find(file_id, owner)
                if file is None:
                    raise Refusal(404, f"{_results_name(view)} does not exist.")
                sources.append(file.path)
        path = self._shelf.scratch()
        await self._in_pool(lambda: google_lines.write_results(path, sources, _result_line))
        return path

    async def _in_pool(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._world.pool, call)

    def _find(self, name: str, owner: str) -> Batch:
        batch = self._book.find(name, owner)
        if batch is None:
            raise Refusal(404, "Requested entity was not found.")
        return batch

    def _operation(self, view: BatchView) -> dict[str, Any]:
        embeds = view.ask.endpoint == google_answers.EMBED
        kind = "EmbedContentBatch" if embeds else "GenerateContentBatch"
        stats = dict(_counts(view))
        metadata: dict[str, Any] = {
            "@type": f"type.googleapis.com/google.ai.generativelanguage.v1main.{kind}",
            "model": self._made[view.id].model if view.id in self._made else view.model,
            "createTime": timestamp(view.created_at),
            "updateTime": timestamp(_ended_at(view) or view.in_progress_at or view.created_at),
            "name": view.id,
            "state": f"BATCH_STATE_{_STATES[view.status]}",
            **({"displayName": view.ask.metadata[_LABEL]} if view.ask.metadata else {}),
            **({"inputConfig": {"fileName": view.ask.input_file_id}} if view.ask.input_file_id else {}),
            **({"batchStats": stats} if stats else {}),
        }
        operation: dict[str, Any] = {"name": view.id, "metadata": metadata}
        if view.status in _ENDED:
            metadata["endTime"] = timestamp(_ended_at(view) or view.created_at)
            operation["done"] = True
        if view.status == "failed":
            operation["error"] = _failure(view)
        elif view.status == "cancelled":
            operation["error"] = {"code": 1, "message": "The operation was cancelled."}
        name = _results_name(view)
        if name:
            metadata["output"] = {"responsesFile": name}
            if view.status == "completed":
                operation["response"] = {
                    "@type": f"type.googleapis.com/google.ai.generativelanguage.v1main.{kind}.Output",
                    "responsesFile": name,
                }
        return empty_pages.reworded(self.traits, operation, view.word)


def emulate(world: World) -> Gemini:
    """Return the emulator of the Gemini API."""
    return Gemini(world)


def _read_line(line: bytes) -> InputLine:
    read = _decode_line(line)
    return InputLine(read.key, bytes(read.request))


def _inline(config: _InputConfig) -> tuple[Mapping[str, str], ...] | None:
    if config.requests is None:
        return None
    return tuple(one.metadata or {} for one in config.requests.requests)


def _results_name(view: BatchView) -> str:
    """Return the name of the result file, '' while it does not exist: an expired batch never has one."""
    ids = [view.output_file_id]
    if view.status == "completed":
        ids.append(view.error_file_id)
    elif view.status != "cancelled":
        return ""
    if not any(isinstance(one, str) and one for one in ids):
        return ""
    number = view.id.removeprefix("batches/")
    return f"files/batch-{number if view.files == 'own' else number[::-1]}"


def _counts(view: BatchView) -> Iterator[tuple[str, str]]:
    counts = view.counts or {}
    n_total, n_done, n_failed = (
        n if isinstance(n, int) else 0 for n in map(counts.get, ("total", "completed", "failed"))
    )
    for name, n in (
        ("requestCount", n_total),
        ("successfulRequestCount", n_done),
        ("failedRequestCount", n_failed),
        ("pendingRequestCount", n_total - n_done - n_failed),
    ):
        if n > 0:
            yield name, str(n)


def _ended_at(view: BatchView) -> int | None:
    return view.completed_at or view.failed_at or view.cancelled_at or view.expired_at


def _failure(view: BatchView) -> dict[str, Any]:
    error = view.errors[0] if view.errors else None
    code = {"token_limit_exceeded": 8, "server_error": 13}.get(error.code, 3) if error is not None else 3
    return {"code": code, "message": error.message if error is not None else "The batch failed."}


def _result_line(ran: Ran) -> bytes | None:
    key = msgspec.json.encode(ran.custom_id)
    response = ran.response
    if response is None:
        # Rows that never ran are not in the results.
        return None
    if response.status_code == 0:
        return b'{"key":%b}\n' % key
    if response.status_code < 300:
        return b'{"key":%b,"response":%b}\n' % (key, bytes(response.body))
    error = {
        "code": google_answers.rpc_code(response.status_code),
        "message": google_lines.message_of(response.body),
    }
    return b'{"key":%b,"error":%b}\n' % (key, msgspec.json.encode(error))
