"""Checks the promises against what clients saw, what the provider billed and what Redis keeps."""

from __future__ import annotations

import datetime as dt
import itertools
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias

from batchling_client.wire.answer_shape import UNFIT, UNFIT_STATUS

from .history import Event
from .plan import Content, Question
from .recovery import Recovery

Wrong: TypeAlias = Literal[
    "lost",
    "doubled",
    "mixed up",
    "failed",
    "billed twice",
    "not billed",
    "full price",
    "leaked",
    "left",
    "quarantined",
    "late",
    "broken",
]
OUTCOMES: Final = frozenset({"answered", "failed", "cancelled"})
CANCELLED: Final = 499
SHOWN_BEGINNING: Final = 60
SHOWN_WHOLE: Final = 100
"""The sandbox quotes prompts up to this length in full, and longer prompts in part."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """A broken promise, and its evidence in one line."""

    wrong: Wrong
    what: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """Everything that a run leaves for the check."""

    questions: Mapping[str, Question]
    """Call -> the question, as planned."""
    events: Mapping[int, Sequence[Event]]
    """Client -> its history."""
    paid: Mapping[str, int] = field(default_factory=dict)
    """custom_id -> how often the provider billed it."""
    sent: Mapping[str, Content] = field(default_factory=dict)
    """custom_id -> the request that the provider got."""
    spoilt: Collection[Content] = ()
    """Requests that the provider answered at no cost, with 200 and something other than an answer."""
    n_realtime: int = 0
    leaks: Sequence[str] = ()
    left: Sequence[str] = ()
    quarantined: Sequence[str] = ()
    broken: Sequence[str] = ()
    recoveries: Sequence[Recovery] = ()
    recovery_bound_s: float = float("inf")


@dataclass(slots=True)
class _Group:
    """All calls and bills of one request content."""

    question: Question
    n_same: int = 0
    """How many equal requests one round sends."""
    n_asked: int = 0
    n_answered: int = 0
    custom_ids: list[str] = field(default_factory=list)


def check(evidence: Evidence) -> list[Violation]:
    """Return every violation; empty if all promises were kept."""
    return [
        *_calls(evidence),
        *_runs(evidence),
        *_bills(evidence),
        *_rest(evidence),
    ]


def _calls(evidence: Evidence) -> Iterator[Violation]:
    """Check that each call is answered once in each life of its client, with its own answer."""
    for events in evidence.events.values():
        outcomes: dict[tuple[str, int], list[Event]] = defaultdict(list)
        last_life: dict[str, int] = {}
        for event in events:
            if event.what == "asked":
                last_life[event.call] = max(event.life, last_life.get(event.call, 0))
            elif event.what in OUTCOMES:
                outcomes[event.call, event.life].append(event)
            elif event.what == "broken":
                yield Violation(wrong="broken", what=f"a client's round {event.round}: {event.text}")
        for call, life in last_life.items():
            if not outcomes.get((call, life)):
                yield Violation(wrong="lost", what=f"{call}, asked in life {life}, was never answered")
        for (call, life), found in outcomes.items():
            if len(found) > 1:
                yield Violation(
                    wrong="doubled", what=f"{call} was answered {len(found)} times in life {life}"
                )
            for event in found:
                yield from _answer(evidence.questions[call], event, evidence.spoilt)


def _answer(question: Question, event: Event, spoilt: Collection[Content]) -> Iterator[Violation]:
    if event.what == "cancelled":
        if question.cancel_after_s is None:
            yield Violation(wrong="lost", what=f"{question.call} was cancelled and nobody asked for that")
        return
    if event.status != question.status and not _is_fair(question, event, spoilt):
        what = f"{question.call} got {event.status} instead of {question.status}: {event.text}"
        yield Violation(wrong="failed", what=what)
    elif event.what == "answered":
        prompt = question.prompt
        quoted = prompt if len(prompt) <= SHOWN_WHOLE else prompt[:SHOWN_BEGINNING]
        if quoted not in event.text:
            what = f"{question.call} asked {quoted!r} and got {event.text!r}"
            yield Violation(wrong="mixed up", what=what)


def _is_fair(question: Question, event: Event, spoilt: Collection[Content]) -> bool:
    """Return whether the provider caused an error.

    It sent something other than an answer, or it lost the answer and the rest of its batch for good, so that the worker
    gave the batch up.
    """
    if event.status == UNFIT_STATUS and UNFIT in event.text:
        return question.content in spoilt
    return event.status == CANCELLED and "batch_cancelled" in event.text and question.n_lost > 0


def _runs(evidence: Evidence) -> Iterator[Violation]:
    """Check that a request has one answer for all callers and repeats; equal requests of a round have one each."""
    runs: dict[Content, set[str]] = defaultdict(set)
    samples: dict[tuple[Content, int, int], list[str]] = defaultdict(list)
    groups = _groups(evidence)
    for client, events in evidence.events.items():
        for event in events:
            if event.what != "answered":
                continue
            question = evidence.questions[event.call]
            if not question.cached:
                continue
            if groups[question.content].n_same == 1:
                runs[question.content].add(event.run)
            else:
                samples[question.content, client, event.life].append(event.run)
    for content, found in runs.items():
        if len(found) > 1:
            yield Violation(wrong="doubled", what=f"{_title(content)} was answered from {sorted(found)}")
    for (content, _, _), drawn in samples.items():
        if len(set(drawn)) < len(drawn):
            yield Violation(
                wrong="mixed up", what=f"equal calls of {_title(content)} shared an answer: {drawn}"
            )


def _bills(evidence: Evidence) -> Iterator[Violation]:
    """Check that the provider billed each request once: per custom_id, and per content over all custom_ids."""
    groups = _groups(evidence)
    for custom_id, n_paid in evidence.paid.items():
        content = evidence.sent.get(custom_id)
        group = groups.get(content) if content is not None else None
        if content is None or group is None:
            what = f"{custom_id} was billed and nobody asked it ({_title(content) if content else 'unknown'})"
            yield Violation(wrong="billed twice", what=what)
        elif n_paid > 1 + group.question.n_lost:
            yield Violation(
                wrong="billed twice", what=f"{custom_id} was billed {n_paid} times ({_title(content)})"
            )
    for content, group in groups.items():
        n_paid = sum(evidence.paid.get(custom_id, 0) for custom_id in group.custom_ids)
        least, most = _fair(group)
        if n_paid > most:
            what = f"{_title(content)} was billed {n_paid} times instead of {most}, as {group.custom_ids}"
            yield Violation(wrong="billed twice", what=what)
        elif n_paid < least:
            what = f"{_title(content)} was billed {n_paid} times for {least} answers"
            yield Violation(wrong="not billed", what=what)


def _fair(group: _Group) -> tuple[int, int]:
    """Return the lowest and highest number of times that a content may be billed."""
    question = group.question
    if question.status != 200:
        return 0, 0
    n_requests = group.n_same if question.cached else group.n_asked
    least = min(n_requests, group.n_answered)
    return least, n_requests * (1 + question.n_lost)


def _groups(evidence: Evidence) -> dict[Content, _Group]:
    groups: dict[Content, _Group] = {}
    in_round: Counter[tuple[Content, int, int]] = Counter()
    for client, events in evidence.events.items():
        asked_once: set[str] = set()
        for event in events:
            if event.what not in ("asked", "answered"):
                continue
            question = evidence.questions[event.call]
            group = groups.setdefault(question.content, _Group(question))
            if event.what == "answered":
                group.n_answered += 1
                continue
            group.n_asked += 1
            if event.call in asked_once:
                continue
            asked_once.add(event.call)
            place = (question.content, client, event.round)
            in_round[place] += 1
            group.n_same = max(group.n_same, in_round[place])
    for custom_id, content in evidence.sent.items():
        if content in groups:
            groups[content].custom_ids.append(custom_id)
    return groups


def _rest(evidence: Evidence) -> Iterator[Violation]:
    if evidence.n_realtime:
        yield Violation(wrong="full price", what=f"{evidence.n_realtime} calls went out in real time")
    for wrong, found in _named(evidence):
        for what in found:
            yield Violation(wrong=wrong, what=what)
    for one in evidence.recoveries:
        if not one.disturbed and one.took_s > evidence.recovery_bound_s:
            what = f"{one.batch_id} was begun again by {one.pid} {one.took_s:.2f} s after its worker's death"
            what += f" at {dt.datetime.fromtimestamp(one.died_at).astimezone():%H:%M:%S.%f}"
            yield Violation(wrong="late", what=f"{what}, later than {evidence.recovery_bound_s:g} s")


def _named(evidence: Evidence) -> Iterable[tuple[Wrong, Sequence[str]]]:
    yield "leaked", evidence.leaks
    yield "left", evidence.left
    yield "quarantined", evidence.quarantined
    yield "broken", evidence.broken


def _title(content: Content) -> str:
    provider, key, model, prompt = content
    return f"{provider}/{model} key {key}: {prompt[:SHOWN_BEGINNING]!r}"


def tally(violations: Iterable[Violation]) -> Counter[str]:
    """Return the number of broken promises, by kind."""
    return Counter(violation.wrong for violation in violations)


def first_of_each(violations: Sequence[Violation], most: int) -> list[Violation]:
    """Return a few violations of each kind, for the report."""
    by_kind = itertools.groupby(sorted(violations, key=lambda one: one.wrong), key=lambda one: one.wrong)
    return [one for _, some in by_kind for one in itertools.islice(some, most)]
