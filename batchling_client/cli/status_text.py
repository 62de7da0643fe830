"""The screen of `batchling status`, as lines for people."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any, Final

from ..progress.folding import folded
from ..views import sent_again
from ..views.batch_view import Status
from ..views.overview import Group, Overview
from ..wire.shown import shown
from ..wording import counted, span
from .text import INDENT, styled

MOST_GROUPS: Final = 12
"""Of one section: a screen is not longer than this; `batchling batches` lists everything."""


def status(found: Overview, now: dt.datetime, width: int | None) -> list[str]:
    """Return the lines: the deployment, then what needs a person, what waits, and what runs."""
    lines = [folded(line, width, indent=INDENT) for line in (_head(found, now), *_pace(found))]
    lines += [styled(folded(shown(trouble), width), "red", bold=True) for trouble in found.troubles]
    lines += _section("NEEDS YOU", "red", found.needs_you, now, width)
    lines += _section("WAITS BY ITSELF", "yellow", found.waits, now, width)
    lines += _section("RUNNING", "green", found.running, now, width)
    lines += _tail(found)
    return lines


def _head(found: Overview, now: dt.datetime) -> str:
    words = [f"{shown(found.namespace)} at {shown(found.redis_at)}", counted(found.n_workers, "worker")]
    if found.oldest_at is None:
        words.append("no request waits")
    else:
        wait = "waits" if found.n_waiting == 1 else "wait"
        words.append(f"{counted(found.n_waiting, 'request')} {wait} (oldest {span(now - found.oldest_at)})")
    return "   ".join(words)


def _pace(found: Overview) -> list[str]:
    """Return what came in during the last hour, if anything did, and what was sent more than once."""
    pace = found.pace
    again = [sent_again.in_words(found.sent_again)] if found.sent_again else []
    if not pace.n_answered:
        return again
    failed = f", {pace.n_failed:,} of them failed" if pace.n_failed else ""
    words = [f"last hour: {counted(pace.n_answered, 'answer')}{failed}"]
    words += [f"{pace.answers_per_minute:,.0f} a minute now"] if pace.answers_per_minute >= 1 else []
    words += [f"{pace.n_input:,} tokens in, {pace.n_output:,} out"] if pace.n_input else []
    return ["   ".join(words), *again]


def _section(
    title: str, colour: str, groups: Sequence[Group], now: dt.datetime, width: int | None
) -> list[str]:
    if not groups:
        return []
    lines = ["", styled(title, colour, bold=True)]
    for group in groups[:MOST_GROUPS]:
        lines += _group(group, now, width)
    left = groups[MOST_GROUPS:]
    if left:
        n = sum(group.n_batches for group in left)
        lines.append(f"  and {counted(n, 'batch')} more: batchling batches")
    return lines


def _group(group: Group, now: dt.datetime, width: int | None) -> list[str]:
    some = f"{counted(group.n_waiting, 'request')} in {counted(group.n_batches, 'batch')}"
    if group.n_done and group.status is Status.RUNNING:
        share = 100 * group.n_done // max(1, group.n_requests)
        done = f"{group.n_done:,} of {counted(group.n_requests, 'request')} ({share} %)"
        some = f"{done} in {counted(group.n_batches, 'batch')}"
    whose = shown(f"{group.provider}/{group.model}")
    head = f"{whose}  {group.status.value}: {some}, oldest {span(now - group.oldest_at)}"
    lines = [folded(f"  {head}", width, indent=INDENT)]
    if group.why:
        lines.append(folded(f"{' ' * INDENT}{shown(group.why)}", width, indent=INDENT))
    if group.next and (group.commands or group.why):
        lines.append(
            folded(f"{' ' * INDENT}Next: {shown(group.next)}{_when(group, now)}.", width, indent=INDENT)
        )
    # A command is copied: it is never folded.
    lines += [f"{' ' * INDENT}{styled(shown(command), 'cyan')}" for command in group.commands]
    return lines


def _when(group: Group, now: dt.datetime) -> str:
    if group.next_look_at is None:
        return ""
    wait = group.next_look_at - now
    return f", in {span(wait)}" if wait > dt.timedelta(seconds=1) else ", now"


def _tail(found: Overview) -> list[str]:
    if not found.n_over:
        return []
    words = f"{counted(found.n_over, 'batch')} {'is' if found.n_over == 1 else 'are'} over"
    if found.n_over_with_failures:
        words += f", {found.n_over_with_failures:,} of them with failures: batchling batches --failed"
    return ["", f"{words}."]


def processes(stack: Mapping[str, Any]) -> list[str]:
    """Return the processes of an embedded stack, a line each, as `batchling status --json` names them."""
    lines = ["", f"Redis {stack['redis']['url']} (pid {stack['redis']['pid']})"]
    lines += [f"worker {shown(str(worker['hostname']))} (pid {worker['pid']})" for worker in stack["workers"]]
    if stack["flower"]:
        lines.append(f"Flower {stack['flower'].get('url', '')} (pid {stack['flower']['pid']})")
    return lines
