"""Batches, runs and lanes as plain text for people, and as JSON for programs."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Final

from ..progress.folding import folded
from ..views.batch_detail import BatchDetail
from ..views.batch_view import NEED_YOU, BatchView, Status
from ..views.inspection import LaneRecord, RunRecord
from ..views.lane_view import LaneView
from ..views.spelling import as_json
from ..wire.states import BatchState
from ..wording import counted, span
from .text import INDENT, Coloured, age, clock, columns, cut, moment, one_line, styled

_COLOURS: Final = {
    **dict.fromkeys(NEED_YOU, "red"),
    Status.WAITING: "yellow",
    Status.CANCELLING: "yellow",
    Status.RUNNING: "green",
    Status.READING: "green",
    Status.DONE_WITH_FAILURES: "red",
    Status.FAILED: "red",
}
WIDE: Final = 120
"""From so many columns on, a list shows whole ids, the provider's ids and the next looks."""
SHORT_ID: Final = 10
LONGEST_MODEL: Final = 26


def batches(found: Sequence[BatchView], now: dt.datetime, width: int | None = None) -> list[str]:
    """Return a line per batch under a heading, and below it a reason that is too long for the line."""
    if not found:
        return ["No batches."]
    narrow = width is not None and width < WIDE
    n_letters = _shortest([one.batch_id for one in found]) if narrow else None
    heading = ["BATCH", "PROVIDER/MODEL", "STATUS", "DONE", "FAILED", "AGE"]
    heading += [] if narrow else ["NEXT LOOK", "PROVIDER'S ID"]
    rows = [[*heading, "WHY"]]
    for one in found:
        title = one_line(one.title)
        cells: list[str] = [
            one.batch_id[:n_letters],
            cut(title, LONGEST_MODEL) if narrow else title,
            Coloured(one.status.value, _COLOURS.get(one.status, "")),
            f"{_n_done(one)}/{one.n_live}",
            str(one.n_failed) if one.n_failed else "-",
            age(one.age(now)),
        ]
        if not narrow:
            cells += [
                clock(one.next_look_at) if one.next_look_at else "-",
                one_line(one.provider_batch_id or "-"),
            ]
        rows.append([*cells, one_line(one.why or "")])
    return columns(rows, width)


def _n_done(one: BatchView) -> int:
    """Return the requests with a success, or until then those that the provider reports as done."""
    running = one.n_done if one.state is BatchState.SUBMITTED else 0
    return max(one.n_succeeded, running - one.n_failed)


def _shortest(ids: Sequence[str]) -> int:
    """Return how many letters tell these ids from each other."""
    n = SHORT_ID
    while n < max(map(len, ids)) and len({one[:n] for one in ids}) < len(set(ids)):
        n += 1
    return n


def runs(found: Sequence[RunRecord], width: int | None = None) -> list[str]:
    """Return a line per run, under a heading."""
    if not found:
        return ["No runs."]
    heading = ("RUN", "NAME", "STARTED", "REQUESTS", "FROM EARLIER", "BATCHES")
    rows = [
        (
            record.run_id,
            record.name or "-",
            moment(record.started_at),
            str(record.n_requests),
            str(record.n_reused),
            _states(record),
        )
        for record in found
    ]
    return columns([heading, *rows], width)


def lanes(found: Sequence[LaneView], now: dt.datetime, width: int | None = None) -> list[str]:
    """Return a line per lane, under a heading, and below it what holds the lane up."""
    if not found:
        return ["No lanes."]
    narrow = width is not None and width < WIDE
    n_letters = _shortest([one.lane.lane_id for one in found]) if narrow else None
    heading = ["LANE", "PROVIDER/MODEL", "KEY", "OPEN", "SEALED", "RUNNING", "OLDEST", "TOKENS"]
    heading[2:2] = [] if narrow else ["ENDPOINT", "WINDOW"]
    heading += [] if narrow else ["LAST USED"]
    rows = [[*heading, "HELD"]]
    for one in found:
        spec, queue = one.lane.spec, one.queue
        title = one_line(f"{spec.provider}/{spec.model}")
        cells = [one.lane.lane_id[:n_letters], cut(title, LONGEST_MODEL) if narrow else title]
        cells += [] if narrow else [one_line(spec.endpoint), spec.completion_window]
        cells += [spec.fingerprint[: 4 if narrow else 8]]
        cells += [str(n) if n else "-" for n in (queue.n_open, queue.n_sealed, queue.n_running)]
        cells += [age(now - queue.oldest_at) if queue.oldest_at else "-", _tokens(one.lane)]
        cells += [] if narrow else [moment(one.lane.last_used_at)]
        rows.append([*cells, one_line(_hold(one.lane, now) or queue.why or "-")])
    return columns(rows, width)


def _tokens(lane: LaneRecord) -> str:
    """Return the enqueued tokens in flight and the learned limit, both estimated."""
    if lane.quota is None:
        return "-"
    in_flight = f"{lane.quota.n_tokens:,}"
    return f"{in_flight}/{lane.quota.limit:,}" if lane.quota.limit else in_flight


def _hold(lane: LaneRecord, now: dt.datetime) -> str:
    """Return what holds up the lane's batches, until when, and why; '' if nothing does."""
    circuit, quota = lane.circuit, lane.quota
    if circuit is not None and circuit.until is not None:
        until = f" until {clock(circuit.until)}" if circuit.until > now else ", about to be tried"
        return f"{circuit.word}{until}: {circuit.why}"
    if quota is not None and quota.held_until is not None and quota.held_until > now:
        return f"quota full until {clock(quota.held_until)}: {quota.why}"
    return ""


def batch(found: BatchDetail, now: dt.datetime, width: int | None = None) -> list[str]:
    """Return why a batch is where it is and what happens next, all facts about it, and what happened to it."""
    words = f"{counted(found.n_live, 'request')}, {found.n_succeeded:,} answered"
    words += f", {found.n_failed:,} failed" if found.n_failed else ""
    head = f"Batch {found.batch_id} of {one_line(found.title)}: {found.status.value}, {words}"
    lines = [folded(head, width, indent=INDENT)]
    if found.why:
        lines.append(folded(f"Why: {one_line(found.why)}", width, indent=INDENT))
    if found.next:
        wait = f", in {span(found.next_look_at - now)}" if found.next_look_at else ""
        lines.append(folded(f"Next: {found.next}{wait}", width, indent=INDENT))
    lines += [f"You can: {styled(command, 'cyan')}" for command in found.commands]
    lines += ["", *_facts(found, width), ""]
    lines += [
        folded(f"{moment(entry.at)}  {one_line(entry.what)}", width, indent=21) for entry in found.timeline
    ]
    return lines if found.timeline else lines[:-1]


_TOLD_ABOVE: Final = {
    "batch_id",
    "provider",
    "model",
    "status",
    "why",
    "next",
    "error",
    "timeline",
    "commands",
}


def _facts(found: BatchDetail, width: int | None) -> list[str]:
    """Return the facts that the head does not tell, a line each."""
    return [
        folded(f"{name}: {_word(value)}", width, indent=INDENT)
        for name, value in as_json(found).items()
        if name not in _TOLD_ABOVE and value not in (None, "", 0)
    ]


def run(
    found: RunRecord, batches_of_run: Sequence[BatchView], now: dt.datetime, width: int | None = None
) -> list[str]:
    """Return one run and its batches."""
    title = f"{found.run_id} {found.name}".rstrip()
    earlier = f" ({found.n_reused} from earlier runs)" if found.n_reused else ""
    return [
        f"Run {one_line(title)}: {counted(found.n_requests, 'request')}{earlier}, started {moment(found.started_at)}",
        *batches(batches_of_run, now, width),
    ]


def run_json(found: RunRecord, batches_of_run: Sequence[BatchView]) -> dict[str, object]:
    """Return what `batchling show RUN --json` prints: the run and its batches."""
    return {**found.as_json(), "batches": [as_json(one) for one in batches_of_run]}


def _states(record: RunRecord) -> str:
    return ", ".join(f"{n} {state}" for state, n in record.batches_by_state.items()) or "-"


def _word(value: object) -> str:
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else one_line(str(value))
