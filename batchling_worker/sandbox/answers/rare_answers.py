"""Answers of endpoints that OpenAI lacks or shapes differently: fill-in-the-middle, OCR, moderation, conversations."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

import msgspec

from . import answers, speech
from .answers import Answer, Ask, Problem


class _Asked(msgspec.Struct, frozen=True):
    """The fields of these endpoints that an answer depends on."""

    model: str = ""
    prompt: Any = None
    input: Any = None
    inputs: Any = None
    document: Any = None
    file_url: Any = None
    file: Any = None

    @property
    def parts(self) -> tuple[Any, ...]:
        """Return the fields that may hold the subject, in order of precedence."""
        return (self.prompt, self.input, self.inputs, self.document, self.file_url, self.file)


class _Given(NamedTuple):
    """The values that an answer is built from."""

    model: str
    said: Any
    text: str
    usage: dict[str, int]
    created: int


_asked_decoder = msgspec.json.Decoder(_Asked)


def _fim(given: _Given) -> dict[str, Any]:
    message = {"role": "assistant", "content": given.text, "tool_calls": None}
    return {
        "id": f"fim-{given.created}",
        "object": "chat.completion",
        "created": given.created,
        "model": given.model,
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": given.usage,
    }


def _moderation(given: _Given) -> dict[str, Any]:
    names = ("sexual", "hate_and_discrimination", "violence_and_threats", "pii")
    verdict = {"categories": dict.fromkeys(names, False), "category_scores": dict.fromkeys(names, 0.0001)}
    return _judged(given, verdict)


def _classification(given: _Given) -> dict[str, Any]:
    return _judged(given, {"label": {"scores": {"yes": 0.9, "no": 0.1}}})


def _judged(given: _Given, verdict: dict[str, Any]) -> dict[str, Any]:
    # An input may hold many texts; one chat is itself a list, and many chats are a list of lists.
    many = isinstance(given.said, list) and given.said and isinstance(given.said[0], list | str)
    return {
        "id": f"mod-{given.created}",
        "model": given.model,
        "results": [verdict] * (len(given.said) if many else 1),
        "usage": given.usage,
    }


def _ocr(given: _Given) -> dict[str, Any]:
    page = {"index": 0, "markdown": given.text, "images": [], "dimensions": None}
    used = {"pages_processed": 1, "doc_size_bytes": None}
    return {"model": given.model, "pages": [page], "usage_info": used}


def _conversation(given: _Given) -> dict[str, Any]:
    output = {
        "object": "entry",
        "type": "message.output",
        "id": f"msg_{given.created}",
        "role": "assistant",
        "model": given.model,
        "content": given.text,
    }
    return {
        "object": "conversation.response",
        "conversation_id": f"conv_{given.created}",
        "outputs": [output],
        "usage": given.usage,
    }


def _transcription(given: _Given) -> dict[str, Any]:
    return {
        "model": given.model,
        "text": given.text,
        "language": None,
        "segments": [],
        "usage": given.usage,
    }


def _speech(given: _Given) -> dict[str, Any]:
    return {"audio_data": base64.b64encode(speech.sound(str(given.said), "mp3")).decode()}


ENDPOINTS: Final[Mapping[str, Callable[[_Given], dict[str, Any]]]] = {
    "/v1/fim/completions": _fim,
    "/v1/moderations": _moderation,
    "/v1/chat/moderations": _moderation,
    "/v1/classifications": _classification,
    "/v1/chat/classifications": _classification,
    "/v1/ocr": _ocr,
    "/v1/conversations": _conversation,
    "/v1/audio/transcriptions": _transcription,
    "/v1/audio/speech": _speech,
}


def perform(endpoint: str, body: bytes | msgspec.Raw, created: int) -> Answer | Problem:
    """Answer these endpoints, and all others as `answers` does."""
    try:
        asked = _asked_decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        return Problem(422, None, f"The request body is invalid: {error}.")
    if endpoint not in ENDPOINTS:
        found = answers.perform(endpoint, body, created)
        if isinstance(found, Answer):
            found.body.setdefault("id", f"sandbox-{created}")
        return found
    if not asked.model or asked.model.startswith(answers.UNKNOWN_MODEL_PREFIX):
        return Problem(400, None, f"Invalid model: {asked.model}")
    said = next((part for part in asked.parts if part is not None), "")
    ask = Ask(model=asked.model, input=said)
    text = answers.reply(ask)
    n_in, n_out = answers.tokens(answers.question(ask)), answers.tokens(text)
    usage = {"prompt_tokens": n_in, "completion_tokens": n_out, "total_tokens": n_in + n_out}
    given = _Given(model=asked.model, said=said, text=text, usage=usage, created=created)
    return Answer(ENDPOINTS[endpoint](given), n_in, n_out)
