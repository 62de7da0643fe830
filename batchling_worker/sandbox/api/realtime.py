"""Realtime calls, answered at once and billed at full price, for rehearsing pass-through."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from urllib.parse import parse_qsl

import msgspec
from aiohttp import web

from ..answers import answers, speech
from ..batches.dialect import Dialect, Refusal
from ..world import faults
from ..world.ledger import RealtimeCall, cost_usd
from ..world.world import World
from .gate import Gate, json_reply, new_request_id, refusal_of
from .multipart_form import Form, FormError

_MODELS = ("llama-3.1-8b-instant", "openai/gpt-oss-20b", "gpt-4o-mini", "gpt-4.1", "text-embedding-3-small")


class RealtimeApi:
    """The realtime routes of one provider; the `/v1` of an endpoint is replaced by the provider's root."""

    def __init__(self, world: World, dialect: Dialect) -> None:
        self._world = world
        self._dialect = dialect
        self._provider = dialect.traits.name

    def routes(self, gate: Gate) -> Iterator[web.RouteDef]:
        """Return the routes, behind `gate`."""
        for endpoint in sorted(self._dialect.traits.realtime_endpoints):
            yield gate.route("POST", endpoint.removeprefix("/v1"), self._handler(endpoint))
        for path, endpoint in self._dialect.traits.realtime_paths.items():
            yield gate.route("POST", path, self._handler(endpoint))
        if self._dialect.traits.speech:
            yield gate.route("POST", self._dialect.traits.speech_path, self._speak)
        yield gate.route("GET", "/models", self._models)

    def _handler(self, endpoint: str) -> Callable[[web.Request, str], Awaitable[web.StreamResponse]]:
        async def handle(request: web.Request, owner: str) -> web.StreamResponse:
            return await self._answer(request, endpoint)

        return handle

    async def _answer(self, request: web.Request, endpoint: str) -> web.StreamResponse:
        body = await _json_body(request)
        created = self._world.clock.now()
        versioned = self._dialect.traits.endpoint_of(endpoint, request.headers)
        found = self._perform(versioned, body, int(created))
        self._bill(endpoint, _model(body), found, created)
        if isinstance(found, answers.Problem):
            raise Refusal(found.status, found.message, code=found.code)
        decorated = self._dialect.decorate(found, new_request_id().removeprefix("req_"))
        events = self._dialect.traits.events.get(endpoint)
        if _peek(body).stream and events is not None:
            return await _stream(request, events(decorated))
        return json_reply(decorated)

    async def _speak(self, request: web.Request, owner: str) -> web.StreamResponse:
        body, created = await request.read(), self._world.clock.now()
        found = self._failed(body) or speech.perform(body, self._dialect.traits.speech)
        answer = found if isinstance(found, answers.Problem) else found[1]
        self._bill(speech.ENDPOINT, _model(body), answer, created)
        if isinstance(found, answers.Problem):
            raise Refusal(found.status, found.message, code=found.code)
        spoken, billed = found
        if spoken.events:
            return await _stream(request, spoken.pieces(billed.input_tokens, billed.output_tokens))
        headers = {"x-request-id": new_request_id()}
        return web.Response(body=spoken.audio, content_type=spoken.content_type, headers=headers)

    def _perform(self, endpoint: str, body: bytes, created: int) -> answers.Answer | answers.Problem:
        return self._failed(body) or self._dialect.traits.perform(endpoint, body, created)

    def _failed(self, body: bytes) -> answers.Problem | None:
        """Return the problem that a marker in the call asks for, if any; raise Refusal for an armed fault."""
        refuse = self._world.faults.take(faults.RefuseRealtime, self._provider, _model(body))
        if refuse is not None:
            raise refusal_of(refuse)
        marker = self._world.markers.find(body, "realtime")
        if marker is not None and marker.status is not None:
            return answers.Problem(marker.status, None, "This request asked the sandbox to fail it.")
        return None

    def _bill(
        self, endpoint: str, model: str | None, found: answers.Answer | answers.Problem, at: float
    ) -> None:
        if isinstance(found, answers.Problem):
            status, cost = found.status, 0.0
        else:
            status, cost = 200, cost_usd(found.input_tokens, found.output_tokens, batch=False)
        self._world.ledger.realtime(
            RealtimeCall(
                provider=self._provider,
                endpoint=endpoint,
                model=model,
                status_code=status,
                cost_usd=cost,
                at=at,
            )
        )

    async def _models(self, request: web.Request, owner: str) -> web.StreamResponse:
        models = [{"id": name, "object": "model", "created": 0, "owned_by": "sandbox"} for name in _MODELS]
        return json_reply({"object": "list", "data": models})


class _Peek(msgspec.Struct, frozen=True):
    model: str | None = None
    stream: bool | None = None


def _peek(body: bytes) -> _Peek:
    try:
        return msgspec.json.decode(body, type=_Peek)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return _Peek()


def _model(body: bytes) -> str | None:
    return _peek(body).model


async def _json_body(request: web.Request) -> bytes:
    if request.content_type == "application/x-www-form-urlencoded":
        return msgspec.json.encode(dict(parse_qsl(await request.text())))
    if request.content_type != "multipart/form-data":
        return await request.read()
    fields: dict[str, str] = {}
    try:
        form = Form(request)
        async for part in form.parts():
            fields[part.name] = part.filename if part.filename is not None else await form.text()
    except FormError as error:
        raise Refusal(400, str(error)) from error
    fields.setdefault("prompt", fields.get("file", ""))
    return msgspec.json.encode(fields)


async def _stream(request: web.Request, events: Iterator[bytes]) -> web.StreamResponse:
    response = web.StreamResponse(headers={"x-request-id": new_request_id(), "Cache-Control": "no-cache"})
    response.content_type = "text/event-stream"
    await response.prepare(request)
    for event in events:
        await response.write(event)
    await response.write_eof()
    return response
