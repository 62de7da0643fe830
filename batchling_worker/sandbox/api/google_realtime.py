"""Realtime calls of Google's APIs: answered at once, billed at full price, in one piece or as a stream."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
from aiohttp import web

from ..answers import google_answers
from ..answers.answers import Answer, Problem
from ..batches.dialect import Refusal
from ..world import faults
from ..world.ledger import RealtimeCall, cost_usd
from ..world.world import World
from .gate import json_reply, new_request_id, refusal_of

STREAM = "streamGenerateContent"
COUNT = "countTokens"
COMPUTE = "computeTokens"
"""Vertex alone offers it."""
VERBS = google_answers.VERBS | {STREAM, COUNT}


class GoogleRealtime:
    """Answers realtime calls of one provider's models."""

    def __init__(self, world: World, provider: str) -> None:
        self._world = world
        self._provider = provider

    async def answer(self, request: web.Request, model: str, verb: str) -> web.StreamResponse:
        """Answer one call of a model's verb; raise Refusal if it fails."""
        if verb in (COUNT, COMPUTE):
            return self._count(await request.read(), model, verb)
        endpoint = google_answers.GENERATE if verb == STREAM else verb
        created = self._world.clock.now()
        found = self._perform(endpoint, model, await request.read(), int(created))
        self._bill(endpoint, model, found, created)
        if isinstance(found, Problem):
            raise Refusal(found.status, found.message, code=found.code)
        return await _stream(request, found) if verb == STREAM else json_reply(found.body)

    def _count(self, body: bytes, model: str, verb: str) -> web.StreamResponse:
        """Answer a call that counts tokens, which costs nothing."""
        try:
            asked = msgspec.json.decode(body, type=dict[str, Any])
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise Refusal(400, f"Invalid JSON payload received. {error}.") from error
        if not google_answers.knows(model):
            raise Refusal(404, f"models/{model} is not found for API version v1.")
        count = google_answers.tokens_info if verb == COMPUTE else google_answers.token_count
        return json_reply(count(asked))

    def _perform(self, endpoint: str, model: str, body: bytes, created: int) -> Answer | Problem:
        refuse = self._world.faults.take(faults.RefuseRealtime, self._provider, model)
        if refuse is not None:
            raise refusal_of(refuse)
        marker = self._world.markers.find(body, "realtime")
        if marker is not None and marker.status is not None:
            return Problem(marker.status, None, "This request asked the sandbox to fail it.")
        try:
            asked = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            return Problem(400, None, f"Invalid JSON payload received. {error}.")
        named = {**asked, "model": msgspec.Raw(msgspec.json.encode(model))}
        return google_answers.perform(endpoint, msgspec.json.encode(named), created)

    def _bill(self, endpoint: str, model: str, found: Answer | Problem, at: float) -> None:
        if isinstance(found, Problem):
            status, cost = found.status, 0.0
        else:
            status, cost = 200, cost_usd(found.input_tokens, found.output_tokens, batch=False)
        call = RealtimeCall(
            provider=self._provider, endpoint=endpoint, model=model, status_code=status, cost_usd=cost, at=at
        )
        self._world.ledger.realtime(call)


async def _stream(request: web.Request, found: Answer) -> web.StreamResponse:
    response = web.StreamResponse(headers={"x-request-id": new_request_id(), "Cache-Control": "no-cache"})
    response.content_type = "text/event-stream"
    await response.prepare(request)
    for event in _events(found):
        await response.write(b"data: " + msgspec.json.encode(event) + b"\r\n\r\n")
    await response.write_eof()
    return response


def _events(found: Answer) -> Iterator[dict[str, object]]:
    [part] = found.body["candidates"][0]["content"]["parts"]
    words = part["text"].split(" ")
    for at, word in enumerate(words):
        last = at == len(words) - 1
        text = word if last else f"{word} "
        candidate = {"content": {"parts": [{"text": text}], "role": "model"}, "index": 0}
        yield {**found.body, "candidates": [{**candidate, **({"finishReason": "STOP"} if last else {})}]}
