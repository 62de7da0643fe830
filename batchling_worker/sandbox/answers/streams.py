"""Answers as server-sent events, for realtime calls with `stream`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, TypeAlias

import msgspec

Events: TypeAlias = Callable[[dict[str, Any]], Iterator[bytes]]
"""Make the server-sent events of an answer from its body."""


def words(text: str) -> list[str]:
    """Split a text into pieces, as it would be streamed."""
    first, *rest = text.split(" ")
    return [first, *(f" {word}" for word in rest)]


def sse(body: dict[str, Any], event: str | None = None) -> bytes:
    """Return one event."""
    head = f"event: {event}\n".encode() if event else b""
    return head + b"data: " + msgspec.json.encode(body) + b"\n\n"


def _chat(body: dict[str, Any]) -> Iterator[bytes]:
    head = {**_head(body), "object": "chat.completion.chunk"}
    yield sse(
        {
            **head,
            "choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}],
        }
    )
    choice = body["choices"][0]
    calls = choice["message"].get("tool_calls", ())
    deltas: list[dict[str, Any]] = [
        {"tool_calls": [{"index": place, **call}]} for place, call in enumerate(calls)
    ]
    for delta in deltas or [{"content": word} for word in words(choice["message"]["content"])]:
        yield sse({**head, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]})
    last = {"index": 0, "delta": {}, "finish_reason": choice["finish_reason"]}
    yield sse({**head, "choices": [last], "usage": body["usage"]})
    yield b"data: [DONE]\n\n"


def _completion(body: dict[str, Any]) -> Iterator[bytes]:
    head = {**_head(body), "object": "text_completion"}
    for word in words(body["choices"][0]["text"]):
        yield sse({**head, "choices": [{"index": 0, "text": word, "logprobs": None, "finish_reason": None}]})
    last = {"index": 0, "text": "", "logprobs": None, "finish_reason": "stop"}
    yield sse({**head, "choices": [last], "usage": body["usage"]})
    yield b"data: [DONE]\n\n"


def _response(body: dict[str, Any]) -> Iterator[bytes]:
    started = {**body, "status": "in_progress", "output": [], "usage": None}
    item = body["output"][0]
    events: list[dict[str, Any]] = [{"type": "response.created", "response": started}]
    events += _called(item) if item["type"] == "function_call" else _written(item)
    events.append({"type": "response.completed", "response": body})
    for number, event in enumerate(events):
        yield sse({**event, "sequence_number": number}, event["type"])


def _written(item: dict[str, Any]) -> Iterator[dict[str, Any]]:
    place = {"item_id": item["id"], "output_index": 0, "content_index": 0, "logprobs": []}
    text = item["content"][0]["text"]
    for word in words(text):
        yield {"type": "response.output_text.delta", "delta": word, **place}
    yield {"type": "response.output_text.done", "text": text, **place}


def _called(item: dict[str, Any]) -> Iterator[dict[str, Any]]:
    place = {"item_id": item["id"], "output_index": 0}
    begun = {**item, "status": "in_progress", "arguments": ""}
    yield {"type": "response.output_item.added", "output_index": 0, "item": begun}
    yield {"type": "response.function_call_arguments.delta", "delta": item["arguments"], **place}
    told = {"name": item["name"], "arguments": item["arguments"]}
    yield {"type": "response.function_call_arguments.done", **told, **place}
    yield {"type": "response.output_item.done", "output_index": 0, "item": item}


def _head(body: dict[str, Any]) -> dict[str, Any]:
    return {"id": body["id"], "created": body["created"], "model": body["model"]}


EVENTS: Final[Mapping[str, Events]] = {
    "/v1/chat/completions": _chat,
    "/v1/completions": _completion,
    "/v1/responses": _response,
}
