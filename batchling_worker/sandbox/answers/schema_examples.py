"""Small values that fit a JSON schema, for requests that want structured output."""

from __future__ import annotations

from typing import Any, Final

_DEPTH = 16
# Below this depth a schema that contains itself gets the smallest value it accepts.
_DEEP = 8
_FORMATS = {
    "date": "2026-01-31",
    "date-time": "2026-01-31T12:00:00Z",
    "time": "12:00:00Z",
    "duration": "P1D",
    "email": "sandbox@example.com",
    "uri": "https://example.com/",
    "uuid": "3f2a1c9e-7b54-4d08-9e61-0c5d8a7b2f43",
    "ipv4": "127.0.0.1",
    "ipv6": "::1",
}

ANY_OBJECT: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {"answer": {"type": "string"}},
    "required": ["answer"],
}
"""The schema for a request that wants JSON and names no schema."""


def wanted_schema(response_format: Any, text: Any) -> dict[str, Any] | None:
    """Return the schema that a chat's `response_format` or a response's `text.format` asks for, if any."""
    wanted = response_format if response_format is not None else _get(text, "format")
    if _get(wanted, "type") == "json_object":
        return ANY_OBJECT
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
            return _example(_choice(schema[choice], depth), text, root, depth - 1)
    kind = schema.get("type")
    if isinstance(kind, list):
        kind = kind[0]
    if kind == "object" or "properties" in schema:
        fields = schema.get("properties", {})
        return {name: _example(field, text, root, depth - 1) for name, field in fields.items()}
    if kind == "array":
        items = schema.get("items", {})
        n_items = int(schema.get("minItems", 0)) or int(depth > _DEEP)
        return [_example(items, text, root, depth - 1) for _ in range(n_items)]
    if kind in ("integer", "number"):
        return _number(schema)
    return {"boolean": True, "null": None}.get(str(kind), _string(schema, text))


def _choice(choices: list[dict[str, Any]], depth: int) -> dict[str, Any]:
    simple = [choice for choice in choices if choice.get("type") == "null"]
    return simple[0] if simple and depth <= _DEEP else choices[0]


def _number(schema: dict[str, Any]) -> Any:
    if "minimum" in schema or "exclusiveMinimum" in schema:
        return schema.get("minimum", schema.get("exclusiveMinimum", 0) + 1)
    most = schema.get("maximum", schema.get("exclusiveMaximum", 2) - 1)
    return min(1, most)


def _string(schema: dict[str, Any], text: str) -> str:
    if schema.get("format") in _FORMATS:
        return _FORMATS[str(schema["format"])]
    shortest, longest = schema.get("minLength", 0), schema.get("maxLength")
    return text.ljust(shortest, ".")[:longest]
