"""xAI's Batch API, as published and captured up to 2026-11-23: containers of requests, results page by page."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import msgspec
from aiohttp import web
from multidict import MultiMapping

from ..answers import answers
from ..answers.answers import Answer, Problem
from ..api.call_faults import CallFaults
from ..api.gate import Gate, json_reply
from ..api.realtime import RealtimeApi
from ..batches import empty_pages
from ..batches.batch_book import BatchBook
from ..batches.dialect import Refusal, Traits
from ..batches.file_store import FileShelf
from ..batches.records import Batch, BatchView, CreateAsk, Written
from ..batches.scan import LineRules
from ..world import faults, unable
from ..world.world import World

BASE_URL_VARIABLES: Mapping[str, str] = {"XAI_API_BASE": "/v1"}
"""Variables in which SDKs look for a base URL -> the path below the provider's own."""

T = TypeVar("T")

_CHAT = "/v1/chat/completions"
_RESPONSES = "/v1/responses"
_ENDPOINTS = {
    "chat_get_completion": _CHAT,
    "responses": _RESPONSES,
    "image_generation": "/v1/images/generations",
    "image_edit": "/v1/images/edits",
    "video_generation": "/v1/videos/generations",
    "video_extension": "/v1/videos/extensions",
}
_VIDEOS = frozenset({"/v1/videos/generations", "/v1/videos/extensions"})
_REALTIME = frozenset({*_ENDPOINTS.values(), "/v1/videos"})
_UNBATCHED = ("grok-4.5", "grok-4.6", "grok-3-mini")
"""Prefixes of the models that a batch does not accept."""
_APPEND_BYTES = 25_000_000
_RUNNING = frozenset({"validating", "in_progress", "finalizing", "cancelling"})
_LIFE = dt.timedelta(days=30)
_DAY_S = 86_400.0
_GRPC_CODES = {400: 3, 401: 16, 403: 7, 404: 5, 422: 3, 429: 8, 500: 13, 503: 14, 504: 4}
_MAX_PAGE = 1_000


def _perform(endpoint: str, body: bytes | msgspec.Raw, created: int) -> Answer | Problem:
    return answers.perform("/v1/videos" if endpoint in _VIDEOS else endpoint, body, created)


class XaiDialect:
    """xAI: an error is two texts, and an unknown key is answered with 400."""

    traits = Traits(
        name="xai",
        root="/v1",
        realtime_endpoints=_REALTIME,
        purposes=frozenset(),
        bad_key_status=400,
        perform=_perform,
        names_undone=False,
        status_path=(),
        cursor=("pagination_token", ("pagination_token",)),
        no_money=(429, "resource_exhausted", "Your team has used all available credits."),
        unable={
            **unable.NOT_PENDING,
            **unable.ONE_SHAPE,
            **unable.OWN_LINES,
            **unable.OWN_ERRORS,
            **unable.ONE_RESULT_FILE,
            **unable.NO_RESULT_IDS,
            **unable.NO_STATUS,
            faults.HideFile: "A container can be found as soon as it is made.",
            faults.LieInCounts: "Its counts are all that says how a batch stands: with others it would stand so.",
            faults.LateFileIds: "Its results are pages of the batch, which no id stands for.",
        },
    )

    def new_batch_id(self) -> str:
        """Return a fresh id of a container."""
        return f"batch_{secrets.token_hex(16)}"

    def error_body(self, status: int, code: str | None, message: str, param: str | None) -> dict[str, Any]:
        """Return the JSON body of an HTTP error."""
        return {"code": code or "Client specified an invalid argument", "error": message}

    def line_rules(self, ask: CreateAsk) -> LineRules:
        """Return the rules for the lines of this batch, which were checked when they were appended."""
        return LineRules(endpoints=_REALTIME, endpoint=None, skips_bad_lines=True, lines_checked=False)

    def decorate(self, answer: Answer, mark: str) -> dict[str, Any]:
        """Return the body of a success with its price in `usage`."""
        usage = answer.body.get("usage")
        if isinstance(usage, dict):
            usage["cost_in_usd_ticks"] = 1_000 * (answer.input_tokens + 4 * answer.output_tokens)
        return answer.body


@dataclass(slots=True, kw_only=True)
class Container:
    """A container that requests are appended to; each append is a batch of its own, which runs at once."""

    id: str
    owner: str
    name: str
    created_at: float
    cancelled_at: float | None = None
    contents: dict[str, bytes] = field(default_factory=dict)
    """Request id -> digest of the request."""
    parts: list[Batch] = field(default_factory=list)


class _CreateAsk(msgspec.Struct, frozen=True):
    name: str


class _Request(msgspec.Struct, frozen=True):
    batch_request: dict[str, msgspec.Raw]
    batch_request_id: str | None = None


class _AppendAsk(msgspec.Struct, frozen=True):
    batch_requests: list[_Request]


class _Model(msgspec.Struct, frozen=True):
    model: str
    stream: bool | None = None


class Xai:
    """Containers and realtime calls."""

    name = "xai"
    traits = XaiDialect.traits

    def __init__(self, world: World) -> None:
        dialect = XaiDialect()
        self._world = world
        self._gate = Gate(world, dialect)
        self._shelf = FileShelf(world, self.name, lambda: f"file_{secrets.token_hex(12)}")
        self._book = BatchBook(world, dialect, self._shelf)
        self._call_faults = CallFaults(world, dialect.traits)
        self._realtime = RealtimeApi(world, dialect)
        self._containers: dict[str, Container] = {}

    def routes(self) -> Iterator[web.RouteDef]:
        """Return every route of the provider."""
        for method, path, handler in (
            ("POST", "/batches", self._make),
            ("GET", "/batches", self._list),
            ("GET", "/batches/{batch_id}", self._show),
            ("POST", "/batches/{batch_id}/requests", self._append),
            ("GET", "/batches/{batch_id}/results", self._results),
            ("POST", "/batches/{batch_id}:cancel", self._cancel),
        ):
            yield self._gate.route(method, path, handler)
        yield from self._realtime.routes(self._gate)
        yield self._gate.unknown_route()

    async def batches(self) -> list[Mapping[str, object]]:
        """Move every container on to now and return them as JSON, oldest first."""
        await self._book.catch_up()
        return [await self._object(container) for container in self._containers.values()]

    async def clear(self) -> None:
        """Forget containers."""
        await self._book.clear()
        self._shelf.clear()
        self._containers.clear()

    async def _make(self, request: web.Request, owner: str) -> web.StreamResponse:
        self._call_faults.before_upload(request)
        name = _decoded(await request.read(), _CreateAsk).name
        container = Container(
            id=f"batch_{secrets.token_hex(16)}", owner=owner, name=name, created_at=self._world.clock.now()
        )
        self._containers[container.id] = container
        return await self._call_faults.after_upload(request) or json_reply(await self._object(container))

    async def _append(self, request: web.Request, owner: str) -> web.StreamResponse:
        container = self._find(request, owner)
        content = await request.read()
        if len(content) > _APPEND_BYTES:
            raise Refusal(413, f"An append call takes {_APPEND_BYTES} bytes at most.")
        wanted = _decoded(content, _AppendAsk).batch_requests
        rows = [_checked(number, row) for number, row in enumerate(wanted)]
        if not rows:
            raise Refusal(400, "There are no requests to append.")
        model = rows[0].model
        lost = self._call_faults.before_create(request, model)
        if lost is not None:
            return lost
        if container.cancelled_at is not None:
            raise Refusal(403, "This batch was cancelled.", code="permission_denied")
        for _ in range(2 if self._call_faults.doubles(model) else 1):
            self._take(container, rows)

        async def reply() -> web.Response:
            return json_reply({})

        return await self._call_faults.after_create(request, model, reply)

    def _take(self, container: Container, rows: Sequence[_Row]) -> None:
        """Run the rows that are new; refuse the whole call if an id was appended before with other content."""
        fresh = [row for row in rows if container.contents.get(row.id) != row.digest]
        for row in fresh:
            if row.id in container.contents:
                raise Refusal(
                    412, f"The request '{row.id}' is there with other content.", code="failed_precondition"
                )
        if not fresh:
            return
        path = self._shelf.scratch()
        with path.open("wb") as lines:
            for row in fresh:
                lines.write(row.line)
                container.contents[row.id] = row.digest
        file = self._shelf.add(
            path,
            owner=container.owner,
            filename=f"{container.name}.jsonl",
            purpose="batch",
            retention_s=_DAY_S,
            model=fresh[0].model,
        )
        ask = CreateAsk(
            input_file_id="",
            endpoint=fresh[0].endpoint,
            completion_window="24h",
            metadata={"name": container.name},
        )
        n_parts = len(container.parts)
        batch_id = f"{container.id}-{n_parts}" if n_parts else container.id
        container.parts.append(
            self._book.create(ask, container.owner, _LIFE.total_seconds(), file, batch_id=batch_id)
        )
        self._shelf.remove(file)

    async def _show(self, request: web.Request, owner: str) -> web.StreamResponse:
        container = self._find(request, owner)
        lost = self._call_faults.before_look(request, _model_of(container))
        return lost or json_reply(await self._object(container))

    async def _list(self, request: web.Request, owner: str) -> web.StreamResponse:
        lost = self._call_faults.before_look(request, None)
        if lost is not None:
            return lost
        listed = {batch.id for batch in self._book.newest_first(owner)}
        found = [
            container
            for container in reversed(self._containers.values())
            if container.owner == owner and (not container.parts or container.parts[0].id in listed)
        ]
        empty = self._call_faults.empties_page()
        if empty is not None:
            return json_reply(empty_pages.beside(self.traits, request.query, {"batches": []}, empty))
        query = empty_pages.honest(self.traits, request.query)
        start, limit = _page(query, default=self._world.limits.page_size)
        page = found[start : start + limit]
        token = str(start + limit) if len(found) > start + limit else None
        shown = [await self._object(one, listed=True) for one in page]
        return json_reply({"batches": shown, "pagination_token": token})

    async def _cancel(self, request: web.Request, owner: str) -> web.StreamResponse:
        container = self._find(request, owner)
        self._call_faults.before_cancel(_model_of(container))
        views = [await self._book.show(part) for part in container.parts]
        if any(view.counts and _n_pending(view) for view in views) or not views:
            container.cancelled_at = container.cancelled_at or self._world.clock.now()
        for part in container.parts:
            self._book.cancel(part)
        return json_reply(await self._object(container))

    async def _results(self, request: web.Request, owner: str) -> web.StreamResponse:
        """Send a page as a file, so that the faults of downloads strike it, too."""
        container = self._find(request, owner)
        written: list[Written] = []
        now = self._world.clock.now()
        for part in container.parts:
            if part.outcome is not None and now < part.outcome.ended_at + part.plan.hide_output_s:
                raise Refusal(404, f"Results of {container.id} are not found.")
            written += await self._book.written(part) or ()
        _, limit = _page(request.query, default=_MAX_PAGE)
        places = _places(request.query.get("pagination_token", ""), len(written))
        rows: list[bytes] = []
        for number, file in enumerate(written):
            places[number] = _read_rows(file, places[number], limit, rows)
        more = any(place < file.n_bytes for place, file in zip(places, written, strict=True))
        token = b'"%b"' % ".".join(map(str, places)).encode() if more else b"null"
        path = self._shelf.scratch()
        path.write_bytes(b'{"results":[%b],"pagination_token":%b}' % (b",".join(rows), token))
        try:
            n_bytes = path.stat().st_size
            return await self._call_faults.send(
                request, path, _model_of(container), n_bytes, "application/json"
            )
        finally:
            path.unlink()

    def _find(self, request: web.Request, owner: str) -> Container:
        batch_id = request.match_info["batch_id"]
        container = self._containers.get(batch_id)
        visible = container is not None and all(self._book.find(p.id, owner) for p in container.parts[:1])
        if container is None or container.owner != owner or not visible:
            raise Refusal(404, f"There is no batch '{batch_id}'.", code="not_found")
        return container

    async def _object(self, container: Container, *, listed: bool = False) -> dict[str, Any]:
        """Return a container as JSON, without a status; its creation and expiry are dates without a time."""
        look = self._book.listed if listed else self._book.show
        views = [await look(part) for part in container.parts]
        counts = [view.counts for view in views if view.counts]
        failures = [error.message for view in views if view.status == "failed" for error in view.errors]
        n_total = 0 if failures else len(container.contents)
        n_success, n_error = (
            sum(_number(one.get(name)) for one in counts) for name in ("completed", "failed")
        )
        n_cancelled = sum(_n_pending(view) for view in views if view.status == "cancelled")
        # Only the counters show that a batch is done, so a finalizing batch must not look done.
        n_running = sum(view.status in _RUNNING for view in views)
        n_pending = max(n_total - n_success - n_error - n_cancelled, min(n_running, n_success))
        n_success = n_total - n_error - n_cancelled - n_pending
        expires = _at(container.created_at) + _LIFE
        if any(view.status == "expired" for view in views):
            expires = _at(self._world.clock.now()) - dt.timedelta(days=1)
        return {
            "batch_id": container.id,
            "name": container.name,
            "create_time": _at(container.created_at).date().isoformat(),
            "expire_time": expires.date().isoformat(),
            "create_api_key_id": container.owner,
            "cancel_time": None
            if container.cancelled_at is None
            else _at(container.cancelled_at).isoformat(),
            "cancel_by_xai_message": failures[0] if failures else None,
            "state": {
                "num_requests": n_total,
                "num_pending": n_pending,
                "num_success": n_success,
                "num_error": n_error,
                "num_cancelled": n_cancelled,
            },
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    """An appended request, also as a line of OpenAI's."""

    id: str
    digest: bytes
    endpoint: str
    model: str
    line: bytes


def _checked(number: int, asked: _Request) -> _Row:
    """Return an appended request; raise Refusal, for the whole call, if it is invalid."""
    where = f"batch_requests[{number}]"
    if len(asked.batch_request) != 1:
        raise Refusal(400, f"{where}: exactly one kind of request is to be given.")
    [(kind, body)] = asked.batch_request.items()
    endpoint = _ENDPOINTS.get(kind)
    if endpoint is None:
        raise Refusal(400, f"{where}: '{kind}' is not a kind of request.")
    try:
        peek = msgspec.json.decode(body, type=_Model)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Refusal(400, f"{where}: {error}.") from None
    if peek.model.startswith((*_UNBATCHED, answers.UNKNOWN_MODEL_PREFIX)):
        raise Refusal(400, f"The model {peek.model} is not supported for batch processing.")
    if peek.stream:
        raise Refusal(400, f"{where}: requests of a batch cannot be streamed.")
    request_id = asked.batch_request_id or secrets.token_hex(12)
    name, url = msgspec.json.encode(request_id), msgspec.json.encode(endpoint)
    line = b'{"custom_id":%b,"method":"POST","url":%b,"body":%b}\n' % (name, url, bytes(body))
    digest = hashlib.blake2b(line, digest_size=16).digest()
    return _Row(id=request_id, digest=digest, endpoint=endpoint, model=peek.model, line=line)


class _Line(msgspec.Struct, frozen=True):
    custom_id: str
    response: msgspec.Raw


class _Response(msgspec.Struct, frozen=True):
    status_code: int
    body: Any


def _read_rows(file: Written, place: int, limit: int, rows: list[bytes]) -> int:
    """Append rows of a result file from byte `place` on, up to `limit` in all; return the byte after them."""
    if place >= file.n_bytes or len(rows) >= limit:
        return place
    with file.path.open("rb") as lines:
        lines.seek(place)
        while len(rows) < limit and place < file.n_bytes:
            line = lines.readline()
            place += len(line)
            rows.append(_result(line))
    return place


def _result(line: bytes) -> bytes:
    """Return a result row; other JSON stays as it is, and a broken line becomes a JSON string without an id."""
    try:
        row = msgspec.json.decode(line, type=_Line)
        response = msgspec.json.decode(row.response, type=_Response)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return line.rstrip() if _is_json(line) else msgspec.json.encode(line.decode(errors="replace"))
    result: dict[str, Any] = {}
    if 200 <= response.status_code < 300:
        kind, body = _kind(response.body)
        result = {"response": {kind: body}}
    elif response.status_code:
        code = _GRPC_CODES.get(response.status_code, 2)
        said = response.body.get("error") if isinstance(response.body, dict) else None
        result = {"error": {"code": code, "message": said}}
    return msgspec.json.encode({"batch_request_id": row.custom_id, "batch_result": result})


def _is_json(line: bytes) -> bool:
    """Return whether Python decodes the line; msgspec refuses half surrogate pairs, which model output may hold."""
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


def _kind(body: Any) -> tuple[str, Any]:
    """Return the kind and body of a result; a response is converted to a chat completion."""
    if not isinstance(body, dict) or body.get("status") == "failed":
        return "chat_get_completion", body
    match body.get("object"):
        case "response":
            return "chat_get_completion", _as_chat(body)
        case "video":
            return "video_generation", body
        case _:
            return ("image_generation" if "data" in body else "chat_get_completion"), body


def _as_chat(body: dict[str, Any]) -> dict[str, Any]:
    usage = body["usage"]
    message = {"role": "assistant", "content": body["output"][0]["content"][0]["text"], "refusal": None}
    return {
        "id": body["id"],
        "object": "chat.completion",
        "created": body["created_at"],
        "model": body["model"],
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {
            "prompt_tokens": usage["input_tokens"],
            "completion_tokens": usage["output_tokens"],
            "total_tokens": usage["total_tokens"],
            "prompt_tokens_details": {"cached_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 0},
            "cost_in_usd_ticks": usage.get("cost_in_usd_ticks", 0),
        },
    }


def emulate(world: World) -> Xai:
    """Return xAI's emulator."""
    return Xai(world)


def _decoded(body: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Refusal(400, f"The request body is invalid: {error}.") from None


def _page(query: MultiMapping[str], default: int) -> tuple[int, int]:
    token, limit = query.get("pagination_token", ""), query.get("limit", str(default))
    if not limit.isdigit() or not 1 <= int(limit) <= _MAX_PAGE:
        raise Refusal(400, f"'limit' must be from 1 to {_MAX_PAGE}.")
    return int(token) if token.isdigit() else 0, int(limit)


def _places(token: str, n: int) -> list[int]:
    places = [int(place) for place in token.split(".") if place.isdigit()]
    return (places + [0] * n)[:n]


def _number(said: object) -> int:
    return said if isinstance(said, int) else 0


def _n_pending(view: BatchView) -> int:
    counts = view.counts or {}
    total, *done = (_number(counts.get(name)) for name in ("total", "completed", "failed"))
    return total - sum(done)


def _model_of(container: Container) -> str | None:
    return container.parts[0].model if container.parts else None


def _at(moment: float) -> dt.datetime:
    return dt.datetime.fromtimestamp(moment, dt.UTC)
