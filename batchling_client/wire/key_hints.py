"""The last characters of an API key, by which people recognise it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from . import carried

SHOWN: Final = 4
SHORTEST_KEY: Final = 16
"""Four characters of a shorter key would be too much of it."""


def hint(headers: Mapping[str, str]) -> str:
    """Return the last characters of the key in these credential headers; '' where they would tell too much or nothing.

    Nothing is said of two secrets at once, and of a key with blanks or signs in it, such as a token that is renewed.
    """
    secrets = {value.removeprefix("Bearer ").strip() for value in carried.parted(headers)[0].values()}
    if len(secrets) != 1:
        return ""
    key = secrets.pop()
    plain = key.isascii() and key.replace("-", "").replace("_", "").isalnum()
    return key[-SHOWN:] if plain and len(key) >= SHORTEST_KEY else ""


def is_hint(said: str) -> bool:
    """Return whether a stored text can be a hint: it is shown to people."""
    return len(said) == SHOWN and said.isascii() and said.replace("-", "x").replace("_", "x").isalnum()
