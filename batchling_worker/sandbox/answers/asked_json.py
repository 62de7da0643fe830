"""JSON that a prompt asks for in words and shows an example or a schema of."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from . import schema_examples

_LONGEST: Final = 100_000
"""Characters of a prompt that are searched."""
_MOST: Final = 200
"""Braces that are tried."""
_ASKS: Final = re.compile(
    r"\b(?:respond|repl(?:y|ies)|return|answer|output|provide|produce|generate|give|write|only|valid|as|in|into|expected"
    r"|example)\b[^.{}\n]{0,80}\bjson\b|\bjson (?:object|format|schema|output|response)\b",
    re.IGNORECASE,
)
_LABEL: Final = re.compile(
    r"\b(?:json|format|example|structure|schema)\b[^{}\n]{0,40}\s*(?:```\w*\s*)?\Z", re.IGNORECASE
)
"""What directly precedes the object that an answer is to look like."""
_PLACEHOLDER: Final = re.compile(r"([:\[,]\s*)<([^<>\"\n]*)>")
"""Stands without quotes for a value, in examples for people."""
_decode: Final = json.JSONDecoder().raw_decode


class _Found(NamedTuple):
    start: int
    value: dict[str, Any]


def wanted(prompt: str, asked: str) -> Any:
    """Return what a prompt asks for as JSON, with `asked` in the strings of a schema; None if it shows neither."""
    if "json" not in prompt[:_LONGEST].lower():
        return None
    text = _PLACEHOLDER.sub(r'\1"\2"', prompt[:_LONGEST])
    asking = _ASKS.search(text)
    if asking is None:
        return None
    found = list(_objects(text))
    schemas = [one.value for one in found if _is_schema(one.value)]
    if schemas:
        return schema_examples.example(schemas[-1], asked)
    return _example(found, text, asking.start())


def _objects(text: str) -> Iterator[_Found]:
    """Find the outermost JSON objects in a text that are not empty."""
    at = 0
    for _ in range(_MOST):
        at = text.find("{", at)
        if at < 0:
            return
        try:
            value, end = _decode(text, at)
        except (ValueError, RecursionError):
            at += 1
            continue
        if value:
            yield _Found(at, value)
        at = end


def _is_schema(value: dict[str, Any]) -> bool:
    return isinstance(value.get("properties"), dict) and isinstance(value.get("type", "object"), str)


def _example(found: list[_Found], text: str, asking_at: int) -> Any:
    """Choose the object that is labelled as the example, else the first behind the words that ask, else the last."""
    labelled = [one.value for one in found if _LABEL.search(text[max(0, one.start - 80) : one.start])]
    behind = [one.value for one in found if one.start > asking_at]
    choices = labelled or behind or [one.value for one in found[-1:]]
    return choices[0] if choices else None
