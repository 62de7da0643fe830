"""The checker finds every kind of broken promise in a made-up history."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.chaos import history, plan, schedule
from tests.chaos.checker import Evidence, check
from tests.chaos.history import Event, What
from tests.chaos.plan import Question
from tests.chaos.recovery import Begun, Death, recoveries
from tests.chaos.schedule import Counts

ONE = Question(call="c0r0q0", provider="groq", key=0, model="llama", prompt="c0r0 no. 0: tell me of maps")
TWO = replace(ONE, call="c0r0q1", prompt="c0r0 no. 1: tell me of tides")
ASKED = {ONE.call: ONE, TWO.call: TWO}


def event(what: What, question: Question = ONE, *, life: int = 0, **more: object) -> Event:
    """Return a line of a client's history."""
    given: dict[str, object] = {
        "status": 200,
        "text": f"Ha. (Asked: {question.prompt})",
        "run": f"of {question.call}",
    }
    fields = {**(given if what == "answered" else {}), **more}
    return Event(what=what, at=0.0, life=life, call=question.call, round=0, **fields)  # type: ignore[arg-type]


def told(*events: Event, **more: object) -> Evidence:
    """Return the evidence of a run in which one client saw these events and the provider billed each question once."""
    given: dict[str, object] = {
        "questions": ASKED,
        "events": {0: events},
        "paid": {"id0": 1, "id1": 1},
        "sent": {"id0": ONE.content, "id1": TWO.content},
    }
    return Evidence(**{**given, **more})  # type: ignore[arg-type]


def all_well(**more: object) -> Evidence:
    """Return the evidence of a run in which two calls were answered."""
    return told(event("asked"), event("asked", TWO), event("answered"), event("answered", TWO), **more)


def wrongs(evidence: Evidence) -> set[str]:
    """Return the kinds of violations that are found."""
    return {violation.wrong for violation in check(evidence)}


def test_a_run_without_violations_passes() -> None:
    assert check(all_well()) == []


def test_a_lost_answer_is_reported() -> None:
    evidence = told(event("asked"), event("asked", TWO), event("answered"), paid={"id0": 1})
    [violation] = check(evidence)
    assert violation.wrong == "lost"
    assert TWO.call in violation.what


def test_an_answer_before_a_kill_does_not_count_after_it() -> None:
    evidence = told(event("asked"), event("answered"), event("asked", life=1), paid={"id0": 1})
    assert wrongs(evidence) == {"lost"}


def test_a_call_that_a_killed_client_asks_again_is_not_lost() -> None:
    evidence = told(event("asked"), event("asked", life=1), event("answered", life=1), paid={"id0": 1})
    assert check(evidence) == []


def test_a_doubled_answer_is_reported() -> None:
    evidence = told(event("asked"), event("answered"), event("answered"), paid={"id0": 1})
    assert "doubled" in wrongs(evidence)


def test_a_second_run_of_a_request_is_reported_even_at_no_cost() -> None:
    again = event("answered", life=1, run="of another run")
    evidence = told(event("asked"), event("answered"), event("asked", life=1), again, paid={"id0": 1})
    assert wrongs(evidence) == {"doubled"}


def test_an_answer_of_another_call_is_reported() -> None:
    mixed_up = event("answered", text=f"Ha. (Asked: {TWO.prompt})")
    assert wrongs(told(event("asked"), mixed_up, paid={"id0": 1})) == {"mixed up"}


def test_equal_calls_that_share_an_answer_are_reported() -> None:
    same = replace(ONE, call="c0r0q2")
    first, second = event("answered"), event("answered", same, run="of c0r0q0")
    evidence = told(
        event("asked"),
        event("asked", same),
        first,
        second,
        questions={ONE.call: ONE, same.call: same},
        paid={"id0": 1, "id1": 1},
        sent={"id0": ONE.content, "id1": ONE.content},
    )
    assert wrongs(evidence) == {"mixed up"}


def test_a_custom_id_billed_twice_is_reported() -> None:
    assert wrongs(all_well(paid={"id0": 2, "id1": 1})) == {"billed twice"}


def test_a_request_billed_under_two_custom_ids_is_reported() -> None:
    paid = {"id0": 1, "id1": 1, "id2": 1}
    sent = {"id0": ONE.content, "id1": TWO.content, "id2": ONE.content}
    [violation] = check(all_well(paid=paid, sent=sent))
    assert violation.wrong == "billed twice"
    assert "id2" in violation.what


def test_a_bill_without_a_call_is_reported() -> None:
    assert wrongs(all_well(paid={"id0": 1, "id1": 1, "id9": 1})) == {"billed twice"}


def test_an_answer_without_a_bill_is_reported() -> None:
    assert wrongs(all_well(paid={"id0": 1})) == {"not billed"}


def test_a_row_that_the_provider_loses_may_be_billed_only_once_more() -> None:
    lossy = replace(ONE, n_lost=1)
    questions = {lossy.call: lossy, TWO.call: TWO}
    assert check(all_well(questions=questions, paid={"id0": 2, "id1": 1})) == []
    assert wrongs(all_well(questions=questions, paid={"id0": 3, "id1": 1})) == {"billed twice"}


def test_uncached_calls_may_be_billed_as_often_as_they_are_asked() -> None:
    fresh = replace(ONE, cached=False)
    events = (event("asked"), event("asked", life=1), event("answered", life=1))
    sent = {"id0": ONE.content, "id1": ONE.content, "id2": ONE.content}
    evidence = told(*events, questions={fresh.call: fresh}, sent=sent)
    assert check(evidence) == []
    assert wrongs(replace(evidence, paid={"id0": 1, "id1": 1, "id2": 1})) == {"billed twice"}


def test_a_cancelled_call_may_be_billed_once_or_not_at_all() -> None:
    regretted = replace(ONE, cancel_after_s=0.5)
    evidence = told(event("asked"), event("cancelled"), questions={regretted.call: regretted}, paid={})
    assert check(evidence) == []
    assert check(replace(evidence, paid={"id0": 1})) == []
    assert wrongs(replace(evidence, paid={"id0": 2})) == {"billed twice"}


def test_unexpected_errors_are_reported_and_expected_ones_are_not() -> None:
    failed = event("failed", status=503, text="InternalServerError request_lost")
    assert wrongs(told(event("asked"), failed, paid={})) == {"failed"}
    wrong = replace(ONE, status=400)
    told_why = event("failed", status=400)
    assert check(told(event("asked"), told_why, questions={wrong.call: wrong}, paid={})) == []


def test_only_rows_that_the_provider_spoilt_may_fail() -> None:
    unfit = event("failed", status=502, text="InternalServerError batch_answer_unfit no answer")
    evidence = told(event("asked"), unfit, paid={}, spoilt={ONE.content})
    assert check(evidence) == []
    assert wrongs(replace(evidence, spoilt={TWO.content})) == {"failed"}
    assert wrongs(told(event("asked"), event("failed", status=502), paid={}, spoilt={ONE.content})) == {
        "failed"
    }


def test_only_rows_whose_answers_the_provider_lost_for_good_may_be_given_up() -> None:
    cancelled = event("failed", status=499, text="APIStatusError batch_cancelled given up")
    lossy = replace(ONE, n_lost=1)
    assert check(told(event("asked"), cancelled, paid={"id0": 1}, questions={lossy.call: lossy})) == []
    assert wrongs(told(event("asked"), cancelled, paid={"id0": 1})) == {"failed"}


@pytest.mark.parametrize(
    ("found", "wrong"),
    [
        ({"leaks": ["a key is in w0.log"]}, "leaked"),
        ({"left": ["batch b0 is submitted"]}, "left"),
        ({"quarantined": ["batch b0"]}, "quarantined"),
        ({"broken": ["w0 ended by itself with 1"]}, "broken"),
        ({"n_realtime": 1}, "full price"),
    ],
)
def test_leaks_leftovers_and_other_violations_are_reported(found: dict[str, object], wrong: str) -> None:
    assert wrongs(all_well(**found)) == {wrong}


def test_a_late_recovery_is_reported_unless_another_blow_fell_meanwhile() -> None:
    death = Death(at=10.0, pids=frozenset({7}), running=(("b0", 3),))
    begun = [
        Begun(at=9.0, batch_id="b0", token=3, pid=7),
        Begun(at=14.0, batch_id="b0", token=4, pid=8),
    ]
    bound = {"recovery_bound_s": 3.1}
    alone = recoveries([death], begun, [(10.0, 12.5)])
    assert [one.took_s for one in alone] == [4.0]
    assert wrongs(all_well(recoveries=alone, **bound)) == {"late"}
    soon = recoveries([death], [begun[0], replace(begun[1], at=13.0)], [])
    assert check(all_well(recoveries=soon, **bound)) == []
    among = recoveries([death], begun, [(10.0, 12.5), (11.0, 13.5)])
    assert check(all_well(recoveries=among, **bound)) == []


def test_only_steps_that_a_killed_process_had_begun_must_recover() -> None:
    death = Death(at=10.0, pids=frozenset({7}), running=(("b0", 3), ("b1", 5)))
    begun = [
        Begun(at=9.0, batch_id="b0", token=3, pid=7),
        Begun(at=9.0, batch_id="b1", token=5, pid=8),
        Begun(at=11.0, batch_id="b0", token=4, pid=8),
        Begun(at=99.0, batch_id="b1", token=7, pid=8),
    ]
    assert [one.batch_id for one in recoveries([death], begun, [])] == ["b0"]


def test_equal_seeds_make_equal_runs_and_other_seeds_others() -> None:
    counts = Counts(kills=100, redis_kills=20, client_kills=40, stops=30, rolls=24, cuts=60)
    first, same, other = (schedule.blows(seed, 600.0, counts, 3.5) for seed in (7, 7, 8))
    assert first == same != other
    assert sum(blow.kind in schedule.WORKER_KILLS for blow in first) == 100
    assert sum(blow.kind == "kill redis" for blow in first) == 20
    assert schedule.gusts(7, 60.0) == schedule.gusts(7, 60.0) != schedule.gusts(8, 60.0)
    assert plan.the_round(7, 0, 3, 40) == plan.the_round(7, 0, 3, 40) != plan.the_round(8, 0, 3, 40)


def test_a_killed_client_repeats_its_interrupted_round_and_the_round_before() -> None:
    def line(what: What, number: int, life: int = 0) -> Event:
        return Event(what=what, at=0.0, life=life, round=number)

    closed = [line("opened", 0), line("closed", 0), line("opened", 1), line("closed", 1)]
    between = history.place(closed)
    assert (between.first_round, between.life) == (2, 1)
    torn = history.place([*closed, line("opened", 2)])
    assert (torn.first_round, torn.torn_round, torn.life) == (1, 2, 1)
    again = history.place([*closed, line("opened", 2), line("opened", 1, 1)])
    assert (again.first_round, again.torn_round, again.life) == (1, 2, 2)


def test_questions_name_their_round_and_differ_except_for_common_ones() -> None:
    for number in range(12):
        asked = [plan.the_round(3, client, number, 40) for client in range(3)]
        for one in asked:
            assert {plan.round_of(question.call) for question in one.questions} == {number}
        own = [
            {question.prompt for question in one.questions if "common" not in question.call} for one in asked
        ]
        assert not own[0] & own[1]
        assert not own[1] & own[2]
