"""The shapes that lines of providers' own batch files have, and what a line of each asks for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec

Fields = Mapping[str, msgspec.Raw]

_decode: Final = msgspec.json.decode
decode_fields: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode

XAI_PATHS: Final = {
    "chat_get_completion": "/v1/chat/completions",
    "responses": "/v1/responses",
    "image_generation": "/v1/images/generations",
    "image_edit": "/v1/images/edits",
    "video_generation": "/v1/videos/generations",
    "video_extension": "/v1/videos/extensions",
}
"""The key of a request in xAI's own lists -> where a call of its kind goes."""
MODELS: Final = {"gemini": "gemini-2.5-flash"}
"""The model of lines that name none, where a provider's files leave it to the create: Google's examples name this."""
DEFAULTS: Final = {
    "anthropic": "/v1/messages",
    "bedrock": "/model/{model}/invoke",
    "vertex": "/v1/projects/{project}/locations/{location}/publishers/google/models/{model}:generateContent",
}
"""Provider -> the path of lines that name none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """What a line says: its id, what it asks for, and where that goes; None for what it leaves out."""

    custom_id: Any
    url: Any
    method: Any
    body: bytes


def read(fields: Fields) -> Line | None:
    """Return what a line of a batch file says, whose shape its fields tell; None for any other object."""
    custom_id = _first(fields, "custom_id", "key", "recordId", "batch_request_id")
    if custom_id is None and (metadata := _object(fields, "metadata")) is not None:
        custom_id = _first(metadata, "key")
    url = _first(fields, "url", "endpoint")
    for name in ("body", "params", "modelInput", "request"):
        # A lone `request` is Gemini's and Vertex' shape; `params` is Anthropic's, `modelInput` Bedrock's.
        if name in fields:
            method = _value(fields["method"]) if "method" in fields else "POST"
            return Line(custom_id=custom_id, url=url, method=method, body=bytes(fields[name]))
    asked = _object(fields, "batch_request") or {}
    for kind, path in XAI_PATHS.items():
        if kind in asked:
            return Line(custom_id=custom_id, url=path, method="POST", body=bytes(asked[kind]))
    return None


def path_of(provider: str, body: Fields) -> str | None:
    """Return the path of a call with such a body, where a provider's lines leave it out; None = nobody can know."""
    if provider == "gemini":
        is_batch = "requests" in body
        embeds = "content" in body and "contents" not in body
        verb = "batchEmbedContents" if is_batch else "embedContent" if embeds else "generateContent"
        return f"/v1beta/models/{{model}}:{verb}"
    if provider in DEFAULTS:
        return DEFAULTS[provider]
    return "/v1/chat/completions" if "messages" in body else None


def model_of(body: Fields) -> str | None:
    """Return the model that a body names, without the collection that Google puts before it."""
    model = _first(body, "model")
    return model.rpartition("models/")[2] if isinstance(model, str) and model else None


def _first(fields: Fields, *names: str) -> Any:
    return next((_value(fields[name]) for name in names if name in fields), None)


def _object(fields: Fields, name: str) -> Fields | None:
    try:
        return decode_fields(fields[name]) if name in fields else None
    except msgspec.DecodeError:
        return None


def _value(raw: msgspec.Raw) -> Any:
    return _decode(raw)
