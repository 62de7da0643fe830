"""Batches, runs and lanes as plain text for people, and as JSON for programs."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Final

from ..progress.folding import folded
from ..views import sent_again
from ..views.batch_detail import BatchDetail
from ..views.batch_view import NEED_YOU, BatchView, Status
from ..views.failures import Failures
from ..views.lane_view import LaneView, hold_in_words, tokens_in_words
from ..views.run_view import RunStatus, RunView
from ..views.spelling import as_json
from ..wire.shown import shown
from ..wording import counted, span
from .text import INDENT, Coloured, age, clock, columns, cut, moment, styled

_COLOURS: Final = {
    **dict.fromkeys(NEED_YOU, "red"),
    Status.WAITING: "yellow",
    Status.CANCELLING: "yellow",
    Status.RUNNING: "green",
    Status.READING: "green",
    Status.DONE_WITH_FAILURES: "red",
    Status.FAILED: "red",
}
_RUN_COLOURS: Final = {
    RunStatus.RUNNING: "green",
    RunStatus.DONE_WITH_FAILURES: "red",
}
WIDE: Final = 120
"""From so many columns on, a list shows whole ids, the provider's ids and the next looks."""
SHORT_ID: Final = 10
MOST_RUNS: Final = 5
"""So many runs that wait for a batch are named."""
ROOMY: Final = 200
"""From so many columns on, a list of lanes shows whole ids, endpoints, windows and times too."""
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
        title = shown(one.title)
        cells: list[str] = [
            shown(one.batch_id[:n_letters]),
            cut(title, LONGEST_MODEL) if narrow else title,
            Coloured(one.status.value, _COLOURS.get(one.status, "")),
            f"{one.n_through}/{one.n_live}",
            str(one.n_failed) if one.n_failed else "-",
            age(one.age(now)),
        ]
        if not narrow:
            cells += [
                clock(one.next_look_at) if one.next_look_at else "-",
                shown(one.provider_batch_id or "-"),
            ]
        rows.append([*cells, shown(one.why or "")])
    return columns(rows, width)


def _shortest(ids: Sequence[str]) -> int:
    """Return how many letters tell these ids from each other."""
    n = SHORT_ID
    while n < max(map(len, ids)) and len({one[:n] for one in ids}) < len(set(ids)):
        n += 1
    return n


def runs(found: Sequence[RunView], now: dt.datetime, width: int | None = None) -> list[str]:
    """Return a line per run, under a heading."""
    if not found:
        return ["No runs."]
    narrow = width is not None and width < WIDE
    n_letters = _shortest([one.run_id for one in found]) if narrow else None
    heading = ["RUN", "STATUS", "REQUESTS", "OK", "FAILED", "WAITING", "AGE"]
    heading += [] if narrow else ["FROM EARLIER", "SENT AGAIN", "BATCHES", "TOKENS IN", "OUT"]
    rows = [[*heading, "NAME"]]
    for one in found:
        counted_as = (one.n_succeeded, one.n_failed, one.n_waiting)
        is_known = one.status is not RunStatus.UNKNOWN
        cells: list[str] = [
            shown(one.run_id[:n_letters]),
            Coloured(one.status.value, _RUN_COLOURS.get(one.status, "")),
            f"{one.n_requests:,}",
            *(f"{n:,}" if n and is_known else "-" for n in counted_as),
            age(now - one.started_at),
        ]
        if not narrow:
            cells += [
                f"{n:,}" if n else "-"
                for n in (one.n_reused, one.n_sent_again, one.n_batches, one.n_input, one.n_output)
            ]
        rows.append([*cells, shown(one.name or "-")])
    return columns(rows, width)


def failures(found: Failures, width: int | None = None, *, rows: bool = False) -> list[str]:
    """Return a line per reason and what one of its requests was answered; with `rows`, a line per request."""
    if not found.n_failed:
        return [f"No request of {shown(found.id)} failed."]
    if rows:
        heading = ["REQUEST", "STATUS", "ATTEMPT", "CODE"]
        cells = [
            [shown(one.request_id), str(one.status), str(one.attempt), shown(one.code)]
            for one in found.requests
        ]
        lines = columns([heading, *cells], width)
    else:
        heading = ["FAILED", "STATUS", "CODE", "FOR EXAMPLE"]
        cells = [
            [
                f"{one.n_requests:,}",
                str(one.status),
                shown(one.code),
                shown(one.examples[0] if one.examples else "-"),
            ]
            for one in found.reasons
        ]
        lines = columns([heading, *cells], width)
    if found.n_unlisted and (rows or sum(one.n_requests for one in found.reasons) < found.n_failed):
        lines.append(f"{found.n_unlisted:,} more failed; a batch lists the first 1,000 of its failures.")
    return lines


def lanes(found: Sequence[LaneView], now: dt.datetime, width: int | None = None) -> list[str]:
    """Return a line per lane, under a heading, and below it what holds the lane up."""
    if not found:
        return ["No lanes."]
    narrow, tight = width is not None and width < WIDE, width is not None and width < ROOMY
    n_letters = _shortest([one.lane.lane_id for one in found]) if tight else None
    heading = ["LANE", "PROVIDER/MODEL", "KEY", "OPEN", "SEALED", "RUNNING", "OLDEST", "TOKENS"]
    heading[2:2] = [] if tight else ["ENDPOINT", "WINDOW"]
    heading += [] if narrow else ["ANSWERED", "TOKENS IN", "OUT"]
    heading += [] if tight else ["LAST USED"]
    rows = [[*heading, "HELD"]]
    for one in found:
        spec, queue = one.lane.spec, one.queue
        title = shown(f"{spec.provider}/{spec.model}")
        cells = [shown(one.lane.lane_id[:n_letters]), cut(title, LONGEST_MODEL) if tight else title]
        cells += [] if tight else [shown(spec.endpoint), shown(spec.completion_window)]
        ends_in = f"..{one.lane.key_hint}" if one.lane.key_hint else ""
        cells += [shown(spec.fingerprint[:4] if narrow else f"{spec.fingerprint[:8]}{ends_in}")]
        cells += [str(n) if n else "-" for n in (queue.n_open, queue.n_sealed, queue.n_running)]
        cells += [age(now - queue.oldest_at) if queue.oldest_at else "-", shown(tokens_in_words(one.lane))]
        if not narrow:
            answered = one.lane.n_succeeded + one.lane.n_failed
            cells += [
                f"{n:,}" if n else "-" for n in (answered, one.lane.tokens.n_input, one.lane.tokens.n_output)
            ]
        cells += [] if tight else [moment(one.lane.last_used_at)]
        rows.append([*cells, shown(hold_in_words(one.lane, now, clock) or queue.why or "-")])
    return columns(rows, width)


def batch(found: BatchDetail, now: dt.datetime, width: int | None = None) -> list[str]:
    """Return why a batch is where it is and what happens next, all facts about it, and what happened to it."""
    words = f"{counted(found.n_live, 'request')}, {found.n_succeeded:,} answered"
    words += f", {found.n_failed:,} failed" if found.n_failed else ""
    head = f"Batch {shown(found.batch_id)} of {shown(found.title)}: {found.status.value}, {words}"
    lines = [folded(head, width, indent=INDENT)]
    if found.why:
        lines.append(folded(f"Why: {shown(found.why)}", width, indent=INDENT))
    if found.next:
        wait = f", in {span(found.next_look_at - now)}" if found.next_look_at else ""
        lines.append(folded(f"Next: {shown(found.next)}{wait}", width, indent=INDENT))
    lines += [folded(one, width, indent=INDENT) for one in _who_waits(found)]
    if found.sent_again:
        lines.append(folded(f"Sent again: {sent_again.in_words(found.sent_again)}", width, indent=INDENT))
    lines += [f"You can: {styled(shown(command), 'cyan')}" for command in found.commands]
    lines += ["", *_facts(found, width), ""]
    lines += [
        folded(f"{moment(entry.at)}  {shown(entry.what)}", width, indent=21) for entry in found.timeline
    ]
    return lines if found.timeline else lines[:-1]


def _who_waits(found: BatchDetail) -> list[str]:
    """Return the runs with requests in a batch, a line each; those that wait for nothing more in one line together."""
    waiting = [one for one in found.runs if one.n_waiting]
    lines = [
        f"Waits: run {one.run_id}{f' {shown(one.name)}' if one.name else ''}, "
        f"{one.n_waiting:,} of {counted(one.n_requests, 'request')} without an answer"
        for one in waiting[:MOST_RUNS]
    ]
    left = len(waiting) - MOST_RUNS
    lines += [f"Waits: {left:,} more runs; --json lists them"] if left > 0 else []
    done = [one.run_id for one in found.runs if not one.n_waiting]
    if done:
        more = " and more" if found.has_more_runs or len(done) > MOST_RUNS else ""
        lines.append(f"Asked for it, and waits no more: {', '.join(done[:MOST_RUNS])}{more}")
    return lines


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
    "runs",
    "has_more_runs",
    "sent_again",
    "n_sent_again",
    "n_may_be_paid_twice",
}


def _facts(found: BatchDetail, width: int | None) -> list[str]:
    """Return the facts that the head does not tell, a line each."""
    return [
        folded(f"{name}: {_word(value)}", width, indent=INDENT)
        for name, value in as_json(found).items()
        if name not in _TOLD_ABOVE and value not in (None, "", 0)
    ]


def run(
    found: RunView, batches_of_run: Sequence[BatchView], now: dt.datetime, width: int | None = None
) -> list[str]:
    """Return one run, what you can do about it, and its batches."""
    title = f"{found.run_id} {found.name or ''}".rstrip()
    earlier = f" ({found.n_reused:,} from earlier runs)" if found.n_reused else ""
    words = [f"{counted(found.n_requests, 'request')}{earlier}"]
    words += [f"{n:,} {what}" for n, what in _fates(found) if n]
    words += [f"started {moment(found.started_at)}"]
    lines = [folded(f"Run {shown(title)}: {found.status.value}, {', '.join(words)}", width, indent=INDENT)]
    if found.n_input or found.n_output:
        cached = f" ({found.n_cached:,} from a cache)" if found.n_cached else ""
        unmetered = f"; {found.n_unmetered:,} answers report none" if found.n_unmetered else ""
        lines.append(f"Tokens: {found.n_input:,} in{cached}, {found.n_output:,} out{unmetered}")
    if found.sent_again:
        lines.append(folded(f"Sent again: {sent_again.in_words(found.sent_again)}", width, indent=INDENT))
    can = [f"batchling failures {found.run_id}"] if found.n_failed else []
    can += [f"batchling results {found.run_id} -o answers.jsonl"] if found.n_succeeded else []
    lines += [f"You can: {styled(shown(command), 'cyan')}" for command in can]
    return [*lines, *batches(batches_of_run, now, width)]


def _fates(found: RunView) -> tuple[tuple[int, str], ...]:
    if found.status is RunStatus.UNKNOWN:
        return ()
    return (
        (found.n_succeeded, "answered"),
        (found.n_failed, "failed"),
        (found.n_withdrawn, "withdrawn"),
        (found.n_waiting, "waiting"),
    )


def run_json(found: RunView, batches_of_run: Sequence[BatchView]) -> dict[str, object]:
    """Return what `batchling show RUN --json` prints: the run and its batches."""
    return {**as_json(found), "batches": [as_json(one) for one in batches_of_run]}


def _word(value: object) -> str:
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else shown(str(value))
