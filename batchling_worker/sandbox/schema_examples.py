"""Small values that fit a JSON schema, for requests that want structured output."""

from __future__ import annotations

from typing import Any

_DEPTH = 8


def wanted_schema(response_format: Any, text: Any) -> dict[str, Any] | None:
    """Return the schema that a chat's `response_format` or a response's `text.format` asks for, if any."""
    wanted = response_format if response_format is not None else _get(text, "format")
    if _get(wanted, "type") == "json_object":
        return {"type": "object", "properties": {"answer": {"type": "string"}}, "required": ["answer"]}
    if _get(wanted, "type") != "json_schema":
        return None
    schema = _get(_get(wanted, "json_schema"), "schema") or _get(wanted, "schema")
    return schema if isinstance(schema, dict) else {"type": "object"}


def example(schema: dict[str, Any], text: str) -> Any:
    """Return a value for `schema`, with `text` wherever a free string is wanted."""
    return _example(schema, text, schema, _DEPTH)


def _get(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, dict) else None


def _resolve(schema: dict[str, Any], root: dict[str, Any]) -> dict[str, Any]:
    found: Any = root
    for step in str(schema["$ref"]).removeprefix("#").strip("/").split("/"):
        found = _get(found, step) if step else found
    return found if isinstance(found, dict) else {}


def _example(schema: dict[str, Any], text: str, root: dict[str, Any], depth: int) -> Any:
    if depth == 0:
        return None
    if "$ref" in schema:
        return _example(_resolve(schema, root), text, root, depth - 1)
    for constant in ("const", "default"):
        if constant in schema:
            return schema[constant]
    if schema.get("enum"):
        return schema["enum"][0]
    for choice in ("anyOf", "oneOf", "allOf"):
        if schema.get(choice):
            return _example(schema[choice][0], text, root, depth - 1)
    kind = schema.get("type")
    if isinstance(kind, list):
        kind = kind[0]
    if kind == "object" or "properties" in schema:
        fields = schema.get("properties", {})
        return {name: _example(field, text, root, depth - 1) for name, field in fields.items()}
    if kind == "array":
        items = schema.get("items", {})
        return [_example(items, text, root, depth - 1) for _ in range(max(1, int(schema.get("minItems", 1))))]
    if kind in ("integer", "number"):
        return schema.get("minimum", 1)
    return {"boolean": True, "null": None}.get(str(kind), text)
