"""Reads docs/json.md: for each command that prints JSON an example and a table of its fields."""

from __future__ import annotations

import datetime as dt
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

PAGE: Final = Path(__file__).resolve().parents[2] / "docs" / "json.md"
ABSENT: Final = ", may be absent"
OPEN: Final = ("object of", "list of strings", "list of batches")
"""Types whose content has no fields of its own in the table."""

_SECTION = re.compile(r"^## (`.+`.*)$", re.MULTILINE)
_EXAMPLE = re.compile(r"```json\n(.+?)\n```", re.DOTALL)
_ROW = re.compile(r"^\| `(.+?)` \| (.+?) \| (.+) \|$", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """What the page says of one command."""

    example: Any
    types: dict[str, str]
    """The type of each field by its path, such as `quota.limit_tokens` or `findings[].check`."""

    @property
    def required(self) -> set[str]:
        return {path for path, kind in self.types.items() if not kind.endswith(ABSENT)}


def sections() -> dict[str, Section]:
    """Return the sections by the commands of their headings."""
    _, *parts = _SECTION.split(PAGE.read_text(encoding="utf-8"))
    found = {}
    for heading, text in zip(parts[::2], parts[1::2], strict=True):
        example = _EXAMPLE.search(text)
        assert example is not None, heading
        section = Section(
            example=json.loads(example[1]), types={path: kind for path, kind, _ in _ROW.findall(text)}
        )
        for command in re.findall(r"`(.+?)`", heading):
            found[command] = section
    return found


def fields(value: object, types: dict[str, str], prefix: str = "") -> Iterator[tuple[str, object]]:
    """Yield every field of a printed value with its path; objects of a list have their paths in common."""
    if isinstance(value, list):
        for one in value:
            yield from fields(one, types, prefix)
    elif isinstance(value, dict):
        for name, inner in value.items():
            path = f"{prefix}{name}"
            yield path, inner
            if not types.get(path, "").startswith(OPEN):
                yield from fields(inner, types, f"{path}[]." if isinstance(inner, list) else f"{path}.")


def fits(value: object, kind: str) -> bool:
    """Return whether a value is of a type of the page: `string or null`, `time`, `list of strings`, ..."""
    return any(_is(value, word) for word in kind.removesuffix(ABSENT).split(" or "))


def _is(value: object, word: str) -> bool:
    if word == "time":
        return isinstance(value, str) and dt.datetime.fromisoformat(value).tzinfo is not None
    if word == "list of strings":
        return isinstance(value, list) and all(isinstance(one, str) for one in value)
    if word.startswith(("list of", "object")):
        return isinstance(value, list if word.startswith("list") else dict)
    if word == "integer":
        return isinstance(value, int) and not isinstance(value, bool)
    if word == "number":
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    return {"string": isinstance(value, str), "boolean": isinstance(value, bool), "null": value is None}[word]
