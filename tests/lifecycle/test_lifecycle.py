"""The pure decisions: what becomes of a row, when to look again, and when a batch is given up."""

from __future__ import annotations

import dataclasses
import datetime as dt
import itertools
import json
import random
import re
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchling_client.wire.keys import BatchId, RequestId
from batchling_client.wire.records.batch import Batch
from batchling_client.wire.records.row_and_result import LaneSpec
from batchling_client.wire.records.usage_and_failure import SentAgain
from batchling_client.wire.states import BatchState, Outcome, RowKind
from batchling_worker import backoff
from batchling_worker.decisions import blame, fates, looks, patience, reasons, submission
from batchling_worker.decisions.fates import Refuse, Requeue
from batchling_worker.provider import ROW_LOST, Answer, Complaint, Ending

ONE = RequestId("row1")
NOW = dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)
SPEC = LaneSpec(
    provider="groq",
    host="api.groq.com",
    endpoint="/v1/chat/completions",
    model="m",
    fingerprint="f" * 20,
    completion_window="24h",
)
PLAIN = Batch.decode(
    {
        b"id": b"b1",
        b"lane": SPEC.lane_id.encode(),
        b"spec": SPEC.encode(),
        b"state": b"ended",
        b"created_at": str(int(NOW.timestamp() * 1000)).encode(),
        b"updated_at": str(int(NOW.timestamp() * 1000)).encode(),
        b"n_lines": b"10",
    }
)


def batch(**changes: Any) -> Batch:
    return dataclasses.replace(PLAIN, **changes)


def ago(seconds: float) -> dt.datetime:
    return NOW - dt.timedelta(seconds=seconds)


def told(fate: Refuse) -> dict[str, Any]:
    error: dict[str, Any] = json.loads(fate.body)["error"]
    return error


ANSWERS: list[tuple[int, str, RowKind]] = [
    *((status, "provider", RowKind.SUCCESS) for status in (200, 201, 202, 204, 299)),
    *((status, "provider", RowKind.RETRY) for status in (408, 409, 425, 429, 500, 502, 503, 504, 529, 599)),
    *((status, "provider", RowKind.FAILURE) for status in (301, 400, 401, 403, 404, 413, 422, 451)),
    (504, "batch_expired", RowKind.RETRY),
    (503, ROW_LOST, RowKind.RETRY),
    (499, "batch_cancelled", RowKind.FAILURE),
    (200, "batch_cancelled", RowKind.FAILURE),
    (500, "batch_failed", RowKind.FAILURE),
]


@pytest.mark.parametrize(("status", "origin", "kind"), ANSWERS)
def test_an_answer_is_a_success_a_failure_or_worth_another_attempt(
    status: int, origin: str, kind: RowKind
) -> None:
    answer = Answer(custom_id="c", status=status, body=b"", headers={}, origin=origin)
    assert fates.row_kind(answer) is kind


@pytest.mark.parametrize("outcome", [Outcome.COMPLETED, Outcome.EXPIRED, Outcome.LOST])
def test_what_was_not_answered_is_asked_again_until_its_attempts_are_used_up(outcome: Outcome) -> None:
    ended = batch(outcome=outcome)
    seen = [fates.row_fate(ended, Ending(), ONE, attempt, 3) for attempt in (1, 2, 3, 4)]
    assert seen[:2] == [Requeue(counts=True)] * 2
    codes = {
        Outcome.COMPLETED: "batch_row_lost",
        Outcome.EXPIRED: "batch_expired",
        Outcome.LOST: "batch_lost",
    }
    for fate in seen[2:]:
        assert isinstance(fate, Refuse)
        assert fate.origin == codes[outcome]
        assert fate.status >= 500
        assert told(fate)["code"] == codes[outcome]
        assert "attempts" in told(fate)["message"]


@pytest.mark.parametrize("attempt", [1, 2, 3])
def test_a_cancelled_request_gets_its_error_and_is_never_asked_again(attempt: int) -> None:
    fate = fates.row_fate(batch(outcome=Outcome.CANCELLED, error="by a person"), Ending(), ONE, attempt, 3)
    assert isinstance(fate, Refuse)
    assert (fate.status, fate.origin, told(fate)["message"]) == (499, "batch_cancelled", "by a person")
    quiet = fates.row_fate(batch(outcome=Outcome.CANCELLED), Ending(), ONE, attempt, 3)
    assert isinstance(quiet, Refuse)
    assert "b1" in told(quiet)["message"]


def test_a_refusal_of_the_whole_batch_is_handed_on_in_the_providers_words() -> None:
    ending = Ending(status=401, body='{"error":{"message":"bad key"}}')
    fate = fates.row_fate(batch(outcome=Outcome.FAILED), ending, ONE, 1, 3)
    assert fate == Refuse(status=401, body=b'{"error":{"message":"bad key"}}', origin="provider")


def fates_of(*complaints: Complaint, n_lines: int = 10, attempt: int = 1) -> list[fates.RowFate]:
    failed = batch(outcome=Outcome.FAILED, n_lines=n_lines)
    ids = [RequestId(f"row{line}") for line in range(1, n_lines + 1)]
    named = [
        msgspec.structs.replace(c, request_id=ids[at.line - 1], line=at.line)
        if (at := blame.pointer(c)).line is not None and at.line <= n_lines
        else c
        for c in complaints
    ]
    ending = Ending(complaints=tuple(named))
    return [fates.row_fate(failed, ending, one, attempt, 3) for one in ids]


def test_a_complaint_of_any_code_that_passes_over_the_first_row_costs_the_others_no_attempt() -> None:
    for attempt in (1, 3, 9):
        seen = fates_of(Complaint(code="odd", message="requests[4]: bad"), attempt=attempt)
        assert [n for n, fate in enumerate(seen, start=1) if isinstance(fate, Refuse)] == [5]
        assert set(seen[:4] + seen[5:]) == {Requeue(counts=False, halved=True)}
        both = fates_of(Complaint(code="odd", message="requests[4], requests[0]: bad"), attempt=attempt)
        assert Requeue(counts=False, halved=True) in both
    first = fates_of(
        Complaint(code="odd", message="requests[0]: bad"), Complaint(code="", message="", line=5)
    )
    assert first[1] == Requeue(counts=True)


@given(places=st.randoms(use_true_random=False), n_rows=st.integers(1, 60))
def test_a_complaint_about_all_that_names_any_row_comes_to_an_end(places: random.Random, n_rows: int) -> None:
    """A provider that validates in an order of its own, and names a row where it means them all."""
    waiting, n_refusals = [[1] * n_rows], 0
    while waiting:
        attempts = waiting.pop()
        n_refusals += 1
        line = places.randint(1, len(attempts))
        ids = [RequestId(f"row{n}") for n in range(1, len(attempts) + 1)]
        named = Complaint(code="odd", message="", line=line, request_id=ids[line - 1])
        failed = batch(outcome=Outcome.FAILED, n_lines=len(attempts))
        left, size = [], len(attempts)
        for request_id, attempt in zip(ids, attempts, strict=True):
            fate = fates.row_fate(failed, Ending(complaints=(named,)), request_id, attempt, 3)
            if isinstance(fate, Requeue):
                left.append(attempt + fate.counts)
                size = max(1, len(attempts) // 2) if fate.halved else size
        waiting += [left[at : at + size] for at in range(0, len(left), size)]
    assert n_refusals <= 2 * n_rows


@pytest.mark.parametrize("code", sorted(blame.ROW_COMPLAINTS))
def test_a_complaint_about_a_line_fails_that_line_and_sends_the_rest_again_uncounted(code: str) -> None:
    seen = fates_of(
        Complaint(code=code, message="bad line", line=3), Complaint(code=code, message="", line=7)
    )
    refused = {line for line, fate in enumerate(seen, start=1) if isinstance(fate, Refuse)}
    assert refused == {3, 7}
    assert {fate for fate in seen if isinstance(fate, Requeue)} == {Requeue(counts=False)}
    third = seen[2]
    assert isinstance(third, Refuse)
    assert (third.status, told(third)["message"], told(third)["code"]) == (400, "bad line", code)


@pytest.mark.parametrize("line", [None, 11, 10_000])
def test_a_complaint_about_no_line_of_the_file_fails_all_rows(line: int | None) -> None:
    """Otherwise each request would go into the next batch, uncounted, and on and on."""
    seen = fates_of(Complaint(code="invalid_json_line", message="no such line", line=line))
    assert all(isinstance(fate, Refuse) for fate in seen)
    assert {told(fate)["message"] for fate in seen if isinstance(fate, Refuse)} == {"no such line"}


def test_a_complaint_about_the_batch_fails_all_rows_even_if_it_names_a_line() -> None:
    seen = fates_of(Complaint(code="model_not_found", message="no such model", line=1, param="model"))
    assert {told(fate)["param"] for fate in seen if isinstance(fate, Refuse)} == {"model"}
    assert len([fate for fate in seen if isinstance(fate, Refuse)]) == 10


@given(st.sets(st.integers(1, 10), min_size=1))
def test_each_round_of_line_complaints_gets_rid_of_a_row(lines: set[int]) -> None:
    seen = fates_of(*(Complaint(code="invalid_json_line", message="x", line=line) for line in lines))
    assert {line for line, fate in enumerate(seen, start=1) if isinstance(fate, Refuse)} == lines


@pytest.mark.parametrize(("code", "halved"), [("token_limit_exceeded", False), ("too_many_tasks", True)])
def test_too_much_at_once_is_not_a_failure_of_any_request(code: str, halved: bool) -> None:
    seen = fates_of(Complaint(code=code, message="too much"), attempt=3)
    assert set(seen) == {Requeue(counts=False, halved=halved)}


def test_one_request_alone_goes_on_waiting_unless_it_is_hopeless() -> None:
    full = Complaint(code="token_limit_exceeded", message="Enqueued token limit reached.")
    failed = batch(outcome=Outcome.FAILED, n_lines=1)
    assert fates.row_fate(failed, Ending(complaints=(full,)), ONE, 1, 3) == Requeue(counts=False)
    told_off = fates.row_fate(failed, Ending(complaints=(full,), hopeless=True), ONE, 1, 3)
    assert isinstance(told_off, Refuse)
    assert told(told_off)["message"] == "Enqueued token limit reached."
    many = Complaint(code="too_many_tasks", message="too many rows")
    assert isinstance(fates.row_fate(failed, Ending(complaints=(many,)), ONE, 1, 3), Refuse)


@pytest.mark.parametrize("attempt", [1, 3])
def test_a_batch_that_was_split_costs_its_requests_no_attempt(attempt: int) -> None:
    split = batch(outcome=Outcome.SPLIT)
    assert fates.row_fate(split, Ending(), ONE, attempt, 3) == Requeue(counts=False)


def test_a_failed_batch_that_had_run_is_asked_for_the_rest_again_until_the_attempts_are_used_up() -> None:
    broke_off = batch(outcome=Outcome.FAILED, n_succeeded=4)
    internal = Ending(complaints=(Complaint(code="server_error", message="it broke off"),))
    for ending in (Ending(), internal):
        seen = [fates.row_fate(broke_off, ending, ONE, attempt, 3) for attempt in (1, 2, 3)]
        assert seen[:2] == [Requeue(counts=True)] * 2
        assert isinstance(seen[2], Refuse)


def test_a_complaint_beside_a_completed_batch_fails_the_blamed_row_at_once() -> None:
    """Groq skips a bad line and completes: asked again, it would be skipped again."""
    skipped = Complaint(code="invalid_method", message="not a POST", line=1, request_id=ONE)
    fate = fates.row_fate(batch(outcome=Outcome.COMPLETED), Ending(complaints=(skipped,)), ONE, 1, 3)
    assert isinstance(fate, Refuse)
    assert told(fate)["message"] == "not a POST"
    other = fates.row_fate(
        batch(outcome=Outcome.COMPLETED), Ending(complaints=(skipped,)), RequestId("row2"), 1, 3
    )
    assert other == Requeue(counts=True)


def test_a_row_blamed_by_a_refusal_gets_it_word_for_word_and_the_rest_another_attempt() -> None:
    named = Complaint(code="", message="bad", request_id=ONE)
    ending = Ending(status=422, body='{"error":{"message":"bad"}}', complaints=(named,))
    failed = batch(outcome=Outcome.FAILED)
    assert fates.row_fate(failed, ending, ONE, 1, 3) == Refuse(
        status=422, body=b'{"error":{"message":"bad"}}', origin="provider"
    )
    assert fates.row_fate(failed, ending, RequestId("row2"), 1, 3) == Requeue(counts=True)
    assert isinstance(fates.row_fate(failed, ending, RequestId("row2"), 3, 3), Refuse)


@pytest.mark.parametrize(
    ("n_stumbles", "former", "dead"), [(0, "", False), (4, "", False), (5, "", True), (9, "f", False)]
)
def test_an_input_file_is_given_up_once_at_half_of_the_patience(
    n_stumbles: int, former: str, dead: bool
) -> None:
    assert patience.file_is_dead(batch(n_stumbles=n_stumbles, former_file_id=former)) is dead


def test_a_failure_without_a_reason_says_what_is_known() -> None:
    for failed, words in ((batch(outcome=Outcome.FAILED, error="it said no"), "it said no"), (batch(), "b1")):
        fate = fates.row_fate(failed, Ending(), ONE, 1, 3)
        assert isinstance(fate, Refuse)
        assert fate.origin == "batch_failed"
        assert words in told(fate)["message"]


@given(
    outcome=st.sampled_from(tuple(Outcome)),
    attempt=st.integers(1, 9),
    line=st.integers(1, 20),
    status=st.sampled_from((0, 400, 500)),
    complaints=st.lists(
        st.builds(
            Complaint,
            code=st.sampled_from(("", "odd", "token_limit_exceeded", *sorted(blame.ROW_COMPLAINTS))),
            message=st.sampled_from(("", "words")),
            line=st.one_of(st.none(), st.integers(1, 20)),
            request_id=st.one_of(st.none(), st.integers(1, 20).map(lambda n: f"row{n}")),
            param=st.sampled_from((None, "file_id", "model")),
        ),
        max_size=3,
    ),
)
def test_every_row_has_a_fate_that_can_be_told(
    outcome: Outcome, attempt: int, line: int, status: int, complaints: list[Complaint]
) -> None:
    ending = Ending(complaints=tuple(complaints), status=status, body='{"error":{"message":"m"}}')
    fate = fates.row_fate(batch(outcome=outcome), ending, RequestId(f"row{line}"), attempt, 3)
    if isinstance(fate, Refuse):
        assert 400 <= fate.status <= 599
        assert isinstance(told(fate)["message"], str)
    else:
        assert fate.wait_s >= 0
        assert not (fate.counts and attempt >= 3), "a request would be asked more often than allowed"


def test_every_outcome_settles_in_a_terminal_state() -> None:
    states = {outcome: fates.terminal_state(outcome) for outcome in (*Outcome, None)}
    assert states == {
        Outcome.COMPLETED: BatchState.SETTLED,
        Outcome.EXPIRED: BatchState.SETTLED,
        Outcome.CANCELLED: BatchState.CANCELLED,
        Outcome.FAILED: BatchState.FAILED,
        Outcome.LOST: BatchState.FAILED,
        Outcome.SPLIT: BatchState.SETTLED,
        None: BatchState.SETTLED,
    }
    assert all(state.terminal for state in states.values())


@given(
    wish_s=st.sampled_from((0.0, 0.1, 1.0, 30.0, 600.0)),
    shortest_s=st.sampled_from((0.05, 10.0, 120.0)),
    least_s=st.sampled_from((0.0, 60.0)),
    age_s=st.floats(-3600, 14 * 24 * 3600),
)
def test_the_next_look_is_never_sooner_than_asked_nor_later_than_six_times(
    wish_s: float, shortest_s: float, least_s: float, age_s: float
) -> None:
    asked_s = max(wish_s or shortest_s, least_s)
    one = batch(poll_s=wish_s, submitted_at=ago(age_s))
    delay_s = looks.next_look_s(one, shortest_s, NOW, least_s)
    assert asked_s <= delay_s <= asked_s * looks.LOOK_LONGEST_FACTOR


def test_looks_grow_rarer_as_a_batch_ages() -> None:
    delays = [
        looks.next_look_s(batch(poll_s=10.0, submitted_at=ago(age_s)), 10.0, NOW)
        for age_s in (0, 100, 400, 800, 3600, 86_400)
    ]
    assert delays == [10.0, 10.0, 20.0, 40.0, 60.0, 60.0]
    assert looks.next_look_s(batch(poll_s=10.0), 1.0, NOW) == 10.0


@given(
    interval_s=st.sampled_from((1.0, 10.0, 30.0)),
    ages_s=st.lists(st.floats(0, 24 * 3600), min_size=2, max_size=20),
    late_s=st.floats(0, 0.2),
)
def test_looks_of_an_account_fall_together_whatever_the_age(
    interval_s: float, ages_s: list[float], late_s: float
) -> None:
    """Batches that were looked at in one slot are due at slots again, however old they are."""

    def slot_after(now: dt.datetime, age_s: float) -> float:
        one = batch(poll_s=interval_s, submitted_at=now - dt.timedelta(seconds=age_s))
        pause_s = looks.next_look_s(one, 10.0, now, account="acc")
        return now.timestamp() + pause_s

    first = slot_after(NOW, 0.0)
    at = dt.datetime.fromtimestamp(first + late_s * interval_s, dt.UTC)
    slots = [slot_after(at, age_s) - first for age_s in (interval_s, *ages_s)]
    assert slots[0] == pytest.approx(interval_s, abs=1e-3)
    assert all(slot / interval_s == pytest.approx(round(slot / interval_s), abs=1e-3) for slot in slots)
    assert all(slot < 7.75 * interval_s for slot in slots)


@given(
    interval_s=st.sampled_from((1.0, 10.0, 30.0)),
    least_s=st.sampled_from((0.0, 60.0)),
    age_s=st.floats(0, 24 * 3600),
    elapsed_s=st.sampled_from((0.0, 0.3, 45.0)),
    account=st.text(min_size=1, max_size=5),
)
def test_a_look_on_the_grid_is_hardly_sooner_than_asked_nor_much_later(
    interval_s: float, least_s: float, age_s: float, elapsed_s: float, account: str
) -> None:
    asked_s = max(interval_s, least_s)
    one = batch(poll_s=interval_s, submitted_at=ago(age_s))
    plain_s = looks.next_look_s(one, 10.0, NOW, least_s)
    delay_s = looks.next_look_s(one, 10.0, NOW, least_s, account=account, elapsed_s=elapsed_s)
    soonest_s = 0.25 * asked_s if age_s < asked_s and not least_s else 0.75 * asked_s
    assert delay_s + elapsed_s >= soonest_s - 1e-3
    assert delay_s + 1e-3 >= 0.0
    assert delay_s <= plain_s + 4 * asked_s


def test_new_batches_keep_no_old_one_from_its_look_at_itself() -> None:
    fresh, old = batch(submitted_at=ago(1)), batch(submitted_at=ago(900))
    looked_at = batch(submitted_at=ago(1800), confirmed_at=ago(60))
    cancelled = batch(submitted_at=ago(1), confirmed_at=ago(1), cancel_requested=True)
    turns = sorted([fresh, looked_at, old, cancelled], key=looks.turn)
    assert turns == [cancelled, old, looked_at, fresh]


def test_short_intervals_are_left_as_they_are() -> None:
    assert looks.next_look_s(batch(poll_s=0.5), 10.0, NOW, account="acc", elapsed_s=0.2) == 0.5


@pytest.mark.parametrize(
    ("poll_s", "shortest_s", "first_s"), [(0.0, 10.0, 2.0), (30.0, 10.0, 2.0), (0.5, 10.0, 0.5)]
)
def test_the_first_look_is_soon(poll_s: float, shortest_s: float, first_s: float) -> None:
    assert looks.first_look_s(batch(poll_s=poll_s), shortest_s) == first_s


@given(n_stumbles=st.integers(0, 10_000), wish_s=st.one_of(st.none(), st.floats(0, 3600)))
def test_backoff_has_a_floor_a_ceiling_and_honours_the_providers_wish(
    n_stumbles: int, wish_s: float | None
) -> None:
    ceiling = min(backoff.LONGEST_S, 2.0 ** min(n_stumbles, 20))
    delay_s = backoff.pause_s(n_stumbles, wish_s)
    assert delay_s >= max(wish_s or 0.0, backoff.SHORTEST_S)
    assert delay_s <= max(wish_s or 0.0, ceiling)


def test_backoff_is_drawn_anew_from_the_whole_range_so_that_workers_do_not_march_in_step() -> None:
    drawn = [backoff.pause_s(5) for _ in range(200)]
    assert len(set(drawn)) > 100
    assert min(drawn) < 8
    assert max(drawn) > 24


@pytest.mark.parametrize(
    ("create_at", "may"),
    [(None, True), (ago(0), False), (ago(59.9), False), (ago(60), True), (ago(-30), False)],
)
def test_a_create_is_repeated_only_once_its_fate_is_sure(create_at: dt.datetime | None, may: bool) -> None:
    assert patience.may_create_again(batch(create_at=create_at), 60.0, NOW) is may


@pytest.mark.parametrize(("doubted_at", "may"), [(ago(9.9), False), (ago(10), True)])
def test_a_forgotten_create_is_given_a_moment_to_show(doubted_at: dt.datetime, may: bool) -> None:
    assert patience.may_create_again(batch(doubted_at=doubted_at), 60.0, NOW) is may


@pytest.mark.parametrize(
    ("n_denied", "age_s", "given_up"),
    [(0, 86_400, False), (9, 86_400, False), (10, 899, False), (10, 900, True), (50, 86_400, True)],
)
def test_a_batch_is_given_up_only_after_many_looks_and_a_long_time(
    n_denied: int, age_s: float, given_up: bool
) -> None:
    denied = batch(n_denied=n_denied, denied_since=ago(age_s), submitted_at=ago(1_000_000))
    assert patience.given_up(denied, NOW) is given_up


def test_bad_weather_alone_never_gives_a_batch_up() -> None:
    stumbled = batch(n_stumbles=500, n_denied=0, denied_since=None, submitted_at=ago(1_000_000))
    assert not patience.given_up(stumbled, NOW)


@pytest.mark.parametrize("namespace", ["default", "Über alles", "a" * 200, "", "x:y/{z}", "line\nbreak"])
def test_a_label_is_fit_for_every_provider_and_names_one_batch(namespace: str) -> None:
    label = submission.label_of(namespace, BatchId("b0mwtz38chjmmeedhqnz"))
    assert re.fullmatch(r"[A-Za-z0-9_-]{1,64}", label)
    assert label != submission.label_of(namespace, BatchId("b0mwtz38chjmmeedhqny"))


@pytest.mark.parametrize("outcome", list(Outcome))
def test_an_ending_has_a_sentence_unless_all_went_well(outcome: Outcome) -> None:
    assert bool(reasons.error_sentence(Ending(), outcome)) is (outcome is not Outcome.COMPLETED)
    said = Ending(complaints=(Complaint(code="odd", message=""),), body="body")
    assert reasons.error_sentence(said, outcome) == "the provider refused the batch: odd"
    assert reasons.error_sentence(Ending(body="my prompt", status=400), outcome) == (
        "the provider refused the batch with 400"
    )


def test_a_record_of_a_failed_batch_holds_words_about_money_and_tokens_and_no_others() -> None:
    quoting = Complaint(code="invalid_json", message="cannot parse {my prompt}", line=3, param="body.input")
    assert reasons.recorded(quoting) == "the provider refused the batch in line 3: invalid_json body.input"
    assert reasons.recorded(Complaint(code="my prompt!", message="my prompt")) == (
        "the provider refused the batch: no code"
    )
    for code, words in (
        (
            "insufficient_quota",
            "You exceeded your current quota, please check your plan and billing details.",
        ),
        ("token_limit_exceeded", "Enqueued token limit reached for gpt-4o in organization o. Limit: 90,000"),
        (reasons.OVERDUE, "acme still reports the status 'queued'"),
    ):
        assert reasons.recorded(Complaint(code=code, message=words)) == words


FAULTS: list[tuple[str, str, int]] = [
    ("server_error", "Internal server error. Please try again later.", 500),
    ("internal_error", "It broke.", 500),
    ("INTERNAL", "It broke.", 500),
    ("UNAVAILABLE", "It broke.", 503),
    ("500", "It broke.", 500),
    ("", "The server had an error while processing your request.", 500),
    ("output_failed", "Service is temporarily unavailable, please retry later.", 500),
]


@pytest.mark.parametrize(("code", "message", "status"), FAULTS)
def test_a_batch_that_failed_for_its_server_is_tried_again_and_ends_in_a_5xx(
    code: str, message: str, status: int
) -> None:
    failed = batch(outcome=Outcome.FAILED)
    ending = Ending(complaints=(Complaint(code=code, message=message),))
    seen = [fates.row_fate(failed, ending, ONE, attempt, 3) for attempt in (1, 2, 3)]
    assert all(isinstance(fate, Requeue) and fate.counts for fate in seen[:2])
    assert [fate.wait_s for fate in seen[:2] if isinstance(fate, Requeue)] == [5.0, 20.0]
    last = seen[2]
    assert isinstance(last, Refuse)
    assert (last.status, told(last)["message"]) == (status, message)


def test_a_provider_s_own_5xx_is_tried_again_and_told_at_last() -> None:
    failed, ending = batch(outcome=Outcome.FAILED), Ending(status=503, body='{"error":{"message":"down"}}')
    assert isinstance(fates.row_fate(failed, ending, ONE, 1, 3), Requeue)
    last = fates.row_fate(failed, ending, ONE, 3, 3)
    assert isinstance(last, Refuse)
    assert (last.status, last.origin) == (503, "provider")


@pytest.mark.parametrize("code", ["insufficient_quota", "billing_hard_limit_reached"])
def test_a_batch_that_failed_for_money_fails_its_callers_at_once_with_a_429(code: str) -> None:
    ending = Ending(complaints=(Complaint(code=code, message="Please try again later."),))
    fate = fates.row_fate(batch(outcome=Outcome.FAILED), ending, ONE, 1, 3)
    assert isinstance(fate, Refuse)
    assert (fate.status, told(fate)["code"]) == (429, code)


def test_a_batch_that_failed_and_has_told_rows_is_asked_for_the_rest_again() -> None:
    ending = Ending(complaints=(Complaint(code="odd", message="no"),))
    told_some = batch(outcome=Outcome.FAILED, n_failed=1)
    assert fates.row_fate(told_some, ending, ONE, 1, 3) == Requeue(counts=True)
    assert isinstance(fates.row_fate(told_some, ending, ONE, 3, 3), Refuse)


def test_a_cancel_is_asked_for_a_few_times_with_growing_pauses() -> None:
    assert not patience.cancel_is_due(batch(), NOW)
    wanted, asked = batch(cancel_requested=True, cancel_at=NOW), []
    for second in range(int(patience.CANCEL_PATIENCE.total_seconds())):
        now = NOW + dt.timedelta(seconds=second)
        if patience.cancel_is_due(wanted, now):
            asked.append(second)
            wanted = dataclasses.replace(wanted, n_cancels=len(asked), cancel_asked_at=now)
    assert asked == [0, 10, 30, 70, 150, 310, 630]


def test_a_cancel_that_is_not_confirmed_ends_here() -> None:
    minutes = patience.CANCEL_PATIENCE.total_seconds()
    assert not patience.cancel_is_over(batch(cancel_at=ago(minutes + 1)), NOW)
    assert not patience.cancel_is_over(batch(cancel_requested=True), NOW)
    assert not patience.cancel_is_over(batch(cancel_requested=True, cancel_at=ago(minutes - 1)), NOW)
    assert patience.cancel_is_over(batch(cancel_requested=True, cancel_at=ago(minutes)), NOW)
    assert patience.cancel_is_over(batch(cancel_requested=True, cancel_at=ago(31), cancel_again=True), NOW)


@pytest.mark.parametrize(("status", "hours"), [("odd", 48), ("", 48), ("in_progress", 24 + 30 * 24)])
def test_a_batch_that_never_ends_is_given_up_long_after_its_window(status: str, hours: int) -> None:
    second = hours * 3600.0
    assert not patience.run_is_over(batch(submitted_at=ago(second - 1)), status, NOW)
    assert patience.run_is_over(batch(submitted_at=ago(second)), status, NOW)
    assert patience.run_is_over(batch(submitted_at=NOW - patience.REQUESTS_KEPT), status, NOW)


@pytest.mark.parametrize(
    ("created", "hours"), [({}, 24), ({"create_at": NOW}, 48), ({"doubted_at": NOW}, 48)]
)
def test_a_batch_that_cannot_be_submitted_has_a_window_for_it_and_a_day_more_after_a_create(
    created: dict[str, dt.datetime], hours: int
) -> None:
    one = batch(created_at=ago(100 * 3600), **created)
    second = hours * 3600.0
    assert not patience.submission_is_over(one, NOW), "it waits for its quota"
    assert not patience.submission_is_over(dataclasses.replace(one, unable_since=ago(second - 1)), NOW)
    assert patience.submission_is_over(dataclasses.replace(one, unable_since=ago(second)), NOW)
    assert patience.submission_is_over(dataclasses.replace(one, created_at=NOW - patience.REQUESTS_KEPT), NOW)


def test_a_batch_that_is_given_up_runs_none_of_its_requests_again() -> None:
    for complaint, status in (
        (reasons.overdue(batch(), "odd"), 504),
        (reasons.unsubmitted(batch(), "500"), 504),
        (reasons.unfound(batch(), "label", "500"), 504),
        (Complaint(code=reasons.UNREADABLE, message="groq answered 500"), 502),
        (Complaint(code=reasons.DEFECT, message="please try again later"), 500),
    ):
        fate = fates.row_fate(
            batch(outcome=Outcome.FAILED, n_succeeded=3), Ending(complaints=(complaint,)), ONE, 1, 3
        )
        assert isinstance(fate, Refuse)
        assert (fate.status, fate.origin, told(fate)["code"]) == (status, "batch_failed", complaint.code)


def test_a_wait_that_is_not_plain_says_why() -> None:
    assert reasons.why_it_runs(batch(), "in_progress") == ""
    assert "'odd'" in reasons.why_it_runs(batch(), "odd")
    assert "15 minutes" in reasons.why_it_runs(batch(cancel_requested=True), "cancelling")


@pytest.mark.parametrize(
    ("said", "hours"),
    [("24h", 24), ("168h", 168), ("7d", 168), ("", 24), ("soon", 24), ("99999h", 24), ("²h", 24)],
)
def test_a_completion_window_is_read_as_hours_or_days(said: str, hours: int) -> None:
    assert patience.window(said) == dt.timedelta(hours=hours)


def test_a_defect_ends_a_batch_only_when_it_repeats() -> None:
    where = "OverflowError at batch_object.py:7"
    assert not patience.defect_lasts(batch(error=where, n_stumbles=7), where)
    assert not patience.defect_lasts(batch(error="groq answered 503", n_stumbles=80), where)
    assert patience.defect_lasts(batch(error=where, n_stumbles=8), where)
    assert where in reasons.step_defect(batch(), where).message


def looks_of(
    runs_s: float, *, poll_s: float = 0.0, unnamed: bool = True, least_s: float = 0.0
) -> list[float]:
    """When a batch of one account is looked at, in seconds since it was made, until it shows its end."""
    one = batch(poll_s=poll_s, submitted_at=NOW)
    seen = [looks.first_look_s(one, 10.0)]
    while seen[-1] < runs_s:
        moment = NOW + dt.timedelta(seconds=seen[-1])
        pause_s = looks.next_look_s(one, 10.0, moment, least_s, account="acc", unnamed=unnamed)
        seen.append(seen[-1] + pause_s)
    return seen


def test_a_young_batch_is_looked_at_sooner_where_nobody_named_an_interval() -> None:
    times = looks_of(15.0)
    assert times[-1] - 15.0 <= 2.5
    assert len(times) <= 9


@pytest.mark.parametrize(("poll_s", "unnamed"), [(10.5, True), (0.0, False)])
def test_an_interval_that_somebody_named_is_kept(poll_s: float, unnamed: bool) -> None:
    times = looks_of(120.0, poll_s=poll_s, unnamed=unnamed)
    pauses = [later - sooner for sooner, later in itertools.pairwise(times[1:])]
    assert min(pauses) >= 0.75 * (poll_s or 10.0) - 1e-3


@given(age_s=st.floats(0, 24 * 3600), late_s=st.floats(0, 0.5), least_s=st.sampled_from((0.0, 10.0, 60.0)))
def test_looks_at_young_batches_fall_on_slots_of_their_account_and_bound_its_load(
    age_s: float, late_s: float, least_s: float
) -> None:
    """Each slot is one of a quarter of the interval; old batches lose nothing, and a provider's wish is kept."""

    def slot_after(now: dt.datetime, age: float) -> float:
        one = batch(submitted_at=now - dt.timedelta(seconds=age))
        pause_s = looks.next_look_s(one, 10.0, now, least_s, account="acc", unnamed=True)
        assert pause_s >= max(0.75 * least_s, 1.25 if age < 40.0 else 7.5) - 1e-3 or age < least_s
        return now.timestamp() + pause_s

    first = slot_after(NOW, 0.0)
    slot = slot_after(NOW + dt.timedelta(seconds=late_s), age_s)
    quarter = max(10.0, least_s) / 4
    assert (slot - first) / quarter == pytest.approx(round((slot - first) / quarter), abs=1e-2)


def test_a_steady_batch_is_looked_at_as_before() -> None:
    for age_s in (40.0, 400.0, 4000.0):
        one = batch(submitted_at=ago(age_s))
        pauses = [
            looks.next_look_s(one, 10.0, NOW, account="acc", unnamed=unnamed) for unnamed in (True, False)
        ]
        assert pauses[0] == pauses[1]


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"outcome": Outcome.EXPIRED}, SentAgain.EXPIRED),
        ({"outcome": Outcome.LOST}, SentAgain.LOST),
        ({"outcome": Outcome.FAILED}, SentAgain.FAILED),
        ({"outcome": Outcome.COMPLETED, "n_succeeded": 7, "n_refused": 3}, SentAgain.REFUSED),
        (
            {"outcome": Outcome.COMPLETED, "n_succeeded": 5, "n_requeued": 2, "n_refused": 5},
            SentAgain.REFUSED,
        ),
        ({"outcome": Outcome.COMPLETED, "n_succeeded": 7, "n_refused": 2}, SentAgain.MISSING),
        ({"outcome": Outcome.EXPIRED, "provider_batch_id": None}, None),
    ],
)
def test_requests_that_are_sent_again_have_the_reason_of_their_batch(
    changes: dict[str, Any], why: SentAgain | None
) -> None:
    ended = batch(**{"n_requests": 10, "provider_batch_id": "batch-1", **changes})

    assert fates.why_again(ended, Requeue(counts=True)) is why
    assert fates.why_again(ended, Requeue(counts=False)) is None
