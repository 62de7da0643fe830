"""The report of a run: its blows, their effects, and how to repeat it."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence

from batchling_worker.sandbox import LedgerPage

from .checker import Evidence, Violation, first_of_each, tally
from .demon import Demon

MOST_SHOWN = 5


def of_run(
    *, evidence: Evidence, page: LedgerPage, demon: Demon, struck: Mapping[str, int], n_heard: int
) -> list[str]:
    """Return the figures of a run, a line each."""
    what = Counter(event.what for events in evidence.events.values() for event in events)
    n_calls = len(
        {event.call for events in evidence.events.values() for event in events if event.what == "asked"}
    )
    return [
        f"blows        {_spell(demon.dealt)}",
        f"faults       {sum(struck.values())} struck: {_spell(struck)}",
        f"requests     {n_calls} calls asked {what['asked']} times, {what['answered']} answered, "
        f"{what['failed']} failed as they should, {what['cancelled']} cancelled",
        f"provider     {page.totals.n_batches} batches, {page.totals.n_rows} rows run, "
        f"{sum(evidence.paid.values())} billed, {page.totals.n_realtime} at full price",
        f"heard        {n_heard} published messages",
        *_recovery_lines(evidence),
    ]


def of_violations(violations: Sequence[Violation]) -> list[str]:
    """Return the violations: counts, and a few of each kind in full."""
    kinds = tally(violations)
    lines = [
        f"lost {kinds['lost']}, doubled {kinds['doubled']}, mixed up {kinds['mixed up']}, "
        f"failed {kinds['failed']}, billed twice {kinds['billed twice']}, leaked {kinds['leaked']}, "
        f"left {kinds['left']}, quarantined {kinds['quarantined']}, late {kinds['late']}"
    ]
    lines += [f"  {one.wrong}: {one.what}" for one in first_of_each(violations, MOST_SHOWN)]
    return lines


def _recovery_lines(evidence: Evidence) -> list[str]:
    alone = [one.took_s for one in evidence.recoveries if not one.disturbed]
    among = [one.took_s for one in evidence.recoveries if one.disturbed]
    bound = f"the bound is {evidence.recovery_bound_s:.1f} s"
    lines = [f"recovery     {_times(alone)} after a death alone; {bound}"]
    return [*lines, f"             {_times(among)} with another blow meanwhile"]


def _times(took: Sequence[float]) -> str:
    if not took:
        return "no batch to recover"
    return f"{len(took)} batches, worst {max(took):.2f} s, median {statistics.median(took):.2f} s"


def _spell(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{n} {name}" for name, n in sorted(counts.items())) or "none"
