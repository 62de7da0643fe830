"""The tool that a request makes the model call, for chat completions and responses."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import msgspec

from . import schema_examples


class Named(msgspec.Struct, frozen=True):
    """The name of a function."""

    name: str = ""


class Call(msgspec.Struct, frozen=True):
    """A call that an earlier answer of a chat made."""

    function: Named = Named()


class Tool(msgspec.Struct, frozen=True):
    """A function the model may call, and the JSON schema of its arguments."""

    name: str
    parameters: dict[str, Any]

    def arguments(self, text: str) -> str:
        """Return arguments that match the schema, as JSON, with `text` for each free string."""
        return msgspec.json.encode(schema_examples.example(self.parameters, text)).decode()


def forced(tools: Any, tool_choice: Any, called: Collection[str]) -> Tool | None:
    """Return the tool that `tool_choice` names or, if any is required, the first that was not `called` yet.

    None if the model is free to answer in words.
    """
    offered = _offered(tools)
    name = _get(_get(tool_choice, "function"), "name") or _get(tool_choice, "name")
    if name is not None:
        return next((tool for tool in offered if tool.name == name), None)
    allowed = _get(tool_choice, "allowed_tools") or tool_choice
    if _get(allowed, "tools") is not None:
        names = {tool.name for tool in _offered(_get(allowed, "tools"))}
        offered = [tool for tool in offered if tool.name in names]
    if tool_choice != "required" and _get(allowed, "mode") != "required":
        return None
    fresh = [tool for tool in offered if tool.name not in called]
    return next(iter(fresh or offered[-1:]), None)


def _offered(tools: Any) -> list[Tool]:
    functions = [_get(tool, "function") or tool for tool in tools or () if _get(tool, "type") == "function"]
    return [
        Tool(str(_get(function, "name")), _get(function, "parameters") or {"type": "object"})
        for function in functions
    ]


def _get(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, dict) else None
