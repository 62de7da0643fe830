"""What becomes of a batch whose step ended with an error: one line for each case."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest

from batchling_client.wire.states import BatchState
from batchling_worker.decisions.after_error import After, after
from batchling_worker.errors import (
    CreateRefused,
    Denied,
    MaybeDone,
    NotYet,
    PermanentError,
    TemporaryError,
    Waiting,
)

from .test_lifecycle import NOW, ago, batch

DAY_S = dt.timedelta(days=1).total_seconds()
SEALED = batch(state=BatchState.SEALED)
SEARCHED = batch(state=BatchState.SUBMITTING, create_at=NOW)
SUBMITTED = batch(state=BatchState.SUBMITTED, submitted_at=NOW)
ENDED = batch(state=BatchState.ENDED)
REFUSED = PermanentError("no such key", status=401)
FAULT = PermanentError("the server is broken", status=500)
ROOM = Waiting("no room", delay_s=1.0)
PARKED = Waiting("parked", delay_s=1.0, refusal=REFUSED)
PARKED_FAULT = Waiting("parked", delay_s=1.0, refusal=FAULT)
STUMBLED = TemporaryError("503")


def old(one: Any, days: float) -> Any:
    """The batch, created and tried for so long."""
    return batch(
        state=one.state,
        create_at=one.create_at and ago(days * DAY_S),
        submitted_at=one.submitted_at and ago(days * DAY_S),
        created_at=ago(days * DAY_S),
        unable_since=ago(days * DAY_S),
    )


def cancelled(one: Any) -> Any:
    return batch(
        state=one.state, create_at=one.create_at, submitted_at=one.submitted_at, cancel_requested=True
    )


CASES: list[tuple[str, Any, Any, After]] = [
    ("nothing went wrong", SEARCHED, NotYet("search"), After.LOOK_AGAIN),
    ("nothing went wrong, for long", old(SEARCHED, 32), NotYet("search"), After.LOOK_AGAIN),
    ("no room in a quota", SEALED, ROOM, After.WAIT),
    ("an open circuit", SUBMITTED, ROOM, After.WAIT),
    ("no room for a window", old(SEALED, 1.1), ROOM, After.END_UNSUBMITTED),
    ("an ended batch that waits is read first", old(ENDED, 32), ROOM, After.WAIT),
    ("a running batch that waits for a month", old(SUBMITTED, 32), ROOM, After.END_UNREAD),
    ("a fault", SEALED, STUMBLED, After.STUMBLE),
    ("a lost answer", SEALED, MaybeDone("cut"), After.STUMBLE),
    ("an unknown batch", SUBMITTED, Denied("404"), After.STUMBLE),
    ("faults for a window", old(SEALED, 1.1), STUMBLED, After.END_UNSUBMITTED),
    ("a search that fails for a window", old(SEARCHED, 1.1), STUMBLED, After.STUMBLE),
    ("a search that fails for a day more", old(SEARCHED, 2.1), STUMBLED, After.END_UNSUBMITTED),
    ("looks that fail for a window", old(SUBMITTED, 1.1), STUMBLED, After.STUMBLE),
    ("looks that fail for a month", old(SUBMITTED, 32), STUMBLED, After.END_UNREAD),
    ("downloads that fail for a month", old(ENDED, 32), STUMBLED, After.END_UNREAD),
    ("a refusal", SEALED, REFUSED, After.END_REFUSED),
    ("a key that was just refused", SEALED, PARKED, After.END_REFUSED),
    ("a refused create", SEALED, CreateRefused("no"), After.END_REFUSED),
    ("a refused create after another", SEARCHED, CreateRefused("no"), After.SEARCH_ONCE_MORE),
    ("a refused search", SEARCHED, REFUSED, After.PARK),
    ("a refused look", SUBMITTED, REFUSED, After.PARK),
    ("a look while the key is refused", SUBMITTED, PARKED, After.PARK),
    ("a refused download", ENDED, REFUSED, After.PARK),
    ("refused looks for a month", old(SUBMITTED, 32), REFUSED, After.END_REFUSED),
    ("a refused key for a month", old(SUBMITTED, 32), PARKED, After.END_REFUSED),
    ("a broken server for a month", old(SUBMITTED, 32), FAULT, After.END_UNREAD),
    ("a broken server for a month, parked", old(SUBMITTED, 32), PARKED_FAULT, After.END_UNREAD),
    ("a cancel under a refused key", cancelled(SUBMITTED), REFUSED, After.END_CANCELLED),
    ("a cancel of a search under a refused key", cancelled(SEARCHED), PARKED, After.END_CANCELLED),
    ("a cancel of an ended batch", cancelled(ENDED), REFUSED, After.PARK),
]


@pytest.mark.parametrize(
    ("one", "error", "what"), [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)
def test_each_error_leaves_a_batch_due_held_or_ended(
    one: Any, error: TemporaryError | PermanentError, what: After
) -> None:
    assert after(one, error, NOW) is what


def test_every_outcome_has_a_case() -> None:
    assert {case[3] for case in CASES} == set(After)


@pytest.mark.parametrize("one", [SEALED, SEARCHED, SUBMITTED, ENDED])
def test_a_refused_key_of_another_account_ends_nothing(one: Any) -> None:
    assert after(one, PARKED, NOW, estranged=True) is After.WAIT
