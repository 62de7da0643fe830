"""Spells views as JSON, and says in a JSON schema what each field means."""

from __future__ import annotations

import datetime as dt
from typing import Any

import msgspec


def as_json(view: msgspec.Struct) -> dict[str, Any]:
    """Return a view as `--json` prints it: times in ISO 8601 with their offset, words for states."""
    spelt: dict[str, Any] = msgspec.to_builtins(view, builtin_types=(dt.datetime,))
    return {name: _spell(value) for name, value in spelt.items()}


def _spell(value: object) -> object:
    if isinstance(value, dt.datetime):
        return value.isoformat()
    if isinstance(value, dict):
        return {name: _spell(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_spell(one) for one in value]
    return value


def schema(view: type[msgspec.Struct]) -> dict[str, Any]:
    """Return the JSON schema (draft 2020-12) of what `as_json` gives for such a view."""
    return msgspec.json.schema(view)
