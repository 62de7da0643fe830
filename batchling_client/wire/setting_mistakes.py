"""What is wrong with a setting in the environment, for callers and workers alike."""

from __future__ import annotations

from pydantic import ValidationError
from pydantic_settings import SettingsError


def mistake_in(error: ValidationError | SettingsError) -> tuple[str, str]:
    """The setting's name and the reason, which holds no value: it may be a key.

    What is raised for it is raised after the `except`, as the error itself holds the value.
    """
    if isinstance(error, SettingsError):
        # Of all settings this one alone is read as JSON.
        return "BATCHLING_PROVIDERS", "must be JSON"
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    name = "__".join(str(part) for part in first["loc"]).upper()
    reason = first["msg"].removeprefix("Value error, ").rstrip(".")
    if reason.startswith("BATCHLING_"):
        # What is wrong between several settings names the one to mend itself.
        named, _, reason = reason.partition(" ")
        return named, reason
    return f"BATCHLING_{name}", reason
