"""Bedrock's model invocation jobs over files in an object store, as documented and probed up to 2026-11-23."""

from __future__ import annotations

import asyncio
import datetime as dt
import re
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Final

import msgspec
from aiohttp import web
from multidict import MultiMapping

from ..answers import aws_answers
from ..answers.answers import Answer
from ..api.aws_realtime import AwsRealtime
from ..api.call_faults import CallFaults
from ..api.gate import Gate, json_reply
from ..api.object_store import ObjectStore
from ..batches import empty_pages, timing
from ..batches.batch_book import BatchBook
from ..batches.dialect import Refusal, Traits
from ..batches.file_store import FileShelf
from ..batches.records import Batch, BatchView, CreateAsk
from ..batches.scan import LineError, LineRules
from ..world import faults, unable
from ..world.world import World

BASE_URL_VARIABLES: Mapping[str, str] = {
    "ANTHROPIC_BEDROCK_BASE_URL": "",
    "AWS_ENDPOINT_URL_BEDROCK": "",
    "AWS_ENDPOINT_URL_BEDROCK_RUNTIME": "",
}
"""Variables in which SDKs look for a base URL -> the path below the provider's own."""

MIN_ROWS: Final = 100
_NAME = re.compile(r"[a-zA-Z0-9]{1,63}(-*[a-zA-Z0-9\+\-\.]){0,63}")
_ACCOUNT = "123456789012"
_JOBS = f"arn:aws:bedrock:us-east-1:{_ACCOUNT}:model-invocation-job/"
_KINDS = {"InvokeModel": "/invoke", "Converse": "/converse"}
_STATUSES = {
    "validating": "Validating",
    "in_progress": "InProgress",
    "finalizing": "InProgress",
    "completed": "Completed",
    "failed": "Failed",
    "expired": "PartiallyCompleted",
    "cancelling": "Stopping",
    "cancelled": "Stopped",
}
_TERMINAL = frozenset({"completed", "failed", "expired", "cancelled"})
_TYPES = {
    400: "ValidationException",
    403: "AccessDeniedException",
    404: "ResourceNotFoundException",
    409: "ConflictException",
    429: "ThrottlingException",
}


class _Place(msgspec.Struct, frozen=True):
    s3Uri: str  # noqa: N815 - AWS's spelling


class _Input(msgspec.Struct, frozen=True):
    s3InputDataConfig: _Place  # noqa: N815


class _Output(msgspec.Struct, frozen=True):
    s3OutputDataConfig: _Place  # noqa: N815


class _JobAsk(msgspec.Struct, frozen=True, kw_only=True):
    jobName: str  # noqa: N815
    roleArn: str  # noqa: N815
    modelId: str  # noqa: N815
    inputDataConfig: _Input  # noqa: N815
    outputDataConfig: _Output  # noqa: N815
    clientRequestToken: str = ""  # noqa: N815
    timeoutDurationInHours: int = 24  # noqa: N815
    modelInvocationType: str = "InvokeModel"  # noqa: N815


class _Record(msgspec.Struct, frozen=True):
    modelInput: msgspec.Raw  # noqa: N815
    recordId: str = ""  # noqa: N815


class _Response(msgspec.Struct, frozen=True):
    status_code: int
    body: msgspec.Raw


class _Done(msgspec.Struct, frozen=True):
    custom_id: str
    response: _Response | None = None


_record_of = msgspec.json.Decoder(_Record).decode
_done_of = msgspec.json.Decoder(_Done).decode
_encode = msgspec.json.encode


class BedrockDialect:
    """Bedrock: errors in a record are in the record's result, errors in a job in the failed job."""

    traits = Traits(
        name="bedrock",
        root="",
        realtime_endpoints=frozenset(),
        purposes=frozenset({"batch"}),
        bad_key_status=403,
        perform=aws_answers.perform,
        request_id_header="x-amzn-requestid",
        cursor=("nextToken", ("nextToken",)),
        no_money=(
            403,
            "AccessDeniedException",
            "Model access is denied due to INVALID_PAYMENT_INSTRUMENT: a valid payment instrument must be provided.",
        ),
        unable={
            **unable.NOT_PENDING,
            **unable.ONE_SHAPE,
            **unable.OWN_LINES,
            **unable.OWN_ERRORS,
            **unable.ONE_RESULT_FILE,
            **unable.NO_RESULT_IDS,
            **unable.OBJECT_STORE,
            faults.DoubleCreate: "A create that comes through twice carries the same token and makes one job.",
        },
    )

    def new_batch_id(self) -> str:
        """Return the ARN of a fresh job, whose own id is its last twelve characters."""
        return f"{_JOBS}{secrets.token_hex(6)}"

    def error_body(self, status: int, code: str | None, message: str, param: str | None) -> dict[str, Any]:
        """Return the JSON body of an error, its type in it."""
        if code == "invalid_api_key":
            code = "UnrecognizedClientException"
        kind = code if code and code.endswith("Exception") else _TYPES.get(status, "InternalServerException")
        return {"__type": kind, "message": message}

    def line_rules(self, ask: CreateAsk) -> LineRules:
        """Return the rules for the lines of this job."""
        return LineRules(
            endpoints=frozenset(_KINDS.values()), endpoint=ask.endpoint, one_model=True, skips_bad_lines=True
        )

    def decorate(self, answer: Answer, mark: str) -> dict[str, Any]:
        """Return the body of a success unchanged."""
        return answer.body


class BedrockJobs:
    """Jobs, the object store beside them, and realtime calls."""

    name = "bedrock"
    traits = BedrockDialect.traits

    def __init__(self, world: World) -> None:
        self._world = world
        self._dialect = BedrockDialect()
        self._gate = Gate(world, self._dialect)
        self._shelf = FileShelf(world, self.name, lambda: secrets.token_hex(8))
        self._book = BatchBook(world, self._dialect, self._shelf)
        self._call_faults = CallFaults(world, self._dialect.traits)
        self._realtime = AwsRealtime(world, self.name)
        self._store = ObjectStore(world, self.name, self._call_faults)
        self._asked: dict[str, _JobAsk] = {}
        self._by_token: dict[tuple[str, str], Batch] = {}
        self._exported: set[str] = set()
        self._inputs: dict[str, Mapping[str, msgspec.Raw]] = {}

    def routes(self) -> Iterator[web.RouteDef]:
        """Return every route of the provider."""
        for route in self._store.routes():
            yield web.route(route.method, route.path, self._caught_up(route.handler))
        yield self._gate.route("POST", "/model-invocation-job", self._create)
        yield self._gate.route("GET", "/model-invocation-job/{id:.+}", self._show)
        yield self._gate.route("GET", "/model-invocation-jobs", self._list)
        yield self._gate.route("POST", "/model-invocation-job/{id:.+}/stop", self._stop)
        yield from self._realtime.routes(self._gate)
        yield self._gate.unknown_route()

    async def batches(self) -> list[Mapping[str, object]]:
        """Move every job on to now and return them as JSON, oldest first."""
        return [self._job(view) for view in await self._catch_up()]

    async def clear(self) -> None:
        """Forget jobs and objects."""
        await self._book.clear()
        self._shelf.clear()
        self._store.clear()
        self._asked.clear()
        self._by_token.clear()
        self._exported.clear()
        self._inputs.clear()

    async def _create(self, request: web.Request, owner: str) -> web.StreamResponse:
        ask = _job_ask(await request.read())
        lost = self._call_faults.before_create(request, ask.modelId)
        if lost is not None:
            return lost
        batch = self._by_token.get((owner, ask.clientRequestToken))
        if batch is None:
            batch = await self._new_job(ask, owner)
            self._by_token[owner, ask.clientRequestToken or batch.id] = batch

        async def reply() -> web.Response:
            return json_reply({"jobArn": batch.id})

        return await self._call_faults.after_create(request, ask.modelId, reply)

    async def _new_job(self, ask: _JobAsk, owner: str) -> Batch:
        if any(self._asked[one.id].jobName == ask.jobName for one in self._book.newest_first(owner)):
            raise Refusal(409, f"A job named {ask.jobName} exists already.")
        place = ask.inputDataConfig.s3InputDataConfig.s3Uri
        stored = self._store.find(place)
        create = CreateAsk(
            input_file_id=place,
            endpoint=_KINDS[ask.modelInvocationType],
            completion_window=f"{ask.timeoutDurationInHours}h",
            metadata={"jobName": ask.jobName},
        )
        window_s = ask.timeoutDurationInHours * 3600.0
        if stored is None:
            missing = LineError("job_failed", f"The input {place} cannot be read.")
            batch = self._book.create(create, owner, window_s, missing)
        else:
            path = self._shelf.scratch()
            inputs: dict[str, msgspec.Raw] = {}
            n_rows = await asyncio.to_thread(_to_lines, stored, path, ask.modelId, create.endpoint, inputs)
            file = self._shelf.add(
                path,
                owner=owner,
                filename=place.rpartition("/")[2],
                purpose="batch",
                retention_s=window_s,
                model=ask.modelId,
            )
            own = self._world.limits.min_rows
            least = MIN_ROWS if own is None else own
            few = LineError("job_failed", f"The job has {n_rows} records; the least is {least}.")
            batch = self._book.create(create, owner, window_s, file if n_rows >= least else few)
            self._inputs[batch.id] = inputs
        self._asked[batch.id] = ask
        return batch

    async def _show(self, request: web.Request, owner: str) -> web.StreamResponse:
        batch = self._find(request, owner)
        lost = self._call_faults.before_look(request, batch.model)
        return lost or json_reply(self._job(await self._view(batch)))

    async def _list(self, request: web.Request, owner: str) -> web.StreamResponse:
        lost = self._call_faults.before_look(request, None)
        if lost is not None:
            return lost
        query = empty_pages.honest(self.traits, request.query)
        empty = self._call_faults.empties_page()
        if empty is not None:
            beside = empty_pages.beside(self.traits, request.query, {}, empty)
            return json_reply({"invocationJobSummaries": [], **beside})
        part, start = query.get("nameContains", ""), int(query.get("nextToken") or "0")
        size = min(int(query.get("maxResults", "100")), 1000)
        named = [one for one in self._book.newest_first(owner) if part in self._asked[one.id].jobName]
        named = [one for one in named if await self._meets(query, one)]
        if query.get("sortOrder") == "Ascending":
            named.reverse()
        page = named[start : start + size]
        more = {"nextToken": str(start + size)} if len(named) > start + size else {}
        now = self._world.clock.now()
        jobs = [self._job(timing.listed(batch, await self._view(batch), now)) for batch in page]
        return json_reply({"invocationJobSummaries": jobs, **more})

    async def _meets(self, query: MultiMapping[str], batch: Batch) -> bool:
        """Return whether a job matches the filters of a list call."""
        after, before = (query.get(name) for name in ("submitTimeAfter", "submitTimeBefore"))
        if after is not None and batch.created_at <= _moment(after):
            return False
        if before is not None and batch.created_at >= _moment(before):
            return False
        wanted = query.get("statusEquals")
        return wanted is None or wanted == _STATUSES[(await self._view(batch)).status]

    async def _stop(self, request: web.Request, owner: str) -> web.StreamResponse:
        batch = self._find(request, owner)
        self._call_faults.before_cancel(batch.model)
        if (await self._view(batch)).status in _TERMINAL:
            raise Refusal(409, "The job has ended already.")
        self._book.cancel(batch)
        return json_reply({})

    def _caught_up(self, handler: Any) -> Any:
        """Move every job on before a read, so that results are in the store as soon as a job has ended."""

        async def handle(request: web.Request) -> web.StreamResponse:
            if request.method == "GET":
                await self._catch_up()
            answer: web.StreamResponse = await handler(request)
            return answer

        return handle

    async def _catch_up(self) -> list[BatchView]:
        views = await self._book.catch_up()
        for view in views:
            await self._export(view)
        return views

    async def _view(self, batch: Batch) -> BatchView:
        view = await self._book.show(batch)
        await self._export(view)
        return view

    async def _export(self, view: BatchView) -> None:
        if view.status not in _TERMINAL or view.status == "failed" or view.id in self._exported:
            return
        batch = next(batch for _, batch in self._by_token.items() if batch.id == view.id)
        if not timing.shows_files(batch, self._world.clock.now()):
            return
        self._exported.add(view.id)
        files = [
            self._shelf.find(one, batch.owner)
            for one in (view.output_file_id, view.error_file_id)
            if isinstance(one, str)
        ]
        path = self._store.new_path()
        inputs = self._inputs.pop(view.id, {})
        await asyncio.to_thread(_to_records, [file.path for file in files if file is not None], inputs, path)
        ask = self._asked[view.id]
        root = f"{ask.outputDataConfig.s3OutputDataConfig.s3Uri.rstrip('/')}/{view.id.removeprefix(_JOBS)}"
        name = ask.inputDataConfig.s3InputDataConfig.s3Uri.rpartition("/")[2]
        self._store.put(f"{root}/{name}.out", path, batch.model)
        manifest = self._store.new_path()
        manifest.write_bytes(_encode({"totalRecordCount": (view.counts or {}).get("total", 0)}))
        self._store.put(f"{root}/manifest.json.out", manifest)

    def _find(self, request: web.Request, owner: str) -> Batch:
        said = request.match_info["id"]
        batch = self._book.find(_JOBS + said.removeprefix(_JOBS), owner)
        if batch is None:
            raise Refusal(404, f"The job {said} was not found.")
        return batch

    def _job(self, view: BatchView) -> dict[str, object]:
        ask, counts = self._asked[view.id], view.counts or {}
        ended = view.completed_at or view.failed_at or view.expired_at or view.cancelled_at
        n_total, n_failed = int(str(counts.get("total", 0))), int(str(counts.get("failed", 0)))
        n_done = int(str(counts.get("completed", 0)))
        job: dict[str, Any] = {
            "jobArn": view.id,
            "jobName": ask.jobName,
            "modelId": ask.modelId,
            "clientRequestToken": ask.clientRequestToken,
            "roleArn": ask.roleArn,
            "status": _STATUSES[view.status],
            "message": "; ".join(error.message for error in view.errors) or None,
            "submitTime": _iso(view.created_at),
            "lastModifiedTime": _iso(ended or view.in_progress_at or view.created_at),
            "endTime": _iso(ended) if ended else None,
            "inputDataConfig": ask.inputDataConfig,
            "outputDataConfig": ask.outputDataConfig,
            "timeoutDurationInHours": ask.timeoutDurationInHours,
            "jobExpirationTime": _iso(view.expires_at),
            "modelInvocationType": ask.modelInvocationType,
            "totalRecordCount": n_total,
            "processedRecordCount": n_done + n_failed,
            "successRecordCount": n_done,
            "errorRecordCount": n_failed,
        }
        return empty_pages.reworded(self.traits, job, view.word)


def emulate(world: World) -> BedrockJobs:
    """Return Bedrock's emulator."""
    return BedrockJobs(world)


def settings(base_url: str) -> dict[str, str]:
    """Return the worker's other settings: the object store, and the role that reads it."""
    prefix = "BATCHLING_PROVIDERS__BEDROCK__"
    return {
        f"{prefix}API_KEY": "SANDBOX:sandbox",
        f"{prefix}STAGING": "s3://sandbox/batches",
        f"{prefix}STAGING_URL": f"{base_url}/s3",
        f"{prefix}ROLE_ARN": f"arn:aws:iam::{_ACCOUNT}:role/sandbox",
    }


def _job_ask(body: bytes) -> _JobAsk:
    try:
        ask = msgspec.json.decode(body, type=_JobAsk)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Refusal(400, f"The request is invalid: {error}.") from error
    if _NAME.fullmatch(ask.jobName) is None or len(ask.jobName) > 63:
        raise Refusal(400, f"'{ask.jobName}' is not a valid job name.")
    if ask.modelInvocationType not in _KINDS:
        raise Refusal(400, f"'{ask.modelInvocationType}' is not a valid invocation type.")
    if not 24 <= ask.timeoutDurationInHours <= 168:
        raise Refusal(400, "timeoutDurationInHours must be from 24 to 168.")
    if not ask.inputDataConfig.s3InputDataConfig.s3Uri.endswith(".jsonl"):
        raise Refusal(400, "The input must be a file that ends in .jsonl.")
    return ask


def _to_lines(records: Path, path: Path, model: str, endpoint: str, inputs: dict[str, msgspec.Raw]) -> int:
    """Write a job's records as the sandbox's own lines, keep the input of each, and return their number."""
    n_rows = 0
    with records.open("rb") as source, path.open("wb") as lines:
        for number, line in enumerate(source, start=1):
            n_rows = number
            try:
                record = _record_of(line)
                msgspec.json.decode(record.modelInput, type=dict[str, msgspec.Raw])
            except (msgspec.DecodeError, UnicodeDecodeError):
                lines.write(line)
                continue
            record_id = record.recordId or secrets.token_hex(6)[:11]
            inputs[record_id] = record.modelInput
            asked = msgspec.json.decode(record.modelInput, type=dict[str, msgspec.Raw])
            body = {**asked, "model": model}
            row = {"custom_id": record_id, "method": "POST", "url": endpoint, "body": body}
            lines.write(_encode(row) + b"\n")
    return n_rows


def _to_records(files: list[Path], inputs: Mapping[str, msgspec.Raw], path: Path) -> None:
    """Write result lines as records, without the rows that never ran."""
    with path.open("wb") as records:
        for file in files:
            with file.open("rb") as lines:
                for line in lines:
                    _write_record(records, inputs, line)


def _write_record(records: BinaryIO, inputs: Mapping[str, msgspec.Raw], line: bytes) -> None:
    try:
        done = _done_of(line)
    except (msgspec.DecodeError, UnicodeDecodeError):
        records.write(line)
        return
    if done.response is None:
        return
    record: dict[str, object] = {"recordId": done.custom_id, "modelInput": inputs.get(done.custom_id, {})}
    status, body = done.response.status_code, done.response.body
    if status >= 400:
        said = msgspec.json.decode(body)
        record["error"] = {"errorCode": status, "errorMessage": said.get("message", "")}
    elif status:
        record["modelOutput"] = body
    records.write(_encode(record) + b"\n")


def _moment(said: str) -> float:
    try:
        return dt.datetime.fromisoformat(said).timestamp()
    except ValueError:
        raise Refusal(400, f"'{said}' is not a time.") from None


def _iso(seconds: int) -> str:
    return dt.datetime.fromtimestamp(seconds, dt.UTC).isoformat().replace("+00:00", "Z")
