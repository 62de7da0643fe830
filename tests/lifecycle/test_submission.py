"""What a submission does first and after a search, for each trace of what earlier steps may have sent."""

from __future__ import annotations

import datetime as dt
import itertools
from typing import Any

import pytest

from batchling_client.wire.states import BatchState
from batchling_worker.decisions import submission
from batchling_worker.decisions.submission import Move, Trace, trace_of

from .test_lifecycle import NOW, batch

ANOTHER_RUN = {"server": "run-1", "server_now": "run-2"}
TRACES: list[tuple[Trace, dict[str, Any]]] = [
    (Trace.UNTOUCHED, {"state": BatchState.SEALED}),
    (Trace.UNTOUCHED, {"state": BatchState.SEALED, "server": "run-2", "server_now": "run-2"}),
    (Trace.BEGUN, {"state": BatchState.SUBMITTING}),
    (Trace.ARMED, {"state": BatchState.SUBMITTING, "create_at": NOW}),
    (Trace.ARMED, {"state": BatchState.SUBMITTING, "create_at": NOW, **ANOTHER_RUN}),
    (Trace.FORGOTTEN, {"state": BatchState.SEALED, **ANOTHER_RUN}),
    (Trace.FORGOTTEN, {"state": BatchState.SUBMITTING, **ANOTHER_RUN}),
    (Trace.FORGOTTEN, {"state": BatchState.SUBMITTING, "doubted_at": NOW, **ANOTHER_RUN}),
    (Trace.DOUBTED, {"state": BatchState.SUBMITTING, "doubted_at": NOW}),
]
SEEN: dict[Trace, tuple[Move, Move, Move, Move, Move]] = {
    Trace.UNTOUCHED: (Move.CREATE, Move.CANCEL, Move.CREATE, Move.CANCEL, Move.END),
    Trace.BEGUN: (Move.SEARCH, Move.CANCEL, Move.CREATE, Move.CANCEL, Move.END),
    Trace.ARMED: (Move.SEARCH, Move.SEARCH, Move.CREATE, Move.CANCEL, Move.END),
    Trace.FORGOTTEN: (Move.SEARCH, Move.SEARCH, Move.DOUBT, Move.DOUBT, Move.DOUBT),
    Trace.DOUBTED: (Move.SEARCH, Move.SEARCH, Move.CREATE, Move.CANCEL, Move.END),
}
"""First, and first when cancelled; then after a search without a batch: wanted, cancelled, tried for long enough."""


@pytest.mark.parametrize(("trace", "fields"), TRACES)
def test_a_batch_leaves_one_of_five_traces(trace: Trace, fields: dict[str, Any]) -> None:
    assert trace_of(batch(**fields)) is trace


def test_each_trace_has_its_moves() -> None:
    for trace, expected in SEEN.items():
        seen = (
            submission.first(trace, cancelled=False),
            submission.first(trace, cancelled=True),
            submission.unfound(trace, cancelled=False, is_over=False),
            submission.unfound(trace, cancelled=True, is_over=False),
            submission.unfound(trace, cancelled=False, is_over=True),
        )
        assert seen == expected, trace
    assert set(SEEN) == set(Trace)


@pytest.mark.parametrize("trace", [trace for trace in Trace if trace.may_be_made])
def test_nothing_is_created_or_cancelled_unsearched_where_a_batch_may_have_been_made(trace: Trace) -> None:
    assert {submission.first(trace, cancelled=wish) for wish in (False, True)} == {Move.SEARCH}


def test_a_forgotten_create_is_waited_for_whatever_is_wished() -> None:
    wishes = itertools.product((False, True), repeat=2)
    moves = {submission.unfound(Trace.FORGOTTEN, cancelled=c, is_over=o) for c, o in wishes}
    assert moves == {Move.DOUBT}


@pytest.mark.parametrize(
    ("create_took_s", "looked_after_s", "age_s", "status", "is_due"),
    [
        (0.2, 0.2, 2.0, "", False),
        (1.0, 1.0, 2.0, "", True),
        (1.0, 2.0, 9.0, "validating", False),
        (1.0, 29.0, 31.0, "validating", True),
        (1.0, 31.0, 40.0, "validating", False),
    ],
)
def test_doubles_of_a_slow_create_are_searched_for_twice(
    create_took_s: float, looked_after_s: float, age_s: float, status: str, *, is_due: bool
) -> None:
    made = NOW + dt.timedelta(seconds=create_took_s)
    submitted = batch(
        state=BatchState.SUBMITTED,
        create_at=NOW,
        submitted_at=made,
        updated_at=made + dt.timedelta(seconds=looked_after_s),
        provider_status=status,
    )
    assert submission.doubles_are_due(submitted, made + dt.timedelta(seconds=age_s)) is is_due
