"""JSON for prompts that ask for it in words and show an example or a schema."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from . import schema_examples

_LONGEST: Final = 100_000
"""How many characters of a prompt are searched."""
_MOST: Final = 200
"""How many opening braces are tried."""
_ASKS: Final = re.compile(
    r"\b(?:respond|repl(?:y|ies)|return|answer|output|provide|produce|generate|give|write|only|valid|as|in|into|expected"
    r"|example)\b[^.{}\n]{0,80}\bjson\b|\bjson (?:object|format|schema|output|response)\b",
    re.IGNORECASE,
)
_LABEL: Final = re.compile(
    r"\b(?:json|format|example|structure|schema)\b[^{}\n]{0,40}\s*(?:```\w*\s*)?\Z", re.IGNORECASE
)
"""Words directly before the object that an answer should look like."""
_PLACEHOLDER: Final = re.compile(r"([:\[,]\s*)<([^<>\"\n]*)>")
"""An unquoted placeholder for a value, as in examples written for people."""
_decode: Final = json.JSONDecoder().raw_decode


class _Found(NamedTuple):
    start: int
    value: dict[str, Any]


def wanted(prompt: str, asked: str) -> Any:
    """Return the JSON that a prompt asks for, with `asked` in its schema's strings; None without schema or example."""
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
    """Choose the object labelled as the example, else the first after the words that ask for JSON, else the last."""
    labelled = [one.value for one in found if _LABEL.search(text[max(0, one.start - 80) : one.start])]
    behind = [one.value for one in found if one.start > asking_at]
    choices = labelled or behind or [one.value for one in found[-1:]]
    return choices[0] if choices else None
