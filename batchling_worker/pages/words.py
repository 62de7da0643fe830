"""What the templates use to put views into words."""

from __future__ import annotations

import datetime as dt
from typing import Final
from urllib.parse import urlencode

from batchling_client.views.batch_view import NEED_YOU, BatchView, Status
from batchling_client.views.inspection import LaneRecord
from batchling_client.views.lane_view import hold_in_words
from batchling_client.views.overview import Group
from batchling_client.views.run_view import RunStatus
from batchling_client.wording import span

_TONES: Final = {
    **dict.fromkeys(NEED_YOU, "danger"),
    Status.FAILED: "danger",
    Status.DONE_WITH_FAILURES: "danger",
    Status.WAITING: "warning",
    Status.CANCELLING: "warning",
    Status.DONE: "success",
}


def now() -> dt.datetime:
    """Return the time."""
    return dt.datetime.now(dt.UTC)


def age(since: dt.datetime | None) -> str:
    """Return how long ago a time was, in its largest unit: a page that has not changed keeps its text for a while."""
    return "-" if since is None else _largest(now() - since)


def how_long(batch: BatchView) -> str:
    """Return for how long a batch has been under way, or was."""
    return _largest(batch.age(now()))


def _largest(length: dt.timedelta) -> str:
    seconds = int(length.total_seconds())
    return "under 1 m" if seconds < 60 else " ".join(span(length).split()[: 4 if seconds >= 3600 else 2])


def moment(at: dt.datetime | None) -> str:
    """Return a time of UTC with its date."""
    return "-" if at is None else f"{at.astimezone(dt.UTC):%Y-%m-%d %H:%M:%S} UTC"


def clock(at: dt.datetime | None) -> str:
    """Return a time of UTC, with the date if it is not today's."""
    if at is None:
        return "-"
    there = at.astimezone(dt.UTC)
    return f"{there:%H:%M:%S} UTC" if there.date() == now().date() else moment(at)


def tone(status: Status) -> str:
    """Return the colour of a status, in Bootstrap's words."""
    return _TONES.get(status, "secondary")


def part(n: int, n_all: int) -> str:
    """Return which part of a whole a number is, in percent."""
    return f"{min(100.0, 100 * n / n_all):.1f}" if n_all > 0 else "0"


def share(group: Group) -> str:
    """Return how far the batches of a group are, in percent."""
    return f"{100 * group.n_done // group.n_requests} %" if group.n_requests else "-"


def tone_of_run(status: RunStatus) -> str:
    """Return the colour of a run's status, in Bootstrap's words."""
    return {RunStatus.DONE: "success", RunStatus.DONE_WITH_FAILURES: "danger"}.get(status, "secondary")


def hold(lane: LaneRecord) -> str:
    """Return what holds up the lane's batches, until when, and why; '' if nothing does."""
    return hold_in_words(lane, now(), clock)


def key(lane: LaneRecord) -> str:
    """Return the beginning of the fingerprint of a lane's key, and how the key ends, if that is stored."""
    ends_in = f" ..{lane.key_hint}" if lane.key_hint else ""
    return f"{lane.spec.fingerprint[:8]}{ends_in}"


def query(**words: str) -> str:
    """Return the query of a URL."""
    return urlencode({name: word for name, word in words.items() if word})


def query_of(group: Group) -> str:
    """Return the query that lists the batches of a group: those of its model, key and status."""
    return query(
        state=group.status.value.replace(" ", "-"),
        provider=group.provider,
        model=group.model,
        key=group.credential,
    )
