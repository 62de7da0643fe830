"""A stream made of a finished answer is what the provider's own would be: the official SDKs get all of it."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from typing import Any, Final

import anthropic
import groq
import openai
import pytest
from anthropic.types import RawMessageStreamEvent
from openai.types.chat import ChatCompletionChunk
from openai.types.responses import ResponseStreamEvent
from pydantic import TypeAdapter

from batchling_client import batchify
from batchling_client.block.run import handler_of
from batchling_client.errors import WrongSettings
from batchling_client.intercept.interceptor import PASS_THROUGH, HttpCall, HttpReply, PassThrough
from batchling_client.session import sse
from batchling_client.session.calls import Calls
from batchling_client.session.lanes import Terms
from batchling_client.wire.ids import new_run_id
from batchling_client.wire.routes import Routes
from tests.interceptors.fakes import FakeHandler, process_block, task_block

from .answerer import Answerer, Asked, completion
from .asking import PATH, a_call, ask, content

ASK: Final[dict[str, Any]] = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
LINGER_S: Final = 0.05
USAGE: Final = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}


def chat(*messages: dict[str, Any], **fields: Any) -> dict[str, Any]:
    choices = [
        {
            "index": index,
            "finish_reason": "tool_calls" if "tool_calls" in message else "stop",
            "logprobs": {"content": [LOGPROB], "refusal": None} if "content" in message else None,
            "message": {"role": "assistant", "content": None, "refusal": None, **message},
        }
        for index, message in enumerate(messages)
    ]
    head = {"id": "chatcmpl-1", "object": "chat.completion", "created": 7, "model": "m-1"}
    return {**head, "system_fingerprint": "fp", "choices": choices, "usage": USAGE, **fields}


LOGPROB: Final = {"token": "a", "bytes": [97], "logprob": -0.5, "top_logprobs": []}
CALLS: Final = [
    {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Oslo"}'}},
    {"id": "call_2", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Bergen"}'}},
]
CHATS: Final[dict[str, Any]] = {
    "text": chat({"content": "Grüß Gott\n\ndata: [DONE]\r\n\u2028end"}),
    "several": chat({"content": "one"}, {"content": "two"}, {"refusal": "no"}),
    "tools": chat({"tool_calls": CALLS}),
    "text and tools": chat({"content": "Let me see.", "tool_calls": CALLS}),
    "refusal": chat({"refusal": "I cannot."}),
    "empty": chat({"content": ""}),
}

RESPONSE: Final[dict[str, Any]] = {
    "id": "resp_1",
    "object": "response",
    "created_at": 1.0,
    "status": "completed",
    "model": "m-1",
    "error": None,
    "incomplete_details": None,
    "instructions": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "temperature": 1.0,
    "tool_choice": "auto",
    "tools": [],
    "top_p": 1.0,
    "output": [
        {
            "id": "rs_1",
            "type": "reasoning",
            "summary": [{"type": "summary_text", "text": "Think"}, {"type": "summary_text", "text": "more"}],
            "content": [{"type": "reasoning_text", "text": "deep"}],
        },
        {
            "id": "ws_1",
            "type": "web_search_call",
            "status": "completed",
            "action": {"type": "search", "query": "q"},
        },
        {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "status": "completed",
            "content": [
                {
                    "type": "output_text",
                    "text": "Hello",
                    "logprobs": [],
                    "annotations": [
                        {
                            "type": "url_citation",
                            "start_index": 0,
                            "end_index": 5,
                            "title": "t",
                            "url": "https://u",
                        }
                    ],
                },
                {"type": "refusal", "refusal": "Not that"},
            ],
        },
        {
            "id": "fc_1",
            "type": "function_call",
            "status": "completed",
            "call_id": "call_1",
            "name": "weather",
            "arguments": '{"city":"Oslo"}',
        },
        {"id": "ct_1", "type": "custom_tool_call", "call_id": "call_2", "name": "code", "input": "print(1)"},
    ],
    "usage": {
        "input_tokens": 1,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": 2,
        "output_tokens_details": {"reasoning_tokens": 1},
        "total_tokens": 3,
    },
}

MESSAGE: Final[dict[str, Any]] = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "claude",
    "content": [
        {"type": "thinking", "thinking": "Hm.", "signature": "sig=="},
        {"type": "redacted_thinking", "data": "xyz"},
        {
            "type": "text",
            "text": "Grüß Gott",
            "citations": [
                {
                    "type": "char_location",
                    "cited_text": "c",
                    "document_index": 0,
                    "document_title": None,
                    "start_char_index": 0,
                    "end_char_index": 1,
                    "file_id": None,
                }
            ],
        },
        {"type": "text", "text": "plain", "citations": None},
        {"type": "server_tool_use", "id": "srv_1", "name": "web_search", "input": {"query": "q"}},
        {"type": "web_search_tool_result", "tool_use_id": "srv_1", "content": []},
        {"type": "tool_use", "id": "tool_1", "name": "weather", "input": {"city": "Oslo", "n": [1, None]}},
        {"type": "tool_use", "id": "tool_2", "name": "now", "input": {}},
    ],
    "stop_reason": "tool_use",
    "stop_sequence": None,
    "usage": {"input_tokens": 3, "output_tokens": 9, "cache_read_input_tokens": 2, "service_tier": "batch"},
}


class Streaming(FakeHandler):
    """Answers as a run with stream="batch" would, out of one whole answer."""

    def __init__(self, answer: dict[str, Any], status: int = 200) -> None:
        headers = {"content-type": "application/json", "x-request-id": "req_1", "x-should-retry": "false"}
        super().__init__(reply=HttpReply(status=status, headers=headers, body=json.dumps(answer).encode()))

    def wants(self, method: str, host: str, path: str) -> bool:
        return method == "POST"

    def answer_blocking(self, call: HttpCall) -> HttpReply:
        streamed = sse.read(call)
        assert streamed is not None
        assert isinstance(self.reply, HttpReply)
        self.calls.append(streamed.call)
        return streamed.reply(self.reply)

    async def answer(self, call: HttpCall) -> HttpReply:
        return self.answer_blocking(call)


def told(answer: dict[str, Any], path: str, **fields: Any) -> list[dict[str, Any]]:
    """Return the events of an answer."""
    streamed = sse.read(a_call(path=path, **{**fields, "stream": True}))
    assert streamed is not None
    reply = streamed.reply(HttpReply(status=200, headers={}, body=json.dumps(answer).encode()))
    assert reply.status == 200, reply.body
    events = []
    for block in reply.body.decode().removesuffix("\n\n").split("\n\n"):
        *named, line = block.split("\n")
        assert line.startswith("data: ")
        if line == "data: [DONE]":
            continue
        event = json.loads(line[6:])
        assert named == ([f"event: {event['type']}"] if "type" in event else [])
        events.append(event)
    return events


def openai_client() -> openai.OpenAI:
    return openai.OpenAI(api_key="sk-1", base_url="http://127.0.0.1:9/v1", max_retries=0)


def anthropic_client() -> anthropic.Anthropic:
    return anthropic.Anthropic(api_key="sk-1", base_url="http://127.0.0.1:9", max_retries=0)


@pytest.mark.parametrize("usage_apart", [False, True])
@pytest.mark.parametrize("name", CHATS)
def test_every_chunk_of_a_chat_is_one_that_openai_documents(name: str, usage_apart: bool) -> None:
    chunks = told(CHATS[name], PATH, stream_options={"include_usage": usage_apart})
    for chunk in chunks:
        ChatCompletionChunk.model_validate(chunk)
        assert (chunk["id"], chunk["model"], chunk["system_fingerprint"]) == ("chatcmpl-1", "m-1", "fp")
    assert [chunk["usage"] for chunk in chunks if chunk.get("usage")] == [USAGE]
    assert all("usage" in chunk for chunk in chunks) is usage_apart
    assert (chunks[-1]["choices"] == []) is usage_apart


@pytest.mark.parametrize("name", CHATS)
def test_openai_s_helper_rebuilds_the_chat_that_was_finished(name: str) -> None:
    answer = CHATS[name]
    n = len(answer["choices"])
    with process_block(Streaming(answer)), openai_client() as client:
        ask_all_of_it: dict[str, Any] = {"n": n, "logprobs": True, "stream_options": {"include_usage": True}}
        with client.chat.completions.stream(**ASK, **ask_all_of_it) as stream:
            rebuilt = stream.get_final_completion()
    assert rebuilt.usage is not None
    assert rebuilt.usage.total_tokens == 7
    for choice, whole in zip(rebuilt.choices, answer["choices"], strict=True):
        assert choice.finish_reason == whole["finish_reason"]
        assert choice.message.role == "assistant"
        assert choice.message.content == whole["message"]["content"]
        assert choice.message.refusal == whole["message"]["refusal"]
        calls = [
            (call.id, call.function.name, call.function.arguments) for call in choice.message.tool_calls or ()
        ]
        assert calls == [
            (call["id"], call["function"]["name"], call["function"]["arguments"])
            for call in whole["message"].get("tool_calls", ())
        ]


@pytest.mark.parametrize("sdk", [openai, groq], ids=["openai", "groq"])
async def test_a_plain_stream_of_the_sdk_says_what_the_answer_says(sdk: Any) -> None:
    make = getattr(sdk, {"openai": "AsyncOpenAI", "groq": "AsyncGroq"}[sdk.__name__])
    with task_block(Streaming(CHATS["text"])):
        async with make(api_key="sk-1", base_url="http://127.0.0.1:9/v1", max_retries=0) as client:
            stream = await client.chat.completions.create(**ASK, stream=True)
            chunks = [chunk async for chunk in stream]
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert text == CHATS["text"]["choices"][0]["message"]["content"]
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert chunks[-1].usage.total_tokens == 7


def test_a_stream_has_all_thinking_before_all_text() -> None:
    answer = chat({"content": "so", "reasoning_content": "because", "audio": {"id": "a"}}, x_extra=1)
    answer["choices"][0]["content_filter_results"] = {"hate": {"filtered": False}}
    chunks = told(answer, PATH)
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert deltas[1:-1] == [{"reasoning_content": "because"}, {"audio": {"id": "a"}}, {"content": "so"}]
    assert chunks[-1]["choices"][0]["content_filter_results"]
    assert {chunk["x_extra"] for chunk in chunks} == {1}


def test_every_event_of_a_response_is_one_that_openai_documents() -> None:
    events = told(RESPONSE, "/v1/responses")
    documented: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
    for event in events:
        parsed = documented.validate_python(event)
        assert parsed.type == event["type"]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert [event["type"] for event in events][:2] == ["response.created", "response.in_progress"]
    assert events[0]["response"]["output"] == []
    assert events[-1] == {
        "type": "response.completed",
        "response": RESPONSE,
        "sequence_number": len(events) - 1,
    }


def test_openai_s_helper_rebuilds_the_response_that_was_finished() -> None:
    seen = []
    with (
        process_block(Streaming(RESPONSE)),
        openai_client() as client,
        client.responses.stream(model="m", input="hi") as stream,
    ):
        for event in stream:
            seen.append(event.type)
            if event.type == "response.output_text.done":
                assert event.text == "Hello"
        rebuilt = stream.get_final_response()
    assert rebuilt.output_text == "Hello"
    assert [entry.type for entry in rebuilt.output] == [entry["type"] for entry in RESPONSE["output"]]
    assert rebuilt.usage is not None
    assert rebuilt.usage.total_tokens == 3
    assert {"response.reasoning_summary_text.delta", "response.refusal.delta"} <= set(seen)
    assert {"response.function_call_arguments.delta", "response.custom_tool_call_input.done"} <= set(seen)


@pytest.mark.parametrize("status", ["incomplete", "failed"])
def test_a_response_that_did_not_complete_says_so_at_its_end(status: str) -> None:
    events = told({**RESPONSE, "status": status}, "/v1/responses")
    assert events[-1]["type"] == f"response.{status}"


def test_every_event_of_a_message_is_one_that_anthropic_documents() -> None:
    events = told(MESSAGE, "/v1/messages")
    documented: TypeAdapter[Any] = TypeAdapter(RawMessageStreamEvent)
    for event in events:
        parsed = documented.validate_python(event)
        assert parsed.type == event["type"]
    starts = [event["index"] for event in events if event["type"] == "content_block_start"]
    assert starts == list(range(len(MESSAGE["content"])))
    assert events[0]["message"]["content"] == []
    assert events[0]["message"]["stop_reason"] is None


def test_anthropic_s_helper_rebuilds_the_message_that_was_finished() -> None:
    with (
        process_block(Streaming(MESSAGE)),
        anthropic_client() as client,
        client.messages.stream(**ASK, max_tokens=5) as stream,
    ):
        text = "".join(stream.text_stream)
        rebuilt = stream.get_final_message()
    assert text == "Grüß Gottplain"
    assert rebuilt.to_dict(exclude_none=True) == _without_none(MESSAGE)


async def test_anthropic_s_async_helper_and_plain_stream_read_it_too() -> None:
    with task_block(Streaming(MESSAGE)):
        async with anthropic.AsyncAnthropic(api_key="sk-1", base_url="http://127.0.0.1:9") as client:
            async with client.messages.stream(**ASK, max_tokens=5) as stream:
                rebuilt = await stream.get_final_message()
            plain = await client.messages.create(**ASK, max_tokens=5, stream=True)
            events = [event.type async for event in plain]
    assert rebuilt.usage.output_tokens == 9
    assert rebuilt.stop_reason == "tool_use"
    assert events[-1] == "message_stop"


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_none(one) for name, one in value.items() if one is not None}
    return [_without_none(one) for one in value] if isinstance(value, list) else value


@pytest.mark.parametrize("ask", ["chat", "responses", "messages"])
def test_a_row_that_failed_raises_the_sdk_s_own_error_before_the_stream(ask: str) -> None:
    error = {"type": "error", "error": {"message": "no", "type": "invalid_request_error", "code": "bad"}}
    handler = Streaming(error, status=429)
    asks: dict[str, Callable[[], Any]] = {
        "chat": lambda: openai_client().chat.completions.create(**ASK, stream=True),
        "responses": lambda: openai_client().responses.create(model="m", input="hi", stream=True),
        "messages": lambda: anthropic_client().messages.create(**ASK, max_tokens=5, stream=True),
    }
    with process_block(handler), pytest.raises((openai.RateLimitError, anthropic.RateLimitError)) as raised:
        asks[ask]()
    assert "no" in str(raised.value)
    assert len(handler.calls) == 1


@pytest.mark.parametrize(
    "answer",
    [b"", b"[]", b"{}", b"null", b'{"choices": [1]}', b'{"choices": null}', b'{"choices": [{}]}'],
    ids=repr,
)
def test_an_answer_that_makes_no_stream_is_an_error(answer: bytes) -> None:
    streamed = sse.read(a_call(stream=True))
    assert streamed is not None
    reply = streamed.reply(HttpReply(status=200, headers={}, body=answer))
    assert reply.status == 502
    assert reply.headers["x-batchling-error"] == "answer_unreadable"


def test_the_row_is_the_call_without_its_stream_and_otherwise_as_it_was() -> None:
    body = b'{"model": "m", "stream" : true, "x": 1.0, "n": 1e400, "stream_options":{"include_usage":true}, "s": 2}'
    streamed = sse.read(a_call(body=body))
    assert streamed is not None
    assert streamed.call.body == b'{"model":"m","x":1.0,"n":1e400,"s":2}'


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (PATH, b'{"model": "m", "stream": false}'),
        (PATH, b'{"model": "m", "stream": null}'),
        (PATH, b'{"model": "m", "stream": "true"}'),
        (PATH, b'{"model": "m", "messages": [{"stream": true}]}'),
        (PATH, b'[{"stream": true}]'),
        (PATH, b'{"stream": true'),
        ("/v1/images/generations", b'{"model": "m", "stream": true}'),
        ("/v1/embeddings", b'{"model": "m", "stream": true}'),
    ],
)
def test_calls_without_a_stream_that_can_be_built_are_left_alone(path: str, body: bytes) -> None:
    assert sse.read(a_call(path=path, body=body)) is None


def reader(**terms: Any) -> Calls:
    return Calls(Terms(run_id=new_run_id(), run_name="", **terms), Routes())


@pytest.mark.parametrize(
    ("terms", "path", "hinted"),
    [
        ({}, "/v1/chat/completions", True),
        ({}, "/v1/images/generations", False),
        ({"stream": "batch"}, "/v1/images/generations", False),
    ],
)
def test_a_stream_that_passes_names_the_way_out_where_there_is_one(
    terms: dict[str, str], path: str, hinted: bool, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        assert reader(**terms).read(a_call(host="api.openai.com", path=path, stream=True)) is PASS_THROUGH
    assert ("stream='batch'" in caplog.text) is hinted
    assert "Leave out stream=True" in caplog.text


def test_without_the_opt_in_no_stream_is_made() -> None:
    assert reader().streamed(a_call(stream=True)) is None
    assert reader(stream="batch").streamed(a_call(stream=True)) is not None


def test_another_word_for_stream_is_refused() -> None:
    with pytest.raises(WrongSettings, match="stream is 'pass' or 'batch'"):
        batchify(stream="yes")  # type: ignore[arg-type]


async def test_a_streamed_request_and_its_twin_without_share_one_answer(answerer: Answerer) -> None:
    bodies = []

    def answer(row: Asked) -> tuple[int, bytes, str]:
        bodies.append(json.loads(row.body))
        return 200, completion("once"), "provider"

    def in_a_thread() -> HttpReply:
        with batchify(stream="batch", batch_window_seconds=LINGER_S) as run:
            reply = handler_of(run).answer_blocking(a_call(stream=True))
        assert isinstance(reply, HttpReply)
        return reply

    answerer.answer = answer
    async with batchify(stream="batch", batch_window_seconds=LINGER_S) as run:
        streamed = await ask(run, stream=True, stream_options={"include_usage": True})
    async with batchify(batch_window_seconds=LINGER_S) as run:
        whole = await ask(run)
    blocking = await asyncio.to_thread(in_a_thread)

    assert content(whole) == "once"
    for reply in (streamed, blocking):
        assert reply.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert reply.headers["x-request-id"] == "req_200"
        assert b'"content":"once"' in reply.body
    assert len(bodies) == 1
    assert not bodies[0].keys() & {"stream", "stream_options"}


async def test_a_failed_row_is_returned_as_its_error(answerer: Answerer) -> None:
    answerer.answer = lambda row: (400, b'{"error":{"message":"no"}}', "provider")
    async with batchify(stream="batch", batch_window_seconds=LINGER_S) as run:
        reply = await ask(run, stream=True)

    assert (reply.status, reply.headers["x-should-retry"]) == (400, "false")
    assert json.loads(reply.body) == {"error": {"message": "no"}}
    assert run.progress.n_failed == 1


async def test_past_its_deadline_the_call_goes_on_as_the_stream_it_asked_for(answerer: Answerer) -> None:
    answerer.go_on.clear()
    options: dict[str, Any] = {"deadline": 0.2, "on_deadline": "realtime", "batch_window_seconds": LINGER_S}
    async with batchify(stream="batch", **options) as run:
        assert isinstance(await handler_of(run).answer(a_call(stream=True)), PassThrough)
