"""Which bodies can be answers: the one or two fields that every answer of an endpoint has.

A server may return the request itself, an error object or anything else with status 200. Such a body is not kept as an
answer. Endpoints whose answers have no common field are read leniently: an object that is neither an error nor the
request is accepted.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import msgspec

from . import error_words

UNFIT: Final = "batch_answer_unfit"
"""Code of an answer whose body is none."""
UNFIT_STATUS: Final = 502
LONGEST_ANSWER_BYTES: Final = 32 * 1024 * 1024
"""Bytes of a row of results, where settings say nothing."""
LONGEST_QUOTE: Final = 300
LONGEST_ERROR: Final = 64 * 1024
"""A field of an error that is longer is not read."""
DEEPEST_TEXT: Final = 3
"""So many times over, JSON in a text is taken out of it."""

_ANSWER_FIELDS: Final[Mapping[str, frozenset[str]]] = {
    "/completions": frozenset({"choices"}),
    "/responses": frozenset({"output", "output_text"}),
    "/messages": frozenset({"content"}),
    "/embeddings": frozenset({"data", "embedding", "embeddings"}),
    "/moderations": frozenset({"results"}),
    "/classifications": frozenset({"results"}),
    "/images/generations": frozenset({"data", "images", "image", "url"}),
    "/images/edits": frozenset({"data", "images", "image", "url"}),
    "/ocr": frozenset({"pages", "document_annotation"}),
    "/conversations": frozenset({"outputs", "conversation_id"}),
    "/transcriptions": frozenset({"text", "segments", "words"}),
    "/translations": frozenset({"text", "segments", "words"}),
    "/converse": frozenset({"output", "stopReason"}),
    ":generateContent": frozenset({"candidates", "promptFeedback", "usageMetadata"}),
    ":embedContent": frozenset({"embedding", "embeddings"}),
    ":batchEmbedContents": frozenset({"embeddings", "embedding"}),
}
"""How an endpoint ends -> the fields of which each of its answers has one."""
_NEVER_EMPTY: Final = (
    "/embeddings",
    "/images/generations",
    "/images/edits",
    "/moderations",
    "/classifications",
    ":embedContent",
    ":batchEmbedContents",
)
"""Endpoints of which no answer has all of its fields empty: each request brings a vector, an image or a verdict."""
_TEXTS: Final = ("/transcriptions", "/translations")
"""Endpoints that may answer with a text."""
_REQUEST_FIELDS: Final = frozenset({"messages", "contents", "prompt", "input", "inputText", "requests"})
_GENERAL_FIELDS: Final = frozenset(
    [
        "id",
        "object",
        "created",
        "created_at",
        "status",
        "usage",
        "choices",
        "output",
        "outputs",
        "content",
        "data",
        "embedding",
        "embeddings",
        "results",
        "pages",
        "text",
        "candidates",
        "generation",
        "generations",
        "completion",
        "completions",
        "outputText",
        "images",
        "artifacts",
        "url",
        "urls",
        "video",
        "predictions",
        "message",
        "response",
        "score",
        "scores",
        "label",
        "labels",
        "answer",
        "answers",
        "embeddingsByType",
    ]
)
"""Fields that distinguish the answer of an unknown endpoint from the request that led to it."""
_ERROR_FIELDS: Final = frozenset(
    [
        *error_words.STATUS_FIELDS,
        *error_words.VOICES,
        *("type", "param", "instance", "path", "timestamp", "success", "object"),
        *("request_id", "requestId", "trace_id", "traceId", "error_code", "errorCode"),
    ]
)
"""An object that has no other fields, and one of `error_words.VOICES`, is an error."""
_PLAIN_ERRORS: Final = frozenset({"error", "errors", "fault", "detail"})
_NOTHING: Final = frozenset({b"", b"null", b"{}", b"[]", b'""', b"false", b"0"})
_NOT_DONE: Final = frozenset({"queued", "in_progress"})
"""Statuses of a Response that was not answered yet: nobody answers it once its batch is done."""
_ENDED_BADLY: Final = frozenset({"failed", "cancelled", "canceled", "error"})

_decode: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


@dataclass(frozen=True, slots=True, kw_only=True)
class Unfit:
    """Why a body cannot be an answer; its caller gets `status` and `body` instead.

    `own` = the provider itself says that the request failed: `body` is its own, with the status named or implied there.
    """

    status: int
    body: bytes
    own: bool


def unpacked(body: bytes) -> bytes:
    """Return the JSON object that a JSON text holds, else the body as it is (OGX 1.5, Mistral's failed rows)."""
    if not body.startswith(b'"'):
        return body
    try:
        inner = json.loads(body, strict=False)
        for _ in range(DEEPEST_TEXT):
            if not isinstance(inner, str):
                break
            text, inner = inner.strip(), json.loads(inner, strict=False)
            if isinstance(inner, dict):
                return text.encode()
    except (ValueError, RecursionError):
        pass
    return body


def unfit(endpoint: str, body: bytes) -> Unfit | None:
    """Return why the body of a success cannot be an answer of the endpoint; None if it can."""
    fields = _fields_of(body)
    if fields is None:
        if body.startswith(b'"') and endpoint.endswith(_TEXTS):
            return None
        fields = _only_error_in(body)
        return _no_answer(endpoint, body) if fields is None else _failure(fields)
    if _has_failed(endpoint, fields):
        return _failure(fields)
    if endpoint.endswith("/responses") and _text(fields, "status") in _NOT_DONE:
        return _no_answer(endpoint, body)
    if endpoint.endswith("/completions"):
        failed = _failed_choices(fields)
        if failed is not None:
            return failed
    if _is_answer(endpoint, fields):
        return None
    if _is_error(fields):
        return _failure(fields)
    return _failure(fields, unnamed=UNFIT_STATUS) if _says_why(fields) else _no_answer(endpoint, body)


def is_plausible(body: bytes) -> bool:
    """Return whether a body looks like an answer of some endpoint."""
    fields = _fields_of(body)
    return fields is not None and bool(fields.keys() & _GENERAL_FIELDS) and not _is_error(fields)


def _fields_of(body: bytes) -> Mapping[str, bytes] | None:
    """Return the raw fields of a JSON object; None for anything else."""
    try:
        return {name: bytes(value) for name, value in _decode(body).items()}
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass
    try:
        found = json.loads(body, strict=False)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict):
        return None
    return {name: json.dumps(value).encode() for name, value in found.items()}


def _is_answer(endpoint: str, fields: Mapping[str, bytes]) -> bool:
    for ending, wanted in _ANSWER_FIELDS.items():
        if endpoint.endswith(ending):
            found = [fields[name] for name in wanted if fields.get(name, b"null") != b"null"]
            if any(value not in _NOTHING for value in found):
                return True
            return bool(found) and not _is_error(fields) and not endpoint.endswith(_NEVER_EMPTY)
    if _is_error_of_any_endpoint(fields):
        return False
    is_line = "custom_id" in fields and "body" in fields
    is_request = bool(fields.keys() & _REQUEST_FIELDS) and not fields.keys() & _GENERAL_FIELDS
    return bool(fields) and not is_line and not is_request


def _is_error(fields: Mapping[str, bytes]) -> bool:
    return (
        fields.get("error", b"") not in _NOTHING
        or _text(fields, "object") == "error"
        or _text(fields, "type") == "error"
        or fields.get("success") == b"false"
        or fields.keys() == {"detail"}
        or "__type" in fields
    )


def _is_error_of_any_endpoint(fields: Mapping[str, bytes]) -> bool:
    """Return whether an object is an error, for endpoints whose answers are unknown."""
    if _is_error(fields):
        return True
    plain = fields.keys() & _PLAIN_ERRORS or error_words.number_of(_value(fields.get("status", b"")))
    return bool(plain) and _says_why(fields)


def _says_why(fields: Mapping[str, bytes]) -> bool:
    """Return whether an object has only fields of an error, and a message."""
    return fields.keys() <= _ERROR_FIELDS and bool(error_words.words_in(_small(fields)))


def _only_error_in(body: bytes) -> Mapping[str, bytes] | None:
    """Return the error that a list begins with, as Google's streaming endpoints send it; None for anything else."""
    if not body.startswith(b"[") or len(body) > LONGEST_ERROR:
        return None
    said = _value(body)
    first = said[0] if isinstance(said, list) and said else None
    if error_words.is_list_of_flaws(said):
        return {"detail": body}
    fields = _fields_of(json.dumps(first).encode()) if isinstance(first, dict) else None
    return fields if fields is not None and _is_error(fields) else None


def _has_failed(endpoint: str, fields: Mapping[str, bytes]) -> bool:
    """Return whether the endpoint's object, such as a Response, has a failed status."""
    if not endpoint.endswith("/responses") and any(endpoint.endswith(ending) for ending in _ANSWER_FIELDS):
        return False
    return _text(fields, "status") in _ENDED_BADLY and ("id" in fields or "object" in fields)


def _failed_choices(fields: Mapping[str, bytes]) -> Unfit | None:
    """Return the error of a chat answer in which every choice is an error, as gateways send it; None for others.

    Some of its tokens may be paid for, so that it is never tried again by itself.
    """
    if b'"error"' not in fields.get("choices", b""):
        return None
    choices = _value(fields["choices"])
    if not isinstance(choices, list) or not choices or not all(map(_is_failed_choice, choices)):
        return None
    error = choices[0].get("error")
    words = error_words.words_in(error) or "The provider ended this answer with an error and gives no reason."
    named = error_words.status_in(error) if isinstance(error, dict) else 0
    body = {"error": {"message": words, "type": "batch_error", "param": None, "code": UNFIT}}
    return Unfit(status=named or UNFIT_STATUS, body=msgspec.json.encode(body), own=False)


def _is_failed_choice(choice: object) -> bool:
    return isinstance(choice, dict) and bool(choice.get("error") or choice.get("finish_reason") == "error")


def _failure(fields: Mapping[str, bytes], unnamed: int = 500) -> Unfit:
    """Return the provider's error in the shape that SDKs read; its status is `unnamed` if the error names none."""
    outer = _small(fields)
    said = outer.get("error")
    named = (error_words.status_in(said) if isinstance(said, dict) else 0) or error_words.status_in(outer)
    if isinstance(said, dict) and error_words.as_error(said) is said:
        inner = b'{"error":%b}' % fields["error"]
    elif "__type" in fields:
        inner = msgspec.json.encode(outer)
    else:
        whole = said if isinstance(said, dict) else outer
        code = whole.get("code")
        error = {
            "message": error_words.words_in(whole) or _without_words(outer),
            "code": code if isinstance(code, str | int) else None,
            "type": "batch_error",
        }
        inner = msgspec.json.encode({"error": error})
    return Unfit(status=named or unnamed, body=inner, own=bool(named) or unnamed != UNFIT_STATUS)


def _small(fields: Mapping[str, bytes]) -> dict[str, object]:
    """Return the fields as values, without those too long for an error."""
    return {name: _value(value) for name, value in fields.items() if len(value) < LONGEST_ERROR}


def _without_words(outer: Mapping[str, object]) -> str:
    status = outer.get("status")
    told = status if isinstance(status, str) and status else "failed"
    return f"The provider reports this request as {told[:LONGEST_QUOTE]} and gives no reason."


def _no_answer(endpoint: str, body: bytes) -> Unfit:
    quote = body[:LONGEST_QUOTE].decode(errors="replace") or "it is empty"
    message = f"The provider reports success, but its answer is none of {endpoint}: {quote}"
    error = {"message": message, "type": "batch_error", "param": None, "code": UNFIT}
    return Unfit(status=UNFIT_STATUS, body=msgspec.json.encode({"error": error}), own=False)


def _text(fields: Mapping[str, bytes], name: str) -> str:
    said = _value(fields[name]) if len(fields.get(name, b"")) in range(1, LONGEST_QUOTE) else None
    return said.lower() if isinstance(said, str) else ""


def _value(raw: bytes) -> object:
    try:
        return json.loads(raw or b"null", strict=False)
    except (ValueError, RecursionError):
        return None
