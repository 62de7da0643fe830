"""Server-sent events made of a finished answer, for a caller that asked for a stream."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, TypeAlias

import msgspec

from ..errors import AnswerUnreadable
from ..intercept.interceptor import HttpCall, HttpReply
from . import replies

Fields: TypeAlias = Mapping[str, Any]
Event: TypeAlias = dict[str, Any]

_decode_raw: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode: Final = msgspec.json.Decoder().decode
_encode: Final = msgspec.json.Encoder().encode

_UNTELLABLE: Final = (
    "The stored answer to this request cannot be returned as a stream. Send the call without stream=True."
)
_STREAM_OPTIONS: Final = ("stream", "stream_options")


@dataclass(frozen=True, slots=True, kw_only=True)
class Streamed:
    """A call for a streamed answer, read as the call for the whole answer that a batch can give."""

    call: HttpCall
    _events: Callable[[Any, bool], Iterator[bytes]]
    _usage_apart: bool

    def reply(self, reply: HttpReply) -> HttpReply:
        """Return the whole answer as a stream; an error unchanged, which an SDK reads before it reads events."""
        if reply.status >= 400:
            return reply
        try:
            body = b"".join(self._events(_decode(reply.body), self._usage_apart))
        except (AttributeError, KeyError, TypeError, ValueError):
            return replies.of_error(AnswerUnreadable, status=502, sentence=_UNTELLABLE)
        headers = {name: value for name, value in reply.headers.items() if name.lower() != "content-type"}
        headers["content-type"] = "text/event-stream; charset=utf-8"
        return HttpReply(status=reply.status, headers=headers, body=body)


def read(call: HttpCall) -> Streamed | None:
    """Return the call without its stream option; None if it asks for no stream, or the stream could not be built."""
    events = next((events for ending, events in _EVENTS.items() if call.path.endswith(ending)), None)
    if events is None or b'"stream"' not in call.body:
        return None
    try:
        fields = _decode_raw(call.body)
        options = _decode(fields.get("stream_options", b"null"))
    except (ValueError, RecursionError):
        return None
    if bytes(fields.get("stream", b"")) != b"true":
        return None
    # The other values keep their bytes.
    body = _encode({name: value for name, value in fields.items() if name not in _STREAM_OPTIONS})
    usage_apart = isinstance(options, dict) and options.get("include_usage") is True
    return Streamed(call=replace(call, body=body), _events=events, _usage_apart=usage_apart)


def _chat(answer: Event, usage_apart: bool) -> Iterator[bytes]:
    usage = answer.pop("usage", None)
    choices = answer.pop("choices")
    opening = {**answer, "object": "chat.completion.chunk"}
    if usage_apart:
        opening["usage"] = None
    for number, choice in enumerate(choices, 1):
        *parts, end = _choice(choice)
        for part in parts:
            yield _line({**opening, "choices": [part]})
        # Providers without `stream_options` send the usage here.
        is_last = number == len(choices)
        counted = {"usage": usage} if is_last and usage is not None and not usage_apart else {}
        yield _line({**opening, "choices": [end], **counted})
    if usage_apart:
        yield _line({**opening, "choices": [], "usage": usage})
    yield b"data: [DONE]\n\n"


def _choice(choice: Event) -> Iterator[Event]:
    """Yield the chunks of one choice; the last chunk says why it ended."""
    message = choice.pop("message")
    logprobs = choice.pop("logprobs", None)
    blank = {"index": choice.get("index", 0), "delta": {}, "logprobs": None, "finish_reason": None}
    content = None if message.get("content") is None else ""
    yield {**blank, "delta": {"role": message.get("role", "assistant"), "content": content}}
    for delta in _deltas(message):
        event = {**blank, "delta": delta}
        if logprobs is not None and delta.keys() & {"content", "refusal"}:
            event["logprobs"], logprobs = logprobs, None
        yield event
    yield {**blank, **choice, "logprobs": logprobs, "delta": {}}


def _deltas(message: Fields) -> Iterator[Event]:
    spoken = ("content", "refusal", "function_call", "tool_calls")
    # A model's reasoning comes before its text.
    for name in (*(name for name in message if name not in spoken), *spoken):
        value = message.get(name)
        if not value or name == "role":
            continue
        if name != "tool_calls":
            yield {name: value}
            continue
        for index, call in enumerate(value):
            function = call.get("function")
            if not function:
                yield {name: [{"index": index, **call}]}
                continue
            yield {name: [{"index": index, **call, "function": {**function, "arguments": ""}}]}
            yield {name: [{"index": index, "function": {"arguments": function.get("arguments", "")}}]}


_FILLED_LATER: Final = ("arguments", "content", "input", "summary")
"""What an entry of an output is without when it opens."""
_WRITTEN: Final = {
    "function_call": ("function_call_arguments", "arguments"),
    "mcp_call": ("mcp_call_arguments", "arguments"),
    "custom_tool_call": ("custom_tool_call_input", "input"),
}
"""Entries of an output that are one text: type -> name of its events, its field."""
_SPOKEN: Final = {
    "output_text": ("output_text", "text"),
    "refusal": ("refusal", "refusal"),
    "reasoning_text": ("reasoning_text", "text"),
}
"""Parts of a content: type -> name of their events, their field."""


def _response(answer: Event, _: bool) -> Iterator[bytes]:
    for number, event in enumerate(_response_events(answer)):
        yield _typed({**event, "sequence_number": number})


def _response_events(answer: Event) -> Iterator[Event]:
    unfinished: Event = {"output": [], "usage": None, "error": None, "incomplete_details": None}
    begun = {**answer, **unfinished, "status": "in_progress"}
    yield {"type": "response.created", "response": begun}
    yield {"type": "response.in_progress", "response": begun}
    for index, entry in enumerate(answer["output"]):
        empty = {
            name: type(entry[name])() for name in _FILLED_LATER if isinstance(entry.get(name), str | list)
        }
        running = {"status": "in_progress"} if entry.get("status") else {}
        yield {
            "type": "response.output_item.added",
            "output_index": index,
            "item": {**entry, **running, **empty},
        }
        where = {"item_id": entry.get("id", ""), "output_index": index}
        for kind, event in _entry_events(entry):
            yield {"type": f"response.{kind}", **where, **event}
        yield {"type": "response.output_item.done", "output_index": index, "item": entry}
    status = answer.get("status")
    ending = status if status in ("failed", "incomplete") else "completed"
    yield {"type": f"response.{ending}", "response": answer}


def _entry_events(entry: Fields) -> Iterator[tuple[str, Event]]:
    kind = entry.get("type", "")
    if kind in _WRITTEN:
        named, of = _WRITTEN[kind]
        yield f"{named}.delta", {"delta": entry[of]}
        yield f"{named}.done", {of: entry[of], **({"name": entry["name"]} if kind == "function_call" else {})}
    for index, part in enumerate(entry.get("summary") or ()):
        where = {"summary_index": index}
        yield "reasoning_summary_part.added", {**where, "part": {**part, "text": ""}}
        yield "reasoning_summary_text.delta", {**where, "delta": part["text"]}
        yield "reasoning_summary_text.done", {**where, "text": part["text"]}
        yield "reasoning_summary_part.done", {**where, "part": part}
    for index, part in enumerate(entry.get("content") or ()):
        for named, event in _part_events(part):
            yield named, {"content_index": index, **event}


def _part_events(part: Fields) -> Iterator[tuple[str, Event]]:
    named, of = _SPOKEN.get(part["type"], ("", ""))
    annotations = part.get("annotations") or ()
    empty: Event = {name: [] for name in ("annotations", "logprobs") if name in part}
    yield "content_part.added", {"part": {**part, **empty, **({of: ""} if of else {})}}
    if named:
        logprobs = {"logprobs": part.get("logprobs") or []} if named == "output_text" else {}
        yield f"{named}.delta", {"delta": part[of], **logprobs}
        for index, annotation in enumerate(annotations):
            yield "output_text.annotation.added", {"annotation_index": index, "annotation": annotation}
        yield f"{named}.done", {of: part[of], **logprobs}
    yield "content_part.done", {"part": part}


def _message(answer: Event, _: bool) -> Iterator[bytes]:
    usage = answer.get("usage") or {"output_tokens": 0}
    ended = {"stop_reason": answer.get("stop_reason"), "stop_sequence": answer.get("stop_sequence")}
    ended |= {name: answer[name] for name in ("stop_details", "container") if name in answer}
    begun = {**answer, **dict.fromkeys(ended), "content": [], "usage": {**usage, "output_tokens": 0}}
    yield _typed({"type": "message_start", "message": begun})
    for index, block in enumerate(answer["content"]):
        opening, deltas = _block(block)
        yield _typed({"type": "content_block_start", "index": index, "content_block": opening})
        for delta in deltas:
            yield _typed({"type": "content_block_delta", "index": index, "delta": delta})
        yield _typed({"type": "content_block_stop", "index": index})
    yield _typed({"type": "message_delta", "delta": ended, "usage": usage})
    yield _typed({"type": "message_stop"})


def _block(block: Event) -> tuple[Event, list[Event]]:
    """Return how a block of a message opens, and its deltas; a block of an unknown kind opens whole."""
    kind = block["type"]
    if kind == "text":
        deltas = [{"type": "text_delta", "text": block["text"]}]
        cited = block.get("citations") or ()
        deltas += [{"type": "citations_delta", "citation": citation} for citation in cited]
        return {**block, "text": "", **({"citations": []} if cited else {})}, deltas
    if kind == "thinking":
        deltas = [{"type": "thinking_delta", "thinking": block["thinking"]}]
        deltas += [{"type": "signature_delta", "signature": block.get("signature", "")}]
        return {**block, "thinking": "", "signature": ""}, deltas
    if kind.endswith("tool_use"):
        written = _encode(block.get("input", {})).decode()
        return {**block, "input": {}}, [{"type": "input_json_delta", "partial_json": written}]
    return block, []


def _line(event: Event) -> bytes:
    return b"data: " + _encode(event) + b"\n\n"


def _typed(event: Event) -> bytes:
    return b"event: %b\n%b" % (str(event["type"]).encode(), _line(event))


_EVENTS: Final[Mapping[str, Callable[[Any, bool], Iterator[bytes]]]] = {
    "/chat/completions": _chat,
    "/agents/completions": _chat,
    "/fim/completions": _chat,
    "/responses": _response,
    "/messages": _message,
}
"""Endings of paths whose answers can be returned as a stream."""
