"""Numbers and lengths of time in words."""

import datetime as dt


def counted(n: int, noun: str) -> str:
    """Return a number with its noun: 1 call, 2,000 calls, 2 batches."""
    plural = f"{noun}es" if noun.endswith("ch") else f"{noun}s"
    return f"{n:,} {noun if n == 1 else plural}"


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
