"""Vertex AI's batch prediction jobs over files in Cloud Storage, as published and probed up to 2026-11-23."""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from aiohttp import web

from ..answers import google_answers
from ..answers.answers import Answer
from ..api.call_faults import CallFaults
from ..api.gate import Gate, json_reply, not_emulated
from ..api.gcs import ROOT, CloudStorage, StoredObject
from ..api.gemini_files import timestamp
from ..api.google_realtime import COMPUTE, VERBS, GoogleRealtime
from ..batches import empty_pages, google_lines, timing
from ..batches.batch_book import BatchBook
from ..batches.dialect import Refusal, Traits
from ..batches.file_store import FileShelf
from ..batches.google_lines import BadLine, InputLine, Ran
from ..batches.records import Batch, BatchView, CreateAsk, StoredFile
from ..batches.scan import LineError, LineRules
from ..world import unable
from ..world.world import World

BASE_URL_VARIABLES: Mapping[str, str] = {"GOOGLE_VERTEX_BASE_URL": ""}
"""Variables in which SDKs look for a base URL -> the path below the provider's own."""

NUMBER = "projects/715812345678"
"""The project's number, which job names contain whatever project the caller names."""
NO_PROJECT = (
    "The call names neither a project nor a model: google-genai calls the base URL alone where its client has no "
    "project. Give genai.Client a project and a location, or set GOOGLE_CLOUD_PROJECT: Vertex' batches need them."
)
QUEUE_S = 72 * 3600.0
SHARD_ROWS = 20
_VERSION = "{version:v1(?:beta1)?}"
_PARENT = f"/{_VERSION}/projects/{{project}}/locations/{{location}}"
_MAX_PAGE = 100
_STATES = {
    "validating": "PENDING",
    "in_progress": "RUNNING",
    "finalizing": "RUNNING",
    "cancelling": "CANCELLING",
    "completed": "SUCCEEDED",
    "failed": "FAILED",
    "cancelled": "CANCELLED",
    "expired": "EXPIRED",
}
_ENDED = frozenset({"completed", "failed", "cancelled", "expired"})
_WORDS = {
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    429: "Too Many Requests",
    500: "Internal Server Error",
    503: "Service Unavailable",
    504: "Gateway Timeout",
}
_NAME = "displayName"
_CLAUSE = re.compile(r'([\w.]+)\s*=\s*"?([^"\s]*)"?')
_IMPORT_FAILED = "Failed to import data. Error: {}"


class _Line(msgspec.Struct, frozen=True):
    request: msgspec.Raw
    custom_id: str | None = None


class _Source(msgspec.Struct, frozen=True):
    uris: list[str] = []


class _Input(msgspec.Struct, frozen=True):
    instancesFormat: str = ""  # noqa: N815 - Google's spelling
    gcsSource: _Source = _Source()  # noqa: N815


class _Destination(msgspec.Struct, frozen=True):
    outputUriPrefix: str = ""  # noqa: N815


class _Output(msgspec.Struct, frozen=True):
    predictionsFormat: str = ""  # noqa: N815
    gcsDestination: _Destination = _Destination()  # noqa: N815


class _Wish(msgspec.Struct, frozen=True):
    displayName: str  # noqa: N815
    model: str
    inputConfig: _Input = _Input()  # noqa: N815
    outputConfig: _Output = _Output()  # noqa: N815
    labels: dict[str, str] = {}


class _Made(msgspec.Struct, kw_only=True):
    """Facts of a job beside its record; `exported` is the number of rows in its shards, -1 = all of them."""

    wish: _Wish
    exported: int = 0


_decode_line = msgspec.json.Decoder(_Line).decode
_decode_wish = msgspec.json.Decoder(_Wish).decode
_encode = msgspec.json.encode


class VertexDialect:
    """How Vertex words things."""

    traits = Traits(
        name="vertex",
        root="",
        realtime_endpoints=frozenset(),
        purposes=frozenset(),
        perform=google_answers.perform,
        max_rows=200_000,
        max_bytes=1_000_000_000,
        status_path=("state",),
        cursor=("pageToken", ("nextPageToken",)),
        no_money=(403, None, "This API method requires billing to be enabled."),
        unable={
            **unable.NOT_PENDING,
            **unable.ONE_SHAPE,
            **unable.OWN_LINES,
            **unable.OWN_ERRORS,
            **unable.ONE_RESULT_FILE,
            **unable.OBJECT_STORE,
        },
    )
    location = ""
    """The location of the job that is being created, which is part of the job's name."""

    def new_batch_id(self) -> str:
        """Return a fresh name of a job."""
        return f"{NUMBER}/locations/{self.location}/batchPredictionJobs/{secrets.randbelow(10**18) + 10**18}"

    def error_body(self, status: int, code: str | None, message: str, param: str | None) -> dict[str, Any]:
        """Return the JSON body of an HTTP error; for an unknown token Vertex adds no reason."""
        return google_answers.error_body(status, None, message)

    def line_rules(self, ask: CreateAsk) -> LineRules:
        """Return the rules for the lines, once the importer has accepted them."""
        return LineRules(endpoints=google_answers.VERBS, endpoint=ask.endpoint)

    def decorate(self, answer: Answer, mark: str) -> dict[str, Any]:
        """Return the body of a success unchanged."""
        return answer.body


class Vertex:
    """Jobs, their files in Cloud Storage, and realtime calls."""

    name = "vertex"
    traits = VertexDialect.traits

    def __init__(self, world: World) -> None:
        self._world = world
        self._dialect = VertexDialect()
        self._gate = Gate(world, self._dialect)
        self._shelf = FileShelf(world, self.name, lambda: f"result-{secrets.token_hex(8)}")
        self._book = BatchBook(world, self._dialect, self._shelf)
        self._call_faults = CallFaults(world, self._dialect.traits)
        self._store = CloudStorage(world, self.name, self._call_faults)
        self._realtime = GoogleRealtime(world, self.name)
        self._made: dict[str, _Made] = {}

    def routes(self) -> Iterator[web.RouteDef]:
        """Return every route of the provider."""
        gate, jobs = self._gate, f"{_PARENT}/batchPredictionJobs"
        yield from self._store.routes(gate)
        yield gate.route("POST", jobs, self._create)
        yield gate.route("GET", jobs, self._list)
        yield gate.route("GET", f"{jobs}/{{job:\\d+}}", self._show)
        yield gate.route("DELETE", f"{jobs}/{{job:\\d+}}", self._delete)
        yield gate.route("POST", f"{jobs}/{{job:\\d+}}:cancel", self._cancel)
        verbs = "|".join(sorted(VERBS | {COMPUTE}))
        yield gate.route(
            "POST", f"{_PARENT}/publishers/google/models/{{model}}:{{verb:{verbs}}}", self._answer
        )
        yield gate.bare_route(NO_PROJECT)
        # Behind the gate: callers without a token must not learn which projects exist.
        yield gate.route("*", "/{tail:.*}", self._nothing)

    async def batches(self) -> list[Mapping[str, object]]:
        """Move every job on to now and return them as JSON, oldest first."""
        return [self._job(view) for view in await self._book.catch_up()]

    async def clear(self) -> None:
        """Forget jobs and objects."""
        await self._book.clear()
        self._shelf.clear()
        self._store.clear()
        self._made.clear()

    async def _answer(self, request: web.Request, owner: str) -> web.StreamResponse:
        return await self._realtime.answer(request, request.match_info["model"], request.match_info["verb"])

    async def _nothing(self, request: web.Request, owner: str) -> web.StreamResponse:
        raise not_emulated(request)

    async def _create(self, request: web.Request, owner: str) -> web.StreamResponse:
        try:
            wish = _decode_wish(await request.read())
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise Refusal(400, f"Invalid JSON payload received. {error}.") from error
        model = wish.model.rpartition("/")[2]
        lost = self._call_faults.before_create(request, model)
        if lost is not None:
            return lost
        source, destination = wish.inputConfig, wish.outputConfig
        if source.instancesFormat != "jsonl" or len(source.gcsSource.uris) != 1:
            raise Refusal(400, "inputConfig: one file of jsonl in gcsSource is wanted.")
        if not destination.gcsDestination.outputUriPrefix.startswith("gs://"):
            raise Refusal(400, "outputConfig: an outputUriPrefix of gs:// is wanted.")
        if not google_answers.knows(model):
            raise Refusal(404, f"Publisher Model `{wish.model}` not found.")
        ask = CreateAsk(
            input_file_id=source.gcsSource.uris[0],
            endpoint=google_answers.GENERATE,
            completion_window="24h",
            metadata={_NAME: wish.displayName, **wish.labels},
        )
        file = await self._imported(ask, owner, model)
        tokens = await self._book.check_quota(ask, owner, file) if isinstance(file, StoredFile) else 0
        batch = self._make(request, ask, owner, file, tokens, wish)
        if self._call_faults.doubles(model):
            batch = self._make(request, ask, owner, file, tokens, wish)
        if isinstance(file, StoredFile):
            self._shelf.remove(file)

        async def reply() -> web.Response:
            return json_reply(self._job(await self._book.show(batch)))

        return await self._call_faults.after_create(request, model, reply)

    def _make(
        self,
        request: web.Request,
        ask: CreateAsk,
        owner: str,
        file: StoredFile | LineError,
        tokens: int,
        wish: _Wish,
    ) -> Batch:
        self._dialect.location = request.match_info["location"]
        batch = self._book.create(ask, owner, QUEUE_S, file, tokens)
        self._made[batch.id] = _Made(wish=wish)
        return batch

    async def _imported(self, ask: CreateAsk, owner: str, model: str) -> StoredFile | LineError:
        """Return the requests as the sandbox runs them, or the job's error: a create itself never reports one."""
        source = self._store.find(ask.input_file_id)
        if source is None:
            return LineError("FAILED_PRECONDITION", f"{ask.input_file_id} is not found.")
        path = self._shelf.scratch()

        def write() -> None:
            lines = google_lines.read_lines(source.path, _read_line)
            google_lines.write_canonical(path, lines, ask.endpoint, model)

        try:
            await asyncio.get_running_loop().run_in_executor(self._world.pool, write)
        except BadLine as error:
            path.unlink(missing_ok=True)
            return LineError("INVALID_ARGUMENT", _IMPORT_FAILED.format(error))
        return self._shelf.add(
            path, owner=owner, filename=ask.input_file_id, purpose="lines", retention_s=QUEUE_S, model=model
        )

    async def _show(self, request: web.Request, owner: str) -> web.StreamResponse:
        batch = self._find(request, owner)
        lost = self._call_faults.before_look(request, batch.model)
        if lost is not None:
            return lost
        return json_reply(self._job(await self._moved_on(batch)))

    async def _list(self, request: web.Request, owner: str) -> web.StreamResponse:
        lost = self._call_faults.before_look(request, None)
        if lost is not None:
            return lost
        query = empty_pages.honest(self.traits, request.query)
        size = query.get("pageSize") or str(self._world.limits.page_size)
        token = query.get("pageToken") or "0"
        if not size.isdigit() or not token.isdigit():
            raise Refusal(400, "Invalid page size or token.")
        here = f"/locations/{request.match_info['location']}/"
        batches = [one for one in self._book.newest_first(owner) if here in one.id]
        empty = self._call_faults.empties_page()
        if empty is not None:
            return json_reply(empty_pages.beside(self.traits, request.query, {}, empty))
        now = self._world.clock.now()
        jobs = [self._job(timing.listed(one, await self._moved_on(one), now)) for one in batches]
        jobs = [job for job in jobs if _meets(job, request.query.get("filter", ""))]
        start = int(token)
        page = jobs[start : start + min(int(size), _MAX_PAGE)]
        more = {"nextPageToken": str(start + len(page))} if start + len(page) < len(jobs) else {}
        return json_reply({**({"batchPredictionJobs": page} if page else {}), **more})

    async def _cancel(self, request: web.Request, owner: str) -> web.StreamResponse:
        batch = self._find(request, owner)
        self._call_faults.before_cancel(batch.model)
        if (await self._book.show(batch)).status in _ENDED:
            raise Refusal(400, "The job has ended.")
        self._book.cancel(batch)
        return json_reply({})

    async def _delete(self, request: web.Request, owner: str) -> web.StreamResponse:
        batch = self._find(request, owner)
        if (await self._book.show(batch)).status not in _ENDED:
            raise Refusal(400, "The job has not ended.")
        self._book.remove(batch)
        return json_reply({"name": f"{batch.id}/operations/1", "done": True})

    def _find(self, request: web.Request, owner: str) -> Batch:
        place = request.match_info
        name = f"{NUMBER}/locations/{place['location']}/batchPredictionJobs/{place['job']}"
        batch = self._book.find(name, owner)
        if batch is None:
            raise Refusal(404, "The BatchPredictionJob does not exist.")
        return batch

    async def _moved_on(self, batch: Batch) -> BatchView:
        """Return the job as of now, and write the rows that have run to its shards."""
        view = await self._book.show(batch)
        made = self._made[batch.id]
        if made.exported < 0 or batch.executed is None:
            return view
        if view.status in _ENDED:
            if not timing.shows_files(batch, self._world.clock.now()):
                return view
            await self._export(batch, self._published(view, batch.owner), None)
            made.exported = -1
        elif view.status in ("in_progress", "finalizing"):
            await batch.executed
            if batch.job is not None:
                share = timing.done_share(batch, self._world.clock.now())
                await self._export(batch, [batch.job.output_path], share)
        return view

    def _published(self, view: BatchView, owner: str) -> list[Path]:
        ids = [one for one in (view.output_file_id, view.error_file_id) if isinstance(one, str) and one]
        return [file.path for one in ids if (file := self._shelf.find(one, owner)) is not None]

    async def _export(self, batch: Batch, sources: Sequence[Path], share: float | None) -> None:
        """Write all shards of a job that has ended; for a running job, the rows that have succeeded so far."""
        source = self._store.find(batch.ask.input_file_id)
        folder, made = _folder(batch.created_at, self._made[batch.id].wish), self._made[batch.id]

        def write() -> None:
            made.exported = _write_shards(
                self._store, folder, batch.model, sources, source, share, made.exported
            )

        await asyncio.get_running_loop().run_in_executor(self._world.pool, write)

    def _job(self, view: BatchView) -> dict[str, Any]:
        made = self._made[view.id]
        ended_at = view.completed_at or view.failed_at or view.cancelled_at or view.expired_at
        job: dict[str, Any] = {
            "name": view.id,
            "displayName": made.wish.displayName,
            "model": made.wish.model,
            "inputConfig": msgspec.to_builtins(made.wish.inputConfig),
            "outputConfig": msgspec.to_builtins(made.wish.outputConfig),
            "state": f"JOB_STATE_{_STATES[view.status]}",
            "createTime": timestamp(view.created_at),
            "updateTime": timestamp(ended_at or view.in_progress_at or view.created_at),
            "labels": made.wish.labels,
        }
        if view.in_progress_at is not None:
            job["startTime"] = timestamp(view.in_progress_at)
            job["completionStats"] = _stats(view)
        if view.status in _ENDED:
            job["endTime"] = timestamp(ended_at or view.created_at)
        if view.status == "failed":
            job["error"] = _failure(view)
        elif made.exported and view.status != "validating" and view.files != "none":
            folder = _folder(view.created_at, made.wish)
            job["outputInfo"] = {"gcsOutputDirectory": folder if view.files == "own" else f"{folder}-other"}
        return empty_pages.reworded(self.traits, job, view.word)


def emulate(world: World) -> Vertex:
    """Return Vertex's emulator."""
    return Vertex(world)


def settings(base_url: str) -> dict[str, str]:
    """Return where workers find the sandbox's Cloud Storage."""
    prefix = "BATCHLING_PROVIDERS__VERTEX__"
    return {f"{prefix}STAGING": "gs://sandbox/batchling", f"{prefix}STAGING_URL": f"{base_url}{ROOT}"}


def _read_line(line: bytes) -> InputLine:
    read = _decode_line(line)
    _refuse_unimportable(msgspec.json.decode(read.request))
    return InputLine(read.custom_id or secrets.token_hex(8), bytes(read.request))


def _refuse_unimportable(value: object) -> None:
    """Raise BadLine for a request that the importer's tables cannot hold."""
    if isinstance(value, list):
        for one in value:
            _refuse_unimportable(one)
    elif isinstance(value, dict):
        if not value:
            raise BadLine("an empty struct cannot be imported.")
        for name, one in value.items():
            if "$" in name or " " in name:
                raise BadLine(f"the field name {name!r} cannot be imported.")
            if name == "anyOf" or (name == "type" and isinstance(one, list)):
                raise BadLine("union types cannot be imported.")
            _refuse_unimportable(one)


def _meets(job: Mapping[str, Any], wanted: str) -> bool:
    """Return whether a job meets a filter such as `display_name="x" AND labels.k="v"`."""
    for name, value in _CLAUSE.findall(wanted):
        if name.startswith("labels."):
            found = job["labels"].get(name.removeprefix("labels."))
        else:
            found = job.get({"display_name": _NAME}.get(name, name))
        if found != value:
            return False
    return True


def _folder(created_at: float, wish: _Wish) -> str:
    prefix = wish.outputConfig.gcsDestination.outputUriPrefix.rstrip("/")
    return f"{prefix}/prediction-model-{timestamp(int(created_at))}"


def _stats(view: BatchView) -> dict[str, str]:
    counts = view.counts or {}
    n_total, n_done, n_failed = (
        n if isinstance(n, int) else 0 for n in map(counts.get, ("total", "completed", "failed"))
    )
    return {
        "successfulCount": str(n_done),
        "failedCount": str(n_failed),
        "incompleteCount": str(max(0, n_total - n_done - n_failed)),
    }


def _failure(view: BatchView) -> dict[str, Any]:
    error = view.errors[0] if view.errors else LineError("INTERNAL", "The job failed.")
    code = {"token_limit_exceeded": 8, "FAILED_PRECONDITION": 9, "INTERNAL": 13, "server_error": 13}.get(
        error.code, 3
    )
    return {"code": code, "message": error.message}


def _write_shards(
    store: CloudStorage,
    folder: str,
    model: str | None,
    sources: Sequence[Path],
    source: StoredObject | None,
    share: float | None,
    n_before: int,
) -> int:
    """Write result lines as shards of a few rows each and return the number of lines."""
    lines = [line for path in sources for line in _lines_of(path)]
    if share is not None:
        lines = lines[: int(len(lines) * share)]
        if len(lines) <= n_before:
            return n_before
    asked = _requests(source)
    n_shards = max(1, -(-len(lines) // SHARD_ROWS))
    for number in range(n_shards):
        name = "predictions.jsonl" if n_shards == 1 else f"predictions_{number + 1:05d}.jsonl"
        path = store.new_path()
        path.write_bytes(b"".join(_shown(line, asked) for line in lines[number::n_shards]))
        store.put(f"{folder}/{name}", path, model)
    return len(lines)


def _lines_of(path: Path) -> Iterator[bytes]:
    with path.open("rb") as lines:
        yield from lines


def _requests(source: StoredObject | None) -> dict[str, bytes]:
    """Return each request by custom_id: Vertex echoes it in the result."""
    if source is None:
        return {}
    read = (_decode_line(line) for line in _lines_of(source.path))
    return {line.custom_id: bytes(line.request) for line in read if line.custom_id is not None}


def _shown(line: bytes, asked: Mapping[str, bytes]) -> bytes:
    """Return a result line as Vertex writes it; broken lines stay broken, and rows that never ran have no line."""
    try:
        ran = msgspec.json.decode(line, type=Ran)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return line
    if ran.response is None:
        return b""
    status, body = ran.response.status_code, bytes(ran.response.body)
    told = ""
    if status >= 300:
        told, body = f"{_WORDS.get(status, 'Bad Request')}: {body.decode()}", b"{}"
    elif not status:
        body = b"null"
    return (
        b'{"status":%b,"processed_time":"2026-11-23T00:00:00.000+00:00","request":%b,"response":%b,"custom_id":%b}\n'
        % (_encode(told), asked.get(ran.custom_id, b"{}"), body, _encode(ran.custom_id))
    )
