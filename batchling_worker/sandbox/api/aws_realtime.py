"""Bedrock's realtime calls: answered at once, billed at full price, in one piece or as a stream."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Final, TypeAlias

import msgspec
from aiohttp import web

from ..answers import aws_answers, streams
from ..answers.answers import Answer, Problem
from ..answers.aws_answers import CHAT, CONVERSE, INVOKE
from ..batches.dialect import Refusal
from ..world.faults import RefuseRealtime
from ..world.ledger import RealtimeCall, cost_usd
from ..world.world import World
from . import aws_events
from .gate import REQUEST_ID, Gate, json_reply, new_request_id, refusal_of

_Events: TypeAlias = Callable[[dict[str, Any]], Iterator[tuple[str, dict[str, Any]]]]
_Handler: TypeAlias = Callable[[web.Request, str], Awaitable[web.StreamResponse]]
_INPUT_TOKENS: Final = "x-amzn-bedrock-input-token-count"
_OUTPUT_TOKENS: Final = "x-amzn-bedrock-output-token-count"


class AwsRealtime:
    """Answers realtime calls of models, outside of jobs."""

    def __init__(self, world: World, provider: str) -> None:
        self._world = world
        self._provider = provider

    def routes(self, gate: Gate) -> Iterator[web.RouteDef]:
        """Return the routes, behind `gate`."""
        yield gate.route("POST", CHAT, self._chat)
        for word, endpoint in (("invoke", INVOKE), ("converse", CONVERSE)):
            yield gate.route("POST", f"/model/{{model:.+}}/{word}", self._whole(endpoint))
        for word, endpoint, events in (
            ("invoke-with-response-stream", INVOKE, aws_answers.invoke_events),
            ("converse-stream", CONVERSE, aws_answers.converse_events),
        ):
            yield gate.route("POST", f"/model/{{model:.+}}/{word}", self._streamed(endpoint, events))
        yield gate.route("POST", "/model/{model:.+}/count-tokens", self._count)

    def _whole(self, endpoint: str) -> _Handler:
        async def answer(request: web.Request, owner: str) -> web.StreamResponse:
            found = await self._answer(request, endpoint)
            reply = json_reply(found.body)
            if endpoint == INVOKE:
                reply.headers[_INPUT_TOKENS] = str(found.input_tokens)
                reply.headers[_OUTPUT_TOKENS] = str(found.output_tokens)
            return reply

        return answer

    def _streamed(self, endpoint: str, events: _Events) -> _Handler:
        async def answer(request: web.Request, owner: str) -> web.StreamResponse:
            found = await self._answer(request, endpoint)
            framed = (aws_events.event(kind, body) for kind, body in events(found.body))
            return await _stream(request, framed, aws_events.CONTENT_TYPE)

        return answer

    async def _chat(self, request: web.Request, owner: str) -> web.StreamResponse:
        found = await self._answer(request, CHAT)
        if msgspec.json.decode(await request.read()).get("stream"):
            events = streams.EVENTS["/v1/chat/completions"](found.body)
            return await _stream(request, events, "text/event-stream")
        return json_reply(found.body)

    async def _count(self, request: web.Request, owner: str) -> web.StreamResponse:
        found = aws_answers.count(await request.read(), request.match_info["model"])
        if isinstance(found, Problem):
            raise Refusal(found.status, found.message, code=found.code)
        return json_reply({"inputTokens": found})

    async def _answer(self, request: web.Request, endpoint: str) -> Answer:
        """Answer and bill a call, or raise Refusal."""
        body, at = await request.read(), self._world.clock.now()
        asked = _asked(body)
        model = request.match_info.get("model") or str(asked.get("model"))
        refuse = self._world.faults.take(RefuseRealtime, self._provider, model)
        if refuse is not None:
            raise refusal_of(refuse)
        marker = self._world.markers.find(body, "realtime")
        if marker is not None and marker.status is not None:
            found: Answer | Problem = Problem(
                marker.status, None, "This request asked the sandbox to fail it."
            )
        else:
            named = msgspec.json.encode({**asked, "model": model})
            found = aws_answers.perform(endpoint, named, int(at))
        self._bill(endpoint, model, found, at)
        if isinstance(found, Problem):
            raise Refusal(found.status, found.message, code=found.code)
        return found

    def _bill(self, endpoint: str, model: str, found: Answer | Problem, at: float) -> None:
        status, cost = (found.status, 0.0) if isinstance(found, Problem) else (200, _cost(found))
        call = RealtimeCall(
            provider=self._provider, endpoint=endpoint, model=model, status_code=status, cost_usd=cost, at=at
        )
        self._world.ledger.realtime(call)


def _asked(body: bytes) -> dict[str, Any]:
    try:
        return msgspec.json.decode(body, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Refusal(400, f"The request body is invalid: {error}.", code="ValidationException") from error


def _cost(found: Answer) -> float:
    return cost_usd(found.input_tokens, found.output_tokens, batch=False)


async def _stream(request: web.Request, pieces: Iterator[bytes], content_type: str) -> web.StreamResponse:
    response = web.StreamResponse(headers={REQUEST_ID: new_request_id()})
    response.content_type = content_type
    await response.prepare(request)
    for piece in pieces:
        await response.write(piece)
    await response.write_eof()
    return response
