"""The events of a streamed message of Anthropic's models, wherever they are served."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from . import streams


def events(message: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the events that make up a message, each with its `type`."""
    [block] = message["content"]
    usage = message["usage"]
    nothing: dict[str, Any] = {"text": ""} if block["type"] == "text" else {"input": {}}
    opened = {**message, "content": [], "stop_reason": None, "usage": {**usage, "output_tokens": 1}}
    yield {"type": "message_start", "message": opened}
    yield {"type": "content_block_start", "index": 0, "content_block": {**block, **nothing}}
    for delta in _deltas(block):
        yield {"type": "content_block_delta", "index": 0, "delta": delta}
    yield {"type": "content_block_stop", "index": 0}
    stop = {"stop_reason": message["stop_reason"], "stop_sequence": None}
    yield {"type": "message_delta", "delta": stop, "usage": {"output_tokens": usage["output_tokens"]}}
    yield {"type": "message_stop"}


def _deltas(block: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if block["type"] == "text":
        for word in streams.words(block["text"]):
            yield {"type": "text_delta", "text": word}
    else:
        given = msgspec.json.encode(block["input"]).decode()
        yield {"type": "input_json_delta", "partial_json": given}
