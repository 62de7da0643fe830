"""What a reading of results proves: when a batch is read again, when it is settled, and when it is held."""

from __future__ import annotations

import datetime as dt
from typing import Any

import msgspec
import pytest

from batchling_client.wire.keys import ProviderBatchId
from batchling_client.wire.states import Outcome
from batchling_worker.decisions import rereading
from batchling_worker.decisions.rereading import Complete, ReadAgain, Reading, Tally
from batchling_worker.errors import Denied, TemporaryError
from batchling_worker.provider import Ending

from .test_lifecycle import NOW, ago, batch

PATIENCE_S = 180.0
BROKEN = TemporaryError("the file answers 500")


def ended(
    outcome: Outcome = Outcome.COMPLETED, *, n_unread: int = 0, since_s: float = 0.0, **more: Any
) -> Any:
    return batch(
        outcome=outcome,
        provider_batch_id=ProviderBatchId("pb-1"),
        n_unread=n_unread,
        unread_since=ago(since_s) if n_unread else None,
        read_at=NOW,
        **more,
    )


def judged(
    *,
    outcome: Outcome = Outcome.COMPLETED,
    patient: bool = True,
    counted: int | None = None,
    reading: Reading | None = None,
    n_left: int = 3,
    n_succeeded: int = 0,
    n_failed: int = 0,
    results: tuple[str, ...] = ("file-1",),
) -> rereading.Verdict:
    one = ended(outcome) if patient else ended(outcome, n_unread=9, since_s=PATIENCE_S)
    tally = Tally(n_left=n_left, n_succeeded=n_succeeded, n_failed=n_failed)
    ending = Ending(n_succeeded=counted, results=results)
    return rereading.judge(one, ending, reading or Reading(), tally, PATIENCE_S)


def held(verdict: rereading.Verdict) -> bool:
    return isinstance(verdict, ReadAgain) and verdict.held


def test_where_every_request_is_answered_or_explained_nothing_is_read_again() -> None:
    assert judged(n_left=0, reading=Reading(failure=BROKEN)) == Complete()
    assert judged(n_left=3, reading=Reading(n_retry=3)) == Complete()


@pytest.mark.parametrize("outcome", [Outcome.EXPIRED, Outcome.CANCELLED, Outcome.FAILED])
def test_a_batch_that_did_not_complete_is_read_again_only_for_answers_that_are_counted(
    outcome: Outcome,
) -> None:
    assert judged(outcome=outcome) == Complete()
    assert judged(outcome=outcome, counted=2, n_succeeded=2) == Complete()
    assert isinstance(judged(outcome=outcome, counted=3, n_succeeded=2), ReadAgain)
    assert isinstance(judged(outcome=outcome, reading=Reading(failure=BROKEN)), ReadAgain)


@pytest.mark.parametrize("outcome", [Outcome.LOST, Outcome.SPLIT])
def test_a_batch_without_results_is_not_read_again(outcome: Outcome) -> None:
    assert judged(outcome=outcome, counted=3) == Complete()


def test_pauses_grow_and_several_readings_come_before_anything_is_run_again() -> None:
    reading, tally = Reading(), Tally(n_left=1, n_succeeded=9, n_failed=0)
    pauses: list[float] = []
    waited_s = 0.0
    while True:
        one = ended(n_unread=len(pauses), since_s=waited_s)
        verdict = rereading.judge(
            one, Ending(n_succeeded=10, results=("file-1",)), reading, tally, PATIENCE_S
        )
        if not isinstance(verdict, ReadAgain):
            break
        pauses.append(verdict.delay_s)
        waited_s += verdict.delay_s
    assert pauses == sorted(pauses)
    assert len(pauses) >= 6
    assert sum(pauses[:5]) > 25, "file ids that come 25 s late are seen"
    assert PATIENCE_S <= waited_s < 2 * PATIENCE_S


def test_the_pause_that_a_provider_asks_for_is_kept_within_minutes() -> None:
    asked = judged(reading=Reading(failure=TemporaryError("busy", delay_s=90.0)))
    too_long = judged(reading=Reading(failure=TemporaryError("busy", delay_s=86_400.0)))
    assert isinstance(asked, ReadAgain)
    assert isinstance(too_long, ReadAgain)
    assert (asked.delay_s, too_long.delay_s) == (90.0, 300.0)


def test_a_batch_that_runs_again_is_waited_for_as_long_as_it_runs() -> None:
    verdict = judged(patient=False, reading=Reading(running=True))
    assert isinstance(verdict, ReadAgain)
    assert not verdict.held


@pytest.mark.parametrize("failure", [BROKEN, Denied("404")])
def test_unread_answers_hold_the_batch_and_files_without_any_do_not(failure: TemporaryError) -> None:
    unread = Reading(failure=failure)
    assert held(judged(patient=False, counted=5, n_succeeded=2, reading=unread))
    assert held(judged(patient=False, counted=None, n_succeeded=2, reading=unread)), "nothing is counted"
    assert judged(patient=False, counted=2, n_succeeded=2, reading=unread) == Complete()


def test_where_none_of_the_answers_is_found_nothing_is_run_again() -> None:
    assert held(judged(patient=False, counted=3))
    assert held(judged(patient=False, counted=None))
    assert held(judged(patient=False, counted=0, reading=Reading(n_foreign=3)))
    assert judged(patient=False, counted=0) == Complete(), "none was answered"
    assert judged(patient=False, counted=5, n_succeeded=2) == Complete(), "files were read to their end"


def test_the_file_of_another_batch_proves_nothing_about_the_rows_of_this_one() -> None:
    foreign = Reading(n_ok=3, n_unknown=3)
    assert held(judged(patient=False, counted=3, reading=foreign))
    assert isinstance(judged(outcome=Outcome.EXPIRED, counted=3, reading=foreign), ReadAgain)
    given_up = Tally(n_left=1, n_succeeded=0, n_failed=0, n_gone=3)
    late = ended(n_unread=9, since_s=PATIENCE_S)
    ending = Ending(n_succeeded=3, results=("file-1",))
    assert rereading.judge(late, ending, foreign, given_up, PATIENCE_S) == Complete(), "callers gave those up"


def test_answers_that_came_before_the_end_do_not_show_that_the_others_are_missing() -> None:
    assert held(judged(patient=False, counted=3, n_succeeded=2, n_left=1, results=()))
    assert held(judged(patient=False, counted=None, n_succeeded=2, n_left=1, results=()))
    assert judged(patient=False, counted=2, n_succeeded=2, n_left=1, results=()) == Complete()


@pytest.mark.parametrize(
    ("window", "age", "over"),
    [
        ("24h", dt.timedelta(days=30, hours=23), False),
        ("24h", dt.timedelta(days=31, hours=1), True),
        ("2d", dt.timedelta(days=31, hours=1), False),
        ("168h", dt.timedelta(days=35), True),
        ("whenever", dt.timedelta(days=31, hours=1), True),
        ("9" * 400 + "h", dt.timedelta(days=31, hours=1), True),
    ],
)
def test_a_batch_is_given_up_when_window_and_retention_are_over(
    window: str, age: dt.timedelta, over: bool
) -> None:
    one = batch(
        spec=msgspec.structs.replace(batch().spec, completion_window=window),
        submitted_at=NOW - age,
        created_at=NOW - age,
    )
    assert rereading.is_over(one, NOW) is over


def doubted(
    *,
    outcome: Outcome = Outcome.COMPLETED,
    certain: bool = True,
    counted: int | None = 3,
    reading: Reading | None = None,
    n_left: int = 0,
    n_succeeded: int = 3,
    results: tuple[str, ...] = ("file-1",),
) -> bool:
    ending = Ending(certain=certain, n_succeeded=counted, results=results)
    tally = Tally(n_left=n_left, n_succeeded=n_succeeded, n_failed=0)
    return rereading.in_doubt(ended(outcome), ending, reading or Reading(), tally)


def test_a_batch_whose_every_answer_was_read_is_in_no_doubt() -> None:
    assert not doubted()
    assert not doubted(n_left=2, reading=Reading(n_retry=2))
    assert not doubted(outcome=Outcome.EXPIRED, n_left=4)
    assert not doubted(outcome=Outcome.CANCELLED, n_left=4)
    assert not doubted(outcome=Outcome.FAILED, counted=None, n_succeeded=0, n_left=3, results=())


@pytest.mark.parametrize("failing", [Reading(failure=BROKEN), Reading(running=True), Reading(n_foreign=1)])
def test_files_that_may_hold_more_are_in_doubt(failing: Reading) -> None:
    assert doubted(certain=False)
    assert doubted(reading=failing)
    assert doubted(n_left=1)
    assert doubted(outcome=Outcome.EXPIRED, n_left=4, counted=4)
    assert doubted(outcome=Outcome.EXPIRED, n_left=4, counted=None)
    assert doubted(outcome=Outcome.FAILED, n_left=1, counted=None)
