"""Batches, runs and lanes as plain text for people, and as JSON for programs."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Sequence
from typing import Final

from ..operate.inspection import LaneRecord, RunRecord
from ..progress.batch_lines import age_of, rows_all, rows_done, state_of
from ..progress.folding import folded
from ..wire.records.batch import Batch

INDENT: Final = 4


def batches(found: Sequence[Batch], now: dt.datetime, width: int | None = None) -> list[str]:
    """Return a line per batch under a heading, and below it an error that is too long for the line."""
    if not found:
        return ["No batches."]
    heading = ("BATCH", "PROVIDER/MODEL", "STATE", "DONE", "AGE", "PROVIDER'S ID", "ERROR")
    rows = [
        (
            batch.batch_id,
            f"{batch.spec.provider}/{batch.spec.model}",
            state_of(batch),
            f"{rows_done(batch)}/{rows_all(batch)}",
            age_of(batch, now),
            batch.provider_batch_id or "-",
            _one_line(batch.error),
        )
        for batch in found
    ]
    return _columns([heading, *rows], width)


def batches_by_version(
    found: Sequence[tuple[int, Sequence[Batch]]], now: dt.datetime, width: int | None = None
) -> list[str]:
    """Return the batches of this wire version, and below them the older versions' batches, which workers drain."""
    (_, own), *older = found
    lines = batches(own, now, width)
    for version, left in older:
        lines += ["", f"Of wire version {version}, which this release drains:", *batches(left, now, width)]
    return lines


def batches_json(found: Sequence[tuple[int, Sequence[Batch]]]) -> list[dict[str, object]]:
    """Return what `batchling batches --json` prints."""
    return [{**batch.as_json(), "wire_version": version} for version, some in found for batch in some]


def runs(found: Sequence[RunRecord], width: int | None = None) -> list[str]:
    """Return a line per run, under a heading."""
    if not found:
        return ["No runs."]
    heading = ("RUN", "NAME", "STARTED", "REQUESTS", "FROM EARLIER", "BATCHES")
    rows = [
        (
            record.run_id,
            record.name or "-",
            _time(record.started_at),
            str(record.n_requests),
            str(record.n_reused),
            _states(record),
        )
        for record in found
    ]
    return _columns([heading, *rows], width)


def lanes(found: Sequence[LaneRecord], now: dt.datetime, width: int | None = None) -> list[str]:
    """Return a line per lane, under a heading."""
    if not found:
        return ["No lanes."]
    heading = (
        "LANE",
        "PROVIDER/MODEL",
        "ENDPOINT",
        "WINDOW",
        "CREDENTIAL",
        "WAITING",
        "TOKENS",
        "LAST USED",
        "HELD",
    )
    rows = [
        (
            lane.lane_id,
            f"{lane.spec.provider}/{lane.spec.model}",
            lane.spec.endpoint,
            lane.spec.completion_window,
            lane.spec.fingerprint[:8],
            str(lane.open_batch.n_requests) if lane.open_batch else "0",
            _tokens(lane),
            _time(lane.last_used_at),
            _one_line(_hold(lane, now)) or "-",
        )
        for lane in found
    ]
    return _columns([heading, *rows], width)


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
        until = f" until {_clock(circuit.until)}" if circuit.until > now else ", about to be tried"
        return f"{circuit.word}{until}: {circuit.why}"
    if quota is not None and quota.held_until is not None and quota.held_until > now:
        return f"quota full until {_clock(quota.held_until)}: {quota.why}"
    return ""


def batch(found: Batch, width: int | None = None) -> list[str]:
    """Return all facts about one batch, a line per fact."""
    return [
        folded(f"{name}: {_word(value)}", width, indent=INDENT)
        for name, value in batch_json(found).items()
        if value not in (None, "", 0)
    ]


def run(found: RunRecord, now: dt.datetime, width: int | None = None) -> list[str]:
    """Return one run and its batches."""
    title = f"{found.run_id} {found.name}".rstrip()
    earlier = f" ({found.n_reused} from earlier runs)" if found.n_reused else ""
    return [
        f"Run {title}: {found.n_requests} requests{earlier}, started {_time(found.started_at)}",
        *batches(found.batches, now, width),
    ]


def batch_json(found: Batch) -> dict[str, object]:
    """Return what `batchling show BATCH --json` prints, which is more than the list shows."""
    return {
        **found.as_json(),
        "host": found.spec.host,
        "completion_window": found.spec.completion_window,
        "credential": found.spec.fingerprint,
        "n_bytes": found.n_bytes,
        "n_done": found.n_done,
        "n_dropped": found.n_dropped,
        "n_stumbles": found.n_stumbles,
        "n_unended": found.n_unended,
        "label": found.label or None,
        "input_file_id": found.input_file_id or None,
        "submitted_at": _iso(found.submitted_at),
        "ended_at": _iso(found.ended_at),
        "settled_at": _iso(found.settled_at),
        "outcome": found.outcome.value if found.outcome else None,
        "cancel_requested": found.cancel_requested,
    }


def run_json(found: RunRecord) -> dict[str, object]:
    """Return what `batchling show RUN --json` prints: the run and its batches."""
    return {**found.as_json(), "batches": [one.as_json() for one in found.batches]}


def _columns(rows: Sequence[Sequence[str]], width: int | None) -> list[str]:
    """Return the rows as lines; where a terminal is too narrow, with the last cell of a row below it, and cut."""
    lines = [_padded(row, _widths(rows)) for row in rows]
    if width is None or max(map(len, lines)) <= width:
        return lines
    short = [row[:-1] for row in rows]
    lines = []
    for row in rows:
        line = _padded(row[:-1], _widths(short))
        lines.append(line if len(line) <= width else f"{line[: width - 1]}…")
        if row is not rows[0] and row[-1] not in ("", "-"):
            lines += folded(f"{' ' * INDENT}{row[-1]}", width, indent=INDENT).splitlines()
    return lines


def _widths(rows: Sequence[Sequence[str]]) -> list[int]:
    return [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]


def _padded(row: Iterable[str], widths: Sequence[int]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _states(record: RunRecord) -> str:
    counts: dict[str, int] = {}
    for one in record.batches:
        counts[one.state.value] = counts.get(one.state.value, 0) + 1
    return ", ".join(f"{n} {state}" for state, n in counts.items()) or "-"


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _word(value: object) -> str:
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else _one_line(str(value))


def _iso(moment: dt.datetime | None) -> str | None:
    return moment.isoformat() if moment else None


def _clock(moment: dt.datetime) -> str:
    return moment.astimezone().strftime("%H:%M:%S")


def _time(moment: dt.datetime) -> str:
    return moment.astimezone().strftime("%Y-%m-%d %H:%M:%S")
