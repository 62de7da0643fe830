"""Decides whether the log has to say that a batch waits: once for each reason, and then once an hour."""

from __future__ import annotations

import datetime as dt
import re
from collections import OrderedDict
from typing import Final

from batchling_client.wire.keys import BatchId
from batchling_client.wire.records.batch import Batch

AGAIN: Final = dt.timedelta(hours=1)
MOST_KEPT: Final = 1000
_LINE: Final = re.compile(r"([0-9]{1,14}) (?:waits|to be read again): (.*)")
"""What `hold.lua` and `unread.lua` write."""
_VARYING: Final = re.compile(r"\S*[0-9]\S*")
"""Request ids, times and counts: a reason that differs only in them is the same reason."""
_WHOLE: Final = 120
"""A reason of so many letters is stored whole in a timeline; of a longer one, the beginning is."""


def is_news(batch: Batch, why: str, now: dt.datetime) -> bool:
    """Return whether the reason is new for the batch, or an hour has passed since it was logged last.

    The batch's timeline in Redis says since when it waits for that reason, and `updated_at` when it was held last, so
    that all workers together log it once.
    """
    since = _since(batch, why)
    if since is None:
        return True
    return (now - since) // AGAIN > (batch.updated_at - since) // AGAIN


class Repeats:
    """Keeps what this process has logged of late, for waits that no timeline in Redis tells of."""

    def __init__(self) -> None:
        self._logged: OrderedDict[tuple[BatchId, str], dt.datetime] = OrderedDict()

    def is_news(self, batch: Batch, why: str, now: dt.datetime) -> bool:
        """Return whether this process has not logged the reason for the batch within an hour; take note of it then."""
        key = batch.batch_id, _VARYING.sub("#", why)
        logged = self._logged.get(key)
        if logged is not None and now - logged < AGAIN:
            return False
        self._logged[key] = now
        self._logged.move_to_end(key)
        if len(self._logged) > MOST_KEPT:
            self._logged.popitem(last=False)
        return True


def _since(batch: Batch, why: str) -> dt.datetime | None:
    """Return since when the batch has been waiting for the reason; None if it waited for another one last."""
    since = None
    for line in reversed(batch.timeline.splitlines()):
        match = _LINE.fullmatch(line)
        if match is None or not _same(match[2], why):
            break
        since = dt.datetime.fromtimestamp(int(match[1]) / 1000, tz=dt.UTC)
    return since


def _same(stored: str, why: str) -> bool:
    """Return whether a reason is the stored one, of which the last word may be cut."""
    before, now = _VARYING.sub("#", stored).split(), _VARYING.sub("#", why).split()
    if len(stored) <= _WHOLE:
        return before == now
    return before[:-1] == now[: len(before) - 1]
