"""The shapes that lines of providers' own batch files have, and what a line of each asks for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from ..wire.routes import LineForm

Fields = Mapping[str, msgspec.Raw]

_decode: Final = msgspec.json.decode
decode_fields: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """What a line says: its id, what it asks for, and where that goes; None for what it leaves out."""

    custom_id: Any
    url: Any
    method: Any
    body: bytes
    field: str = "body"
    """The field that holds the body."""


def read(fields: Fields, form: LineForm) -> Line | None:
    """Return what a line of a batch file says, whose shape its fields show; None for any other object."""
    custom_id = _first(fields, "custom_id", "key", "recordId", "batch_request_id")
    if custom_id is None and (metadata := _object(fields, "metadata")) is not None:
        custom_id = _first(metadata, "key")
    url = _first(fields, "url", "endpoint")
    for name in ("body", "params", "modelInput", "request"):
        if name in fields:
            method = _value(fields["method"]) if "method" in fields else "POST"
            return Line(custom_id=custom_id, url=url, method=method, body=bytes(fields[name]), field=name)
    asked = _object(fields, "batch_request") or {}
    for kind, path in form.kinds.items():
        if kind in asked:
            return Line(custom_id=custom_id, url=path, method="POST", body=bytes(asked[kind]))
    return None


def path_of(form: LineForm, body: Fields) -> str | None:
    """Return the path of a call with such a body, where lines leave it out; None = nobody can know."""
    return next((path for name, path in form.paths.items() if not name or name in body), None)


def model_of(body: Fields) -> str | None:
    """Return the model that a body names, without the collection that may stand before it."""
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
