"""A request that makes the model call a tool gets a call with valid arguments."""

from __future__ import annotations

import enum
import json
from datetime import date, datetime
from typing import Annotated, Any, Literal, TypeAlias, cast
from uuid import UUID

import pytest
from openai import AsyncOpenAI
from pydantic import BaseModel, Field, TypeAdapter

from batchling_worker.sandbox import Sandbox
from batchling_worker.sandbox.answers import answers
from batchling_worker.sandbox.answers.schema_examples import example

Body: TypeAlias = dict[str, Any]
WEATHER: Body = {
    "name": "call_faults",
    "parameters": {
        "type": "object",
        "properties": {"town": {"type": "string"}, "days": {"type": "integer"}},
        "required": ["town", "days"],
    },
}
ANSWER: Body = {
    "name": "answer",
    "parameters": {"type": "object", "properties": {"text": {"type": "string"}}},
}
CHAT_TOOLS = [{"type": "function", "function": function} for function in (WEATHER, ANSWER)]
RESPONSE_TOOLS = [{"type": "function", **function} for function in (WEATHER, ANSWER)]
QUESTION = {"role": "user", "content": "Will it rain?"}


def perform(endpoint: str, **body: Any) -> Body:
    found = answers.perform(endpoint, json.dumps({"model": "gpt-5-mini", **body}).encode(), 0)
    assert isinstance(found, answers.Answer)
    return found.body


def chat(*messages: Body, **body: Any) -> Body:
    choice: Body = perform("/v1/chat/completions", messages=list(messages), tools=CHAT_TOOLS, **body)[
        "choices"
    ][0]
    return choice


def response(*pieces: Body, **body: Any) -> Body:
    output: Body = perform("/v1/responses", input=list(pieces), tools=RESPONSE_TOOLS, **body)["output"][0]
    return output


def test_a_chat_calls_the_tool_it_must_call() -> None:
    choice = chat(QUESTION, tool_choice={"type": "function", "function": {"name": "answer"}})

    [call] = choice["message"]["tool_calls"]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] is None
    assert call["function"]["name"] == "answer"
    assert json.loads(call["function"]["arguments"]) == {"text": "Will it rain?"}


def test_a_response_calls_the_tool_it_must_call() -> None:
    output = response(QUESTION, tool_choice={"type": "function", "name": "answer"})

    assert (output["type"], output["name"], output["status"]) == ("function_call", "answer", "completed")
    assert json.loads(output["arguments"]) == {"text": "Will it rain?"}


def test_a_chat_that_must_call_any_tool_calls_the_next_one() -> None:
    first = chat(QUESTION, tool_choice="required")
    [call] = first["message"]["tool_calls"]
    given = {"role": "tool", "tool_call_id": call["id"], "content": "It rains."}
    second = chat(QUESTION, first["message"], given, tool_choice="required")

    assert call["function"]["name"] == "call_faults"
    assert second["message"]["tool_calls"][0]["function"] == {
        "name": "answer",
        "arguments": '{"text":"It rains."}',
    }


def test_a_response_that_must_call_any_tool_calls_the_next_one() -> None:
    first = response(QUESTION, tool_choice="required")
    given = {"type": "function_call_output", "call_id": first["call_id"], "output": "It rains."}
    second = response(QUESTION, first, given, tool_choice="required")

    assert first["name"] == "call_faults"
    assert (second["name"], second["arguments"]) == ("answer", '{"text":"It rains."}')


@pytest.mark.parametrize(
    "allowed",
    [
        {"type": "allowed_tools", "mode": "required", "tools": [RESPONSE_TOOLS[1]]},
        {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [CHAT_TOOLS[1]]}},
    ],
)
def test_only_allowed_tools_are_called(allowed: Body) -> None:
    assert response(QUESTION, tool_choice=allowed)["name"] == "answer"
    assert chat(QUESTION, tool_choice=allowed)["message"]["tool_calls"][0]["function"]["name"] == "answer"


@pytest.mark.parametrize(
    "choice", ["auto", "none", None, {"type": "allowed_tools", "mode": "auto", "tools": []}]
)
def test_without_a_required_tool_the_answer_is_text(choice: Any) -> None:
    assert "Will it rain?" in chat(QUESTION, tool_choice=choice)["message"]["content"]
    assert response(QUESTION, tool_choice=choice)["type"] == "message"


async def test_streams_carry_the_call_too(sandbox: Sandbox) -> None:
    async with AsyncOpenAI(api_key="key", base_url=f"{sandbox.base_url('openai')}/v1") as client:
        chat_stream = client.chat.completions.stream(
            model="gpt-5-mini",
            messages=[{"role": "user", "content": "Will it rain?"}],
            tools=cast("Any", [{"type": "function", "function": {**ANSWER, "strict": True}}]),
            tool_choice="required",
        )
        async with chat_stream as chats:
            message = (await chats.get_final_completion()).choices[0].message
        tool = {"type": "function", **ANSWER, "strict": True}
        response_stream = client.responses.stream(
            model="gpt-5-mini", input="Will it rain?", tools=cast("Any", [tool]), tool_choice="required"
        )
        async with response_stream as responses:
            item: Any = (await responses.get_final_response()).output[0]

    assert message.tool_calls is not None
    assert json.loads(message.tool_calls[0].function.arguments) == {"text": "Will it rain?"}
    assert (item.name, json.loads(item.arguments)) == ("answer", {"text": "Will it rain?"})


class Colour(enum.Enum):
    red = "red"
    blue = "blue"


class Inner(BaseModel):
    word: Annotated[str, Field(min_length=3, max_length=5)]
    next: Inner | None
    children: list[Inner]


class Wanted(BaseModel):
    colour: Colour
    kind: Literal["a", "b"]
    share: Annotated[float, Field(ge=0, lt=0.5)]
    below: Annotated[int, Field(le=-3)]
    above: Annotated[int, Field(gt=7)]
    many: Annotated[list[int], Field(min_length=2)]
    day: date
    moment: datetime
    mark: UUID
    maybe: str | None
    words: dict[str, int]
    inner: Inner


@pytest.mark.parametrize("text", ["", "a question of some length"])
def test_examples_fit_the_schemas_of_pydantic(text: str) -> None:
    TypeAdapter(Wanted).validate_python(example(Wanted.model_json_schema(), text))
