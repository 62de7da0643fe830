"""What is said of a run at its end: its summary in one line, and why requests failed."""

from __future__ import annotations

from typing import Final

from ..intercept.passed import Passed, sentence_of
from ..wire.keys import RunId
from ..wording import counted
from .counts import Progress
from .dry_run import Rehearsal

MOST_REASONS: Final = 5


def summary_of(
    now: Progress, title: str, passed: Passed, *, given_up: str, rehearsal: Rehearsal | None, has_inner: bool
) -> str:
    """Return the run in one line; `has_inner` says whether a block inside of it has reported its own calls."""
    if not now.n_requests:
        return f"Run {title} caught no call. {_nothing_caught(now, passed, has_inner=has_inner)}."
    at_full_price = f" {sentence_of(now.passed)}." if now.passed else ""
    refused = passed.refusals()
    at_full_price += f" The rehearsal refused calls, which cost nothing: {refused}." if refused else ""
    if rehearsal is not None:
        n = now.n_failed
        got = "1 call got an error" if n == 1 else f"{n:,} calls got an error"
        return rehearsal.report() + (f" {got} instead, which says why." if n else "") + at_full_price
    words = [f"{now.n_succeeded + now.n_realtime:,} of {now.n_requests:,} requests answered"]
    words += [f"{now.n_realtime:,} of them at full price"] if now.n_realtime else []
    words += [f"{now.n_failed:,} failed"] if now.n_failed else []
    words += [f"{now.n_waiting:,} waiting"] if now.n_waiting else []
    words += [f"{now.n_left:,} left"] if now.n_left else []
    words += [f"{now.n_reused:,} from earlier runs"] if now.n_reused else []
    more = f". Waiting: {'; '.join(now.reasons)}" if now.reasons else ""
    more += f". {given_up}" if given_up else ""
    end = "." if at_full_price and not more.endswith(".") else ""
    return f"{', '.join(words)} (run {title}){more}{end}{at_full_price}"


def failures_of(now: Progress, run_id: RunId) -> list[str]:
    """Return the most frequent reasons of failures in a line each, and the command that lists the requests."""
    if not now.failures:
        return []
    lines = [f"  {failure}" for failure in now.failures[:MOST_REASONS]]
    n_more = sum(failure.n_requests for failure in now.failures[MOST_REASONS:])
    lines += [f"  {n_more:,} failed for other reasons"] if n_more else []
    return [*lines, f"`batchling failures {run_id}` lists them."]


def _nothing_caught(now: Progress, passed: Passed, *, has_inner: bool) -> str:
    if now.passed:
        return f"{sentence_of(now.passed)}. The warnings above say why, and which setting or parameter helps"
    if refused := passed.refusals():
        return f"The rehearsal refused what it saw: {refused}. The errors say why"
    if others := passed.posts():
        return (
            f"It saw POSTs of other kinds only: {others}. If these are LLM calls, register the host with "
            "BATCHLING_PROVIDERS__<NAME>__BASE_URL and the path with __ENDPOINTS"
        )
    if passed.n_left_alone:
        return f"It left {counted(passed.n_left_alone, 'call')} to test doubles that answer by themselves"
    if has_inner:
        return "The blocks inside it report calls of their own"
    return (
        "It saw no LLM call at all: calls of programs that do not import batchling, and of HTTP libraries that "
        "it does not cover, are invisible to it; `batchling doctor` lists the covered ones"
    )
