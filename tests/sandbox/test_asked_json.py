"""Prompts that ask for JSON in words get JSON answers, as from a model, because frameworks parse them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from batchling_worker.sandbox.answers import answers, google_answers
from batchling_worker.sandbox.providers import anthropic

SCHEMA = {"type": "object", "properties": {"score": {"type": "integer"}, "why": {"type": "string"}}}


def _reply(*messages: tuple[str, str], **more: Any) -> str:
    said = [answers.Message(role=role, content=text) for role, text in messages]
    return answers.reply(answers.Ask(model="m", messages=said, **more))


@pytest.mark.parametrize(
    ("prompt", "answer"),
    [
        (
            'Judge it and return a JSON object.\nParameters: {"name": 1}\n**Example JSON:**\n{"score": 7}\nJSON:',
            {"score": 7},
        ),
        (
            'Only return in JSON format.\nExpected JSON format:\n{"verdicts": [{"reason": <why>, "verdict": "no"}]}',
            {"verdicts": [{"reason": "why", "verdict": "no"}]},
        ),
        ('Example text: a\n{"statements": ["b"]}\nOnly return valid JSON.\nText: c', {"statements": ["b"]}),
        ('Answer in JSON.\nInput: none\nLike this: {"a": 1}\nnot this: {"b": 1}', {"a": 1}),
        (
            "Return the output in a JSON format that complies with this schema: "
            + json.dumps(SCHEMA)
            + '\nInput: {"a": 1}\nOutput: ',
            {"score": 1, "why": "Return the output in a JSON format that complies with this s"},
        ),
    ],
)
def test_an_example_or_a_schema_in_the_prompt_is_followed(prompt: str, answer: dict[str, Any]) -> None:
    given = json.loads(_reply(("user", prompt)))

    if "why" in given:
        given["why"] = given["why"].partition(" …")[0]
    assert given == answer


@pytest.mark.parametrize(
    "prompt",
    [
        "Explain the word JSON in one sentence.",
        'What does {"a": 1} mean?',
        "Return JSON, please.",
        'Return JSON like {"a": }',
        "{" * 5000 + " as JSON",
    ],
)
def test_without_an_example_or_a_request_the_answer_is_text(prompt: str) -> None:
    with pytest.raises(ValueError, match="Expecting value"):
        json.loads(_reply(("user", prompt)))


def test_a_system_prompt_counts_and_an_earlier_turn_does_not() -> None:
    asks = 'Always answer as JSON: {"mood": "good"}'

    assert json.loads(_reply(("system", asks), ("user", "How are you?"))) == {"mood": "good"}
    assert "Asked:" in _reply(("user", asks), ("assistant", "{}"), ("user", "And now in words."))


def test_a_schema_of_the_request_comes_first_and_json_mode_follows_the_prompt() -> None:
    asks = ("user", 'Answer as JSON: {"mood": "good"}')
    strict = {"type": "json_schema", "json_schema": {"schema": SCHEMA}}

    assert set(json.loads(_reply(asks, response_format=strict))) == {"score", "why"}
    assert json.loads(_reply(asks, response_format={"type": "json_object"})) == {"mood": "good"}
    assert set(json.loads(_reply(("user", "hi"), response_format={"type": "json_object"}))) == {"answer"}


def test_the_answers_of_rounds_do_not_grow() -> None:
    strict = {"type": "json_schema", "json_schema": {"schema": SCHEMA}}
    prompt = "word " * 1000
    for _ in range(3):
        prompt = _reply(("user", prompt * 3), response_format=strict)

    assert len(prompt) < 200


def test_other_apis_find_it_in_their_system_prompts() -> None:
    asks = 'Always answer as JSON: {"mood": "good"}'
    message = {"model": "m", "max_tokens": 9, "system": asks, "messages": [{"role": "user", "content": "Hi"}]}
    said = anthropic.perform("/v1/messages", json.dumps(message).encode(), 0)
    content = {
        "model": "models/gemini-2.5-flash",
        "contents": [{"parts": [{"text": "Hi"}]}],
        "systemInstruction": {"parts": [{"text": asks}]},
        "generationConfig": {"responseMimeType": "application/json"},
    }
    generated = google_answers.perform("models/m:generateContent", json.dumps(content).encode(), 0)

    assert isinstance(said, answers.Answer)
    assert json.loads(said.body["content"][0]["text"]) == {"mood": "good"}
    assert isinstance(generated, answers.Answer)
    assert json.loads(generated.body["candidates"][0]["content"]["parts"][0]["text"]) == {"mood": "good"}
