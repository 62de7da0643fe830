"""Numbers and lengths of time in words."""

from __future__ import annotations

import datetime as dt


def span(length: dt.timedelta) -> str:
    """Return a length of time in its two largest units: 7 s, 4 m 10 s, 1 h 12 m, 3 d 2 h."""
    seconds = max(0, int(length.total_seconds()))
    for size, name, smaller_size, smaller in (
        (86400, "d", 3600, "h"),
        (3600, "h", 60, "m"),
        (60, "m", 1, "s"),
    ):
        if seconds >= size:
            n, rest = divmod(seconds, size)
            return f"{n} {name} {rest // smaller_size} {smaller}"
    return f"{seconds} s"


def count(n: int, what: str) -> str:
    """Return a number of things in words: 1 request, 2,400 requests, 3 batches."""
    plural = "es" if what.endswith("ch") else "s"
    return f"{n:,} {what}{'' if n == 1 else plural}"
