"""A chat completion told as a response of `/v1/responses`, for a provider that answers all its rows as chats."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

from .. import lenient_json

INCOMPLETE: Final = {"length": "max_output_tokens", "content_filter": "content_filter"}
"""Why a chat was broken off -> why a response is incomplete."""
RETOLD: Final = frozenset({"id", "object", "created", "model", "choices", "usage"})
USAGE_RETOLD: Final = frozenset(
    {
        "prompt_tokens",
        "prompt_tokens_details",
        "completion_tokens",
        "completion_tokens_details",
        "total_tokens",
    }
)


def as_response(body: bytes) -> bytes:
    """Return a chat completion as a response, with everything it holds; any other body is returned unchanged.

    Fields that only the request could supply, such as its tools, are left out. Raises `ValueError` or `RecursionError`
    for a body that is not JSON.
    """
    chat: Any = lenient_json.decoded(body, object)
    choices = chat.get("choices") if isinstance(chat, dict) else None
    if not isinstance(choices, list) or not all(isinstance(one, dict) for one in choices):
        return body
    chat_id = chat.get("id") if isinstance(chat.get("id"), str) else "unknown"
    broken_off = next((INCOMPLETE[one["finish_reason"]] for one in choices if _broken_off(one)), None)
    response = {
        "id": chat_id,
        "object": "response",
        "created_at": chat.get("created"),
        "status": "completed" if broken_off is None else "incomplete",
        "error": None,
        "incomplete_details": None if broken_off is None else {"reason": broken_off},
        "model": chat.get("model"),
        "output": [item for number, one in enumerate(choices) for item in _items(chat_id, number, one)],
        "usage": _usage(chat.get("usage")),
        **{name: value for name, value in chat.items() if name not in RETOLD},
    }
    return msgspec.json.encode(response)


def _broken_off(choice: Mapping[str, Any]) -> bool:
    reason = choice.get("finish_reason")
    return isinstance(reason, str) and reason in INCOMPLETE


def _items(chat_id: str, number: int, choice: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield what a model thought, said and called, in this order."""
    message = choice.get("message")
    if not isinstance(message, dict):
        return
    mark = f"{chat_id}-{number}"
    status = "incomplete" if _broken_off(choice) else "completed"
    thought = message.get("reasoning_content")
    if isinstance(thought, str) and thought:
        summary = [{"type": "summary_text", "text": thought}]
        yield {"type": "reasoning", "id": f"rs_{mark}", "summary": summary, "status": status}
    content: list[dict[str, Any]] = []
    if isinstance(message.get("content"), str) and message["content"]:
        text = message["content"]
        content.append({"type": "output_text", "text": text, "annotations": [], "logprobs": []})
    if isinstance(message.get("refusal"), str) and message["refusal"]:
        content.append({"type": "refusal", "refusal": message["refusal"]})
    calls = [call for call in message.get("tool_calls") or () if isinstance(call, dict)]
    if content or not calls:
        yield {
            "type": "message",
            "id": f"msg_{mark}",
            "status": status,
            "role": "assistant",
            "content": content,
        }
    for call in calls:
        function = call.get("function")
        named = function if isinstance(function, dict) else {}
        yield {
            "type": "function_call",
            "id": f"fc_{call.get('id')}",
            "call_id": call.get("id"),
            "name": named.get("name"),
            "arguments": named.get("arguments"),
            "status": "completed",
        }


def _usage(usage: object) -> dict[str, Any] | None:
    """Return the usage as a response's: its output includes the reasoning tokens, which a chat counts separately."""
    if not isinstance(usage, dict):
        return None
    cached = _count(usage.get("prompt_tokens_details"), "cached_tokens")
    reasoning = _count(usage.get("completion_tokens_details"), "reasoning_tokens")
    n_in, n_out = _count(usage, "prompt_tokens"), _count(usage, "completion_tokens") + reasoning
    return {
        "input_tokens": n_in,
        "input_tokens_details": {"cached_tokens": cached},
        "output_tokens": n_out,
        "output_tokens_details": {"reasoning_tokens": reasoning},
        "total_tokens": _count(usage, "total_tokens") or n_in + n_out,
        **{name: value for name, value in usage.items() if name not in USAGE_RETOLD},
    }


def _count(said: object, name: str) -> int:
    value = said.get(name) if isinstance(said, dict) else None
    return value if isinstance(value, int) else 0
