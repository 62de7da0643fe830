"""Errors of settings in the environment, for callers and workers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from pydantic import ValidationError
from pydantic_settings import SettingsError

from .setting_files import UnusableFile
from .setting_names import OF_A_PROVIDER, meant_by

_WORDS: Final[dict[str, Callable[[Mapping[str, Any]], str]]] = {
    "bool_parsing": lambda _: "must be true or false",
    "bool_type": lambda _: "must be true or false",
    "dict_type": lambda _: "must be pairs of names and values",
    "finite_number": lambda _: "must be a finite number",
    "float_parsing": lambda _: "must be a number",
    "float_type": lambda _: "must be a number",
    "greater_than": lambda limits: f"must be more than {limits['gt']:g}",
    "greater_than_equal": lambda limits: f"must be {limits['ge']:g} or more",
    "int_from_float": lambda _: "must be a whole number",
    "int_parsing": lambda _: "must be a whole number",
    "int_parsing_size": lambda _: "must be a smaller number",
    "int_type": lambda _: "must be a whole number",
    "less_than": lambda limits: f"must be less than {limits['lt']:g}",
    "less_than_equal": lambda limits: f"must be {limits['le']:g} or less",
    "list_type": lambda _: "must be a list",
    "literal_error": lambda limits: f"must be {limits['expected']}",
    "missing": lambda _: "must be set",
    "model_attributes_type": lambda _: "must be a JSON object, or settings of their own such as BASE_URL",
    "model_type": lambda _: "must be a JSON object, or settings of their own such as BASE_URL",
    "path_type": lambda _: "must be a path",
    "string_too_long": lambda limits: f"must have {limits['max_length']} characters or fewer",
    "string_too_short": lambda limits: f"must have {limits['min_length']} characters or more",
    "string_type": lambda _: "must be text",
    "tuple_type": lambda _: "must be a list",
}
"""By pydantic's name of a mistake: what a person is to do. The mapping holds limits of ours, never a value."""
_OTHERWISE: Final = "has a value that cannot be read: see docs/settings.md"


def mistake_in(error: ValidationError | SettingsError) -> tuple[str, str]:
    """Return the setting's name and the reason, without its value, which may be a key.

    What is raised for it is raised after the `except`, as the error itself holds the value.
    """
    if isinstance(error, UnusableFile):
        return error.name, error.reason
    if isinstance(error, SettingsError):
        # No other setting is read as JSON.
        return "BATCHLING_PROVIDERS", "must be JSON"
    first = error.errors(include_url=False, include_input=False)[0]
    path, kind = [str(part).upper() for part in first["loc"]], first["type"]
    if kind == "extra_forbidden":
        meant = meant_by(path[-1], OF_A_PROVIDER)
        asked = f"did you mean {meant}?" if meant else f"there are {', '.join(OF_A_PROVIDER)}"
        return f"BATCHLING_{'__'.join(path[:-1])}", f"has no setting {path[-1]}: {asked}"
    reason = first["msg"].removeprefix("Value error, ").rstrip(".")
    if kind != "value_error":
        words = _WORDS.get(kind)
        reason = words(first.get("ctx", {})) if words else _OTHERWISE
    if reason.startswith("BATCHLING_"):
        # An error between several settings names the setting to change in its own text.
        named, _, reason = reason.partition(" ")
        return named, reason
    return f"BATCHLING_{'__'.join(path)}", reason


def sentence(name: str, reason: str) -> str:
    """Return both as one sentence."""
    return f"{name} {reason}" + ("" if reason.endswith("?") else ".")
