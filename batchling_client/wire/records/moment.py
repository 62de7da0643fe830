"""Moments, which Redis stores in milliseconds."""

import datetime as dt


def moment(ms: float) -> dt.datetime:
    return dt.datetime.fromtimestamp(ms / 1000, tz=dt.UTC)
