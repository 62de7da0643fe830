"""JSON that Python alone takes: half a surrogate pair, as of a model cut inside an emoji, NaN, a byte order mark.

msgspec refuses the whole of a document with one of them, also where it was only to pass over it.
"""

from __future__ import annotations

import json
import math
import re
from typing import Final, TypeVar

import msgspec

T = TypeVar("T")

UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What msgspec raises for text that is not JSON, is not UTF-8, or is nested without end."""

_OUT_OF_RANGE: Final = "out of range"
_MOST_DIGITS: Final = 400
_LONGEST_SCANNED: Final = 4 * 1024 * 1024
_TOKEN: Final = re.compile(rb'"(?:[^"\\]|\\.)*"|[{\[]+|[}\]]+|,', re.DOTALL)
_NAME: Final = re.compile(rb'("(?:[^"\\]|\\.)*")\s*:', re.DOTALL)
_HALF_PAIR: Final = re.compile("[\ud800-\udfff]")
_BETWEEN_ROWS: Final = re.compile(r"(?:[\s,\[\]\0\x1e\ufeff]|data:)*")
_WRAPPERS: Final = ("data", "result", "file", "batch")
_WRAPPER_NAMES: Final = tuple(f'"{name}"'.encode() for name in _WRAPPERS)
_LONGEST_WRAPPER: Final = 4096
_ID_FIELDS: Final = frozenset({"id", "batch_id"})
_decoder: Final = json.JSONDecoder(strict=False)
_decode_fields: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_elements: Final = msgspec.json.Decoder(list[msgspec.Raw]).decode


def fields_of(raw: bytes) -> dict[str, bytes]:
    """Return the fields of a JSON object, each as it is spelt; JSON that only Python parses is encoded again.

    Raises `ValueError`, `TypeError` or `RecursionError` for anything that is not a JSON object.
    """
    try:
        return {name: bytes(value) for name, value in _decode_fields(raw).items()}
    except UNREADABLE:
        pass
    try:
        found = json.loads(raw, strict=False)
    except RecursionError:
        return _shallow(raw)
    return {name: json.dumps(value).encode() for name, value in dict(found).items()}


def as_text(body: bytes) -> bytes:
    """Return the bytes with U+FFFD for each byte that is not UTF-8: the rest of it was paid for."""
    return body if body.isascii() else body.decode(errors="replace").encode()


def objects_in(line: bytes) -> list[bytes]:
    """Return the JSON objects of a line that is not one itself, each as it is spelt; behind them what is none, if any.

    Servers write rows as a list, behind a comma, behind `data:`, with NULs around them, without a line break between
    them, or as JSON texts.
    """
    text, at, found = line.decode(errors="replace"), 0, []
    while (at := _skipped(text, at)) < len(text):
        try:
            value, end = _decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            value, end = None, len(text)
        if isinstance(value, str) and value.lstrip().startswith("{"):
            found.append(value.encode("utf-8", "replace"))
        elif isinstance(value, dict) or found:
            found.append(text[at:end].encode())
        else:
            return [line]
        at = end
    return found or [line]


def _skipped(text: str, at: int) -> int:
    found = _BETWEEN_ROWS.match(text, at)
    return found.end() if found else at


def _shallow(raw: bytes) -> dict[str, bytes]:
    """Return the fields of an object that is nested too deep for any parser; raises `ValueError` for anything else."""
    fields: dict[str, bytes] = {}
    for one in _parts(raw, b"{"):
        name = _NAME.match(one)
        if name is None:
            raise ValueError("a field without a name")
        fields[text_in(name[1])] = one[name.end() :].strip()
    return fields


def _parts(raw: bytes, opening: bytes) -> list[bytes]:
    """Return the parts between the commas of an object or a list; raises `ValueError` for anything else."""
    raw = raw.strip()
    if len(raw) > _LONGEST_SCANNED or not raw.startswith(opening):
        raise ValueError("not to be scanned")
    parts: list[bytes] = []
    depth, start = 0, 1
    for found in _TOKEN.finditer(raw):
        token = found[0]
        depth += len(token) * (token.startswith((b"{", b"[")) - token.startswith((b"}", b"]")))
        if depth == 0 or (depth == 1 and token == b","):
            parts.append(raw[start : found.end() - 1].strip())
            start = found.end()
    if depth != 0:
        raise ValueError("cut off")
    return [one for one in parts if one]


def unwrapped(raw: bytes) -> bytes:
    """Return the object inside a wrapper such as `{"code": 0, "data": {...}}`; without a wrapper, return `raw`.

    An object counts as a wrapper if it has no id of its own and the object inside has an id.
    """
    if not any(name in raw[:_LONGEST_WRAPPER] for name in _WRAPPER_NAMES):
        return raw
    try:
        outer = _decode_fields(raw)
    except UNREADABLE:
        return raw
    if not outer.keys().isdisjoint(_ID_FIELDS):
        return raw
    for name in _WRAPPERS:
        inner = bytes(outer.get(name, b""))
        try:
            if inner.startswith(b"{") and not _decode_fields(inner).keys().isdisjoint(_ID_FIELDS):
                return inner
        except UNREADABLE:
            pass
    return raw


def elements_of(raw: bytes) -> list[bytes]:
    """Return the elements of a JSON list, each as it is spelt (see `fields_of`); an empty list for anything else."""
    try:
        return [bytes(one) for one in _decode_elements(raw)]
    except UNREADABLE:
        pass
    try:
        found = json.loads(raw or b"null", strict=False)
    except RecursionError:
        return _parts(raw, b"[")
    return [json.dumps(one).encode() for one in found] if isinstance(found, list) else []


def decoded(raw: bytes, shape: type[T]) -> T:
    """Decode JSON into a type; for msgspec, replace half of a surrogate pair by U+FFFD and NaN by null.

    A number that is out of all range becomes null: one such field must not make the rest unreadable.

    Raises `ValueError` or `RecursionError`.
    """
    try:
        return msgspec.json.decode(raw, type=shape)
    except msgspec.ValidationError as error:
        if _OUT_OF_RANGE not in str(error):
            raise
    except UNREADABLE:
        pass
    found = json.loads(
        raw, strict=False, parse_constant=lambda _: None, parse_int=_whole_number, parse_float=_number
    )
    return msgspec.json.decode(whole(json.dumps(found, ensure_ascii=False)), type=shape)


def _whole_number(spelt: str) -> int | None:
    return int(spelt) if len(spelt) <= _MOST_DIGITS else None


def _number(spelt: str) -> float | None:
    number = float(spelt)
    return number if math.isfinite(number) else None


def whole(text: str) -> str:
    """Return the text with U+FFFD for each half of a surrogate pair, so that it can be encoded."""
    return _HALF_PAIR.sub("\ufffd", text)


def text_in(raw: bytes) -> str:
    """Return the string that the JSON holds, or ''."""
    said = value_in(raw)
    return said if isinstance(said, str) else ""


def value_in(raw: bytes | None) -> object:
    """Return the value that the JSON holds; None if it is absent or cannot be read."""
    try:
        return decoded(raw, object) if raw else None
    except (ValueError, RecursionError):
        return None


def object_in(raw: bytes | None) -> dict[str, bytes]:
    """Return the fields of a JSON object, each as it is spelt; an empty dict for anything else."""
    try:
        return fields_of(raw) if raw and raw.lstrip().startswith(b"{") else {}
    except (ValueError, TypeError, RecursionError):
        return {}
