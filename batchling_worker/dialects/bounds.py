"""Numbers, ids and words as providers send them, bounded.

One absurd value must fail no look at the other batches of an account, and no provider may fill Redis with a word.
"""

from __future__ import annotations

import datetime as dt
from typing import Final

LARGEST_COUNT: Final = 10**12
"""More rows than any batch has; a larger count is not believed."""
LATEST_MOMENT: Final = 253_402_300_799
"""The last second of the year 9999."""
MOST_DIGITS: Final = 18
LONGEST_ID: Final = 1024
"""No provider has a longer id; Cloud Storage and S3 have no longer name of an object."""
LONGEST_WORDS: Final = 2000
LONGEST_CODE: Final = 100
LONGEST_CURSOR: Final = 8192
MOST_WORDS: Final = 512 * 1024
"""So many characters the complaints about one batch may have together."""
MOST_RESULTS: Final = 10
"""So many references to result files a batch may show."""
LONGEST_BODY: Final = 64 * 1024
"""Bytes of an error that are kept."""


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
    """Return a text, or the beginning of a long one; '' for anything else."""
    return said[:LONGEST_WORDS] if isinstance(said, str) else ""


def cursor(said: object) -> str:
    """Return the cursor of a page as it is, '' for anything but a text; its length is checked where it is used."""
    return said if isinstance(said, str) else ""


def identifier(said: object) -> str:
    """Return an id as text, whether JSON holds a string or a positive number; '' for anything else.

    An id that is longer than any there is is none.
    """
    if isinstance(said, str):
        return said if len(said) <= LONGEST_ID else ""
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
