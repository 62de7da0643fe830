"""The figures of decisions, each where it makes a difference."""

from __future__ import annotations

import datetime as dt
import random

import pytest

from batchling_client.wire.states import Outcome, RowKind
from batchling_worker import backoff
from batchling_worker.decisions import fates, looks, quota, rereading, status_words
from batchling_worker.decisions.fates import Requeue
from batchling_worker.decisions.quota import Limit
from batchling_worker.decisions.rereading import ReadAgain, Reading, Tally
from batchling_worker.provider import Answer, Complaint, Ending

from .test_lifecycle import NOW, ONE, ago, batch
from .test_rereading import PATIENCE_S, ended, judged

MOMENTS = [NOW + dt.timedelta(seconds=0.02 * n) for n in range(500)]
"""A whole interval of ten seconds."""
BROKE = b'{"error":{"code":"insufficient_quota"}}'


def test_words_on_money_are_looked_for_in_the_first_four_kilobytes_of_an_answer() -> None:
    def kind(padding: int) -> RowKind:
        return fates.row_kind(
            Answer(custom_id="c", status=429, body=b" " * padding + BROKE, headers={}, origin="provider")
        )

    assert (kind(4096 - len(BROKE)), kind(4096)) == (RowKind.FAILURE, RowKind.RETRY)


def test_after_a_validator_that_did_not_find_its_file_the_next_batch_comes_ten_seconds_later() -> None:
    ending = Ending(complaints=(Complaint(code="invalid_request", message="no such file", param="file_id"),))
    fate = fates.row_fate(batch(outcome=Outcome.FAILED), ending, ONE, 1, 3)
    assert fate == Requeue(counts=True, wait_s=10.0)


@pytest.mark.parametrize(
    ("age_s", "pause_s"), [(0, 2.5), (4, 2.5), (20, 5.0), (36, 9.0), (40, 10.0), (200, 10.0)]
)
def test_a_young_batch_waits_a_quarter_of_its_age_and_a_quarter_of_the_interval_at_least(
    age_s: float, pause_s: float
) -> None:
    one = batch(submitted_at=ago(age_s))
    assert looks.pace_s(one, 10.0, NOW, unnamed=True) == pause_s
    assert looks.pace_s(one, 10.0, NOW) == 10.0


@pytest.mark.parametrize(
    ("age_s", "unnamed", "soonest_s", "width_s"),
    [(100, False, 7.5, 10.0), (5, False, 2.5, 10.0), (20, True, 2.5, 5.0), (0, True, 1.25, 2.5)],
    ids=["steady", "after its first look", "young", "new"],
)
def test_looks_use_the_slots_from_so_soon_on(
    age_s: float, unnamed: bool, soonest_s: float, width_s: float
) -> None:
    """A slot is used from the soonest moment on; otherwise the next one is, which is a width later."""
    delays = []
    for now in MOMENTS:
        one = batch(submitted_at=now - dt.timedelta(seconds=age_s))
        delays.append(looks.next_look_s(one, 10.0, now, account="acc", unnamed=unnamed))
    assert soonest_s <= min(delays) < soonest_s + 0.03
    assert max(delays) < soonest_s + width_s


def test_a_figure_surely_has_room_for_a_batch_of_a_quarter_of_it() -> None:
    """An estimate is off by four at most, as a token is never less than a byte."""
    assert quota.learned_limit(100, 400, 0, news=True) is None
    assert quota.learned_limit(100, 399, 0, news=True) == Limit(tokens=50, guess=True)


def test_a_provider_s_figure_holds_for_an_hour_and_a_guess_for_ten_minutes() -> None:
    assert Limit(tokens=1, guess=False).trusted == dt.timedelta(hours=1)
    assert Limit(tokens=1, guess=True).trusted == dt.timedelta(minutes=10)


def test_of_a_long_refusal_the_first_300_characters_are_shown() -> None:
    refusal = quota.refusal_in("Enqueued token limit reached. " + "x" * 1000)
    assert refusal is not None
    assert len(refusal.why) == 300


def test_results_are_read_again_after_a_second() -> None:
    verdict = judged()
    assert isinstance(verdict, ReadAgain)
    assert verdict.delay_s == 1.0


def test_a_held_batch_is_read_again_after_minutes_and_every_hour_at_last() -> None:
    def pause_s(n_unread: int) -> float:
        one = ended(n_unread=n_unread, since_s=PATIENCE_S)
        tally = Tally(n_left=3, n_succeeded=0, n_failed=0)
        verdict = rereading.judge(one, Ending(n_succeeded=3, results=("f",)), Reading(), tally, PATIENCE_S)
        assert isinstance(verdict, ReadAgain)
        assert verdict.held
        return verdict.delay_s

    assert pause_s(3) == 60.0 * 1.5**3
    assert pause_s(16) == 3600.0


def test_of_a_status_word_the_first_64_characters_count() -> None:
    assert status_words.outcome_of("completed" + " " * 55 + "x") is Outcome.COMPLETED
    assert status_words.outcome_of(" " * 60 + "completed") is None


def test_pauses_are_drawn_from_a_tenth_of_a_second_up_to_five_minutes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ranges: list[tuple[float, float]] = []

    def uniform(low: float, high: float) -> float:
        ranges.append((low, high))
        return low

    monkeypatch.setattr(random, "uniform", uniform)
    for n_failures in (0, 1, 8, 9, 100):
        backoff.pause_s(n_failures)
    backoff.parked_pause_s()
    assert ranges == [(0.1, 1.0), (0.1, 2.0), (0.1, 256.0), (0.1, 300.0), (0.1, 300.0), (15.0, 30.0)]
