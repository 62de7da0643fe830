"""Numbers as providers send them, bounded: one absurd value must not fail the look at every batch of an account."""

from __future__ import annotations

import datetime as dt
from typing import Final

LARGEST_COUNT: Final = 10**12
"""More rows than any batch has; a larger count is not believed."""
LATEST_MOMENT: Final = 253_402_300_799
"""The last second of the year 9999."""
MOST_DIGITS: Final = 18


def count(said: object) -> int:
    """Return a counter, which may be a JSON number or string; 0 for anything that is not a plausible count."""
    if isinstance(said, str):
        return count(int(said)) if len(said) <= MOST_DIGITS and said.isascii() and said.isdigit() else 0
    if isinstance(said, bool):
        return 0
    if isinstance(said, float):
        return int(said) if 0 < said <= LARGEST_COUNT and said.is_integer() else 0
    return said if isinstance(said, int) and 0 < said <= LARGEST_COUNT else 0


def is_count(said: object) -> bool:
    """Return whether it is a counter at all, 0 included."""
    return count(said) > 0 or (said in (0, "0") and not isinstance(said, bool))


def text(said: object) -> str:
    """Return a text; '' for anything else."""
    return said if isinstance(said, str) else ""


def identifier(said: object) -> str:
    """Return an id as text, whether JSON holds a string or a positive number; '' for anything else."""
    if isinstance(said, str):
        return said
    is_number = isinstance(said, int) and not isinstance(said, bool) and 0 < said < 10**MOST_DIGITS
    return str(said) if is_number else ""


def line(said: object) -> int | None:
    """Return a line number, which counts from 1; None for anything else."""
    return count(said) or None


def moment(said: object) -> float | None:
    """Return a time in unix seconds, from a number or from ISO 8601; None for what is neither or is out of range."""
    if isinstance(said, int | float):
        # The comparison also rejects NaN; a bool is an int in Python, but not a time.
        plausible = not isinstance(said, bool) and 0 < said <= LATEST_MOMENT
        return float(said) if plausible else None
    at = aware(said)
    return None if at is None else at.timestamp()


def when(said: object) -> dt.datetime | None:
    """Return the moment that unix seconds or ISO 8601 name; None for what is neither or is out of range."""
    if isinstance(said, str):
        return aware(said)
    at = moment(said)
    return None if at is None else dt.datetime.fromtimestamp(at, dt.UTC)


def aware(said: object) -> dt.datetime | None:
    """Return the moment that a text in ISO 8601 names, in UTC where it names no zone; None for anything else."""
    if not isinstance(said, str):
        return None
    try:
        at = dt.datetime.fromisoformat(said)
    except ValueError:
        return None
    return at if at.tzinfo is not None else at.replace(tzinfo=dt.UTC)


def http_status(said: object) -> int:
    """Return an HTTP status from a number, a float or a string; 0 for anything else."""
    status = count(said)
    return status if 100 <= status <= 599 else 0
