"""Answers of Google's models and the wording of Google's errors, shared by its two APIs."""

from __future__ import annotations

import base64
import hashlib
import zlib
from array import array
from typing import Any

import msgspec

from . import answers
from .answers import Answer, Problem

GENERATE = "generateContent"
EMBED = "embedContent"
EMBED_MANY = "batchEmbedContents"
VERBS = frozenset({GENERATE, EMBED, EMBED_MANY})

_EMBEDDING_SIZE = 64
_NAMES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    409: "ALREADY_EXISTS",
    412: "FAILED_PRECONDITION",
    429: "RESOURCE_EXHAUSTED",
    499: "CANCELLED",
    500: "INTERNAL",
    501: "UNIMPLEMENTED",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
_CODES = {
    "INVALID_ARGUMENT": 3,
    "DEADLINE_EXCEEDED": 4,
    "NOT_FOUND": 5,
    "ALREADY_EXISTS": 6,
    "PERMISSION_DENIED": 7,
    "RESOURCE_EXHAUSTED": 8,
    "FAILED_PRECONDITION": 9,
    "CANCELLED": 1,
    "UNIMPLEMENTED": 12,
    "INTERNAL": 13,
    "UNAVAILABLE": 14,
    "UNAUTHENTICATED": 16,
}


_FAMILIES = (
    "gemini-",
    "gemma-",
    "embedding-",
    "text-embedding-",
    "multimodalembedding",
    "learnlm-",
    "imagen-",
    "veo-",
)


def knows(model: str) -> bool:
    """Return whether a model of that name exists; tuned models count too."""
    return model.startswith("tunedModels/") or model.rpartition("/")[2].startswith(_FAMILIES)


def status_name(status: int) -> str:
    """Return Google's name for an HTTP status."""
    return _NAMES.get(status, "INVALID_ARGUMENT" if status < 500 else "INTERNAL")


def rpc_code(status: int) -> int:
    """Return the google.rpc code of a row with this HTTP status."""
    return _CODES[status_name(status)]


def error_body(status: int, code: str | None, message: str) -> dict[str, Any]:
    """Return the JSON body of an HTTP error; for a bad key the reason is in the details."""
    error: dict[str, Any] = {"code": status, "message": message, "status": status_name(status)}
    if code == "invalid_api_key":
        reason = {
            "@type": "type.googleapis.com/google.rpc.ErrorInfo",
            "reason": "API_KEY_INVALID",
            "domain": "googleapis.com",
        }
        error |= {"message": "API key not valid. Please pass a valid API key.", "details": [reason]}
    return {"error": error}


def perform(endpoint: str, body: bytes | msgspec.Raw, created: int) -> Answer | Problem:
    """Answer the body sent to a verb of a model; the body names the model, too."""
    try:
        asked = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        return Problem(400, None, f"Invalid JSON payload received. {error}.")
    model = asked.get("model") if isinstance(asked, dict) else None
    if not isinstance(model, str):
        return Problem(400, None, "Invalid JSON payload received.")
    if not knows(model):
        message = f"{model} is not found for API version v1, or is not supported for {endpoint}."
        return Problem(404, None, message)
    if endpoint == EMBED_MANY:
        return _embed_many(model, asked)
    return _embed(asked) if endpoint == EMBED else _generate(model, asked)


def token_count(asked: dict[str, Any]) -> dict[str, Any]:
    """Return the number of tokens in the contents, which may be those of a whole request."""
    within = _get(asked, "generateContentRequest")
    contents = (within if isinstance(within, dict) else asked).get("contents")
    texts = [_text(content) for content in contents] if isinstance(contents, list) else []
    n_tokens = sum(map(answers.tokens, texts))
    details = [{"modality": "TEXT", "tokenCount": n_tokens}]
    return {"totalTokens": n_tokens, "promptTokensDetails": details}


def tokens_info(asked: dict[str, Any]) -> dict[str, Any]:
    """Return the tokens of each content; in the sandbox a token is a word."""
    info = []
    for content in asked.get("contents") or []:
        words = _text(content).split()
        encoded = [base64.b64encode(word.encode("utf-8", "surrogatepass")).decode() for word in words]
        ids = [str(zlib.crc32(word.encode("utf-8", "surrogatepass")) % 250_000) for word in words]
        role = content.get("role", "user") if isinstance(content, dict) else "user"
        info.append({"tokens": encoded, "tokenIds": ids, "role": role})
    return {"tokensInfo": info}


def _generate(model: str, asked: dict[str, Any]) -> Answer | Problem:
    contents = asked.get("contents")
    if not isinstance(contents, list) or not contents:
        return Problem(400, None, "* GenerateContentRequest.contents: contents is not specified")
    config = _get(asked, "generationConfig") or {}
    question = _text(contents[-1])
    schema = _get(config, "responseJsonSchema") or _lowered(_get(config, "responseSchema"))
    wanted = {"type": "json_schema", "json_schema": {"schema": schema}} if schema else None
    if wanted is None and _get(config, "responseMimeType") == "application/json":
        wanted = {"type": "json_object"}
    said = [("system", _text(_get(asked, "systemInstruction"))), ("user", question)]
    messages = [answers.Message(role=role, content=content) for role, content in said]
    text = answers.reply(answers.Ask(messages=messages, response_format=wanted))
    n_candidates = max(1, _get(config, "candidateCount") or 1)
    n_in = sum(answers.tokens(_text(content)) for content in contents)
    n_out = answers.tokens(text) * n_candidates
    candidates = [
        {"content": {"parts": [{"text": text}], "role": "model"}, "finishReason": "STOP", "index": index}
        for index in range(n_candidates)
    ]
    body = {
        "candidates": candidates,
        "usageMetadata": {
            "promptTokenCount": n_in,
            "candidatesTokenCount": n_out,
            "totalTokenCount": n_in + n_out,
        },
        "modelVersion": model.rpartition("/")[2],
        "responseId": hashlib.blake2b(question.encode("utf-8", "surrogatepass"), digest_size=12).hexdigest(),
    }
    return Answer(body, n_in, n_out)


def _embed(asked: dict[str, Any]) -> Answer | Problem:
    content = asked.get("content")
    if not isinstance(content, dict):
        return Problem(400, None, "* EmbedContentRequest.content: content is not specified")
    text = _text(content)
    size = _get(asked, "outputDimensionality") or _EMBEDDING_SIZE
    noise = array("b", hashlib.shake_128(text.encode("utf-8", "surrogatepass")).digest(size))
    scale = sum(value * value for value in noise) ** 0.5 or 1.0
    return Answer({"embedding": {"values": [value / scale for value in noise]}}, answers.tokens(text), 0)


def _embed_many(model: str, asked: dict[str, Any]) -> Answer | Problem:
    embeddings, n_in = [], 0
    for one in asked.get("requests") or []:
        found = _embed(one if isinstance(one, dict) else {})
        if isinstance(found, Problem):
            return found
        embeddings.append(found.body["embedding"])
        n_in += found.input_tokens
    if not embeddings:
        return Problem(400, None, "* BatchEmbedContentsRequest.requests: requests is not specified")
    return Answer({"embeddings": embeddings}, n_in, 0)


def _text(content: object) -> str:
    parts = content.get("parts") if isinstance(content, dict) else None
    return " ".join(
        part["text"] for part in parts or [] if isinstance(part, dict) and isinstance(part.get("text"), str)
    )


def _get(said: dict[str, Any], name: str) -> Any:
    """Return a field in camel case or snake case: proto-JSON takes both."""
    snake = "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)
    return said.get(name, said.get(snake)) if isinstance(said, dict) else None


def _lowered(schema: Any) -> Any:
    """Convert a schema in Google's dialect of OpenAPI to JSON Schema."""
    if isinstance(schema, list):
        return [_lowered(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        name: value.lower() if name == "type" and isinstance(value, str) else _lowered(value)
        for name, value in schema.items()
    }
