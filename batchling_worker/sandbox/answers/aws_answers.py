"""Answers of Bedrock's models, in the shape of Anthropic, Converse or OpenAI, or in a plain one."""

from __future__ import annotations

import base64
import binascii
import secrets
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from . import answers, message_events, streams
from .answers import Answer, Ask, Message, Part, Problem

CONVERSE: Final = "/converse"
INVOKE: Final = "/invoke"
CHAT: Final = "/openai/v1/chat/completions"
_encode = msgspec.json.encode


def perform(endpoint: str, body: bytes | msgspec.Raw, created: int) -> Answer | Problem:
    """Answer a request, which names its model."""
    try:
        asked = msgspec.json.decode(body, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        return Problem(400, "ValidationException", f"The request body is invalid: {error}.")
    messages = asked.get("messages")
    if endpoint == CONVERSE or messages:
        if not isinstance(messages, list) or not messages:
            return Problem(400, "ValidationException", "The request has no messages.")
        ask = Ask(model=str(asked.get("model")), messages=[_message(one) for one in messages])
    else:
        prompt = asked.get("prompt") or asked.get("inputText") or _encode(asked).decode()
        ask = Ask(model=str(asked.get("model")), prompt=prompt)
    if ask.model.startswith(answers.UNKNOWN_MODEL_PREFIX):
        return Problem(400, "ValidationException", "The provided model identifier is invalid.")
    if "openai." in ask.model and endpoint != CONVERSE:
        return answers.perform("/v1/chat/completions", body, created)
    text = answers.reply(ask)
    n_in, n_out = answers.tokens(answers.question(ask)), answers.tokens(text)
    if endpoint == CONVERSE:
        return Answer(_converse(text, n_in, n_out), n_in, n_out)
    return Answer(_anthropic(ask.model, text, n_in, n_out) if messages else _plain(text), n_in, n_out)


def count(body: bytes, model: str) -> int | Problem:
    """Return the input tokens of a count call, whose input is a Converse request or an invocation body."""
    try:
        asked = msgspec.json.decode(body, type=dict[str, dict[str, Any]]).get("input", {})
        if "invokeModel" in asked:
            raw = base64.b64decode(asked["invokeModel"]["body"], validate=True)
            found = perform(INVOKE, _named(raw, model), 0)
        else:
            found = perform(CONVERSE, _encode({**asked["converse"], "model": model}), 0)
    except (msgspec.DecodeError, UnicodeDecodeError, binascii.Error, KeyError, TypeError) as error:
        return Problem(400, "ValidationException", f"The input is invalid: {error}.")
    return found if isinstance(found, Problem) else found.input_tokens


def converse_events(body: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the kind and payload of each event of a Converse answer."""
    message = body["output"]["message"]
    yield "messageStart", {"role": message["role"]}
    for number, block in enumerate(message["content"]):
        for word in streams.words(block["text"]):
            yield "contentBlockDelta", {"contentBlockIndex": number, "delta": {"text": word}}
        yield "contentBlockStop", {"contentBlockIndex": number}
    yield "messageStop", {"stopReason": body["stopReason"]}
    yield "metadata", {"usage": body["usage"], "metrics": body["metrics"]}


def invoke_events(body: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the events of an invocation's answer: chunks in the model's own shape."""
    for chunk in _chunks(body):
        yield "chunk", {"bytes": base64.b64encode(_encode(chunk)).decode()}


def _chunks(body: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if body.get("type") == "message":
        usage = body["usage"]
        metrics = {
            "inputTokenCount": usage["input_tokens"],
            "outputTokenCount": usage["output_tokens"],
            "invocationLatency": 100,
            "firstByteLatency": 50,
        }
        for event in message_events.events(body):
            last = event["type"] == "message_stop"
            yield {**event, **({"amazon-bedrock-invocationMetrics": metrics} if last else {})}
    elif "choices" in body:
        for sent in streams.EVENTS["/v1/chat/completions"](body):
            data = sent.removeprefix(b"data: ").strip()
            if data != b"[DONE]":
                yield msgspec.json.decode(data)
    else:
        yield body


def _named(body: bytes, model: str) -> bytes:
    return _encode({**msgspec.json.decode(body, type=dict[str, Any]), "model": model})


def _message(said: Any) -> Message:
    content = said.get("content") if isinstance(said, dict) else None
    if isinstance(content, list):
        content = [Part(text=part.get("text")) for part in content if isinstance(part, dict)]
    return Message(content=content if isinstance(content, str | list) else "")


def _converse(text: str, n_in: int, n_out: int) -> dict[str, Any]:
    return {
        "output": {"message": {"role": "assistant", "content": [{"text": text}]}},
        "stopReason": "end_turn",
        "usage": {"inputTokens": n_in, "outputTokens": n_out, "totalTokens": n_in + n_out},
        "metrics": {"latencyMs": 100},
    }


def _anthropic(model: str, text: str, n_in: int, n_out: int) -> dict[str, Any]:
    return {
        "id": f"msg_bdrk_{secrets.token_hex(12)}",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [{"type": "text", "text": text}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": n_in, "output_tokens": n_out},
    }


def _plain(text: str) -> dict[str, Any]:
    return {"outputs": [{"text": text, "stop_reason": "stop"}]}
