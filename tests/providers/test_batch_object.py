"""What a batch object says, read without trust in its types, becomes a look."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any

import msgspec
import pytest

from batchling_client.wire.states import Outcome
from batchling_worker.dialects import bounds, lenient_json
from batchling_worker.dialects.openai.batch_object import BatchObject
from batchling_worker.provider import Complaint, Ended, Look, Running

NOW = dt.datetime(2026, 11, 23, 12, 0, 0, tzinfo=dt.UTC)
LONG_AGO = int(NOW.timestamp()) - 3600


def look(**fields: Any) -> Look:
    said = {"id": "batch_1", "object": "batch", "completed_at": LONG_AGO, **fields}
    return msgspec.json.decode(json.dumps(said), type=BatchObject).look(NOW)


def ended(**fields: Any) -> Ended:
    told = look(**fields)
    assert isinstance(told, Ended)
    return told


@pytest.mark.parametrize(
    ("word", "outcome"),
    [
        ("completed", Outcome.COMPLETED),
        ("Completed", Outcome.COMPLETED),
        ("failed", Outcome.FAILED),
        ("expired", Outcome.EXPIRED),
        ("cancelled", Outcome.CANCELLED),
        ("canceled", Outcome.CANCELLED),
        ("complete", Outcome.COMPLETED),
        ("SUCCEEDED", Outcome.COMPLETED),
        ("success", Outcome.COMPLETED),
        ("done", Outcome.COMPLETED),
        ("finished", Outcome.COMPLETED),
        ("ended", Outcome.COMPLETED),
        ("partiallyCompleted", Outcome.COMPLETED),
        ("JOB_STATE_COMPLETED", Outcome.COMPLETED),
        ("error", Outcome.FAILED),
        ("aborted", Outcome.FAILED),
        ("BATCH_STATE_FAILED", Outcome.FAILED),
        ("timed_out", Outcome.EXPIRED),
        ("TimedOut", Outcome.EXPIRED),
        ("timeout", Outcome.EXPIRED),
        ("stopped", Outcome.CANCELLED),
    ],
)
def test_ends_have_words_that_all_providers_share(word: str, outcome: Outcome) -> None:
    assert ended(status=word).outcome is outcome


@pytest.mark.parametrize(
    "word",
    [
        "validating",
        "in_progress",
        "InProgress",
        "finalizing",
        "cancelling",
        "paused",
        "scheduling",
        "in_queue",
    ],
)
def test_a_status_known_to_run_is_not_an_end(word: str) -> None:
    counts = {"total": 2, "completed": 2, "failed": 0}
    assert isinstance(look(status=word, output_file_id="file-1", request_counts=counts), Running)


@pytest.mark.parametrize("word", ["odd", "", None, 7, {}, []])
def test_a_status_that_nobody_knows_is_an_end_only_where_the_batch_shows_one(word: Any) -> None:
    def shown(**fields: Any) -> Look:
        return look(status=word, **{"completed_at": None, **fields})

    later = int(NOW.timestamp()) + 3600
    full, partly = {"total": 2, "completed": 1, "failed": 1}, {"total": 2, "completed": 1, "failed": 0}
    running: tuple[dict[str, Any], ...] = (
        {},
        {"output_file_id": "file-1"},
        {"output_file_id": "file-1", "request_counts": partly},
        {"request_counts": full},
        {"completed_at": 0},
        {"expired_at": later},
    )
    assert all(isinstance(shown(**fields), Running) for fields in running)
    for fields, outcome in (
        ({"output_file_id": "file-1", "request_counts": full}, Outcome.COMPLETED),
        ({"completed_at": LONG_AGO, "output_file_id": "file-1"}, Outcome.COMPLETED),
        ({"failed_at": LONG_AGO}, Outcome.FAILED),
        ({"expired_at": LONG_AGO}, Outcome.EXPIRED),
        ({"cancelled_at": LONG_AGO, "completed_at": LONG_AGO}, Outcome.CANCELLED),
    ):
        seen = shown(**fields)
        assert isinstance(seen, Ended)
        assert seen.outcome is outcome


ABSURD = ["9" * 400, "9" * 5000, "1e999", "-1e999", "1" * 30 + ".5", '"' + "9" * 400 + '"', "true", "-1"]


@pytest.mark.parametrize("number", ABSURD)
def test_an_absurd_number_costs_the_field_and_not_the_look(number: str) -> None:
    fields = ("created_at", "completed_at", "expired_at", "cancelled_at", "failed_at")
    counts = ",".join(f'"{name}":{number}' for name in ("total", "completed", "failed"))
    said = ",".join(f'"{name}":{number}' for name in fields)
    for status in ("completed", "in_progress", "odd", "failed"):
        raw = (
            f'{{"id":"batch_1","status":"{status}","output_file_id":"file-1",{said},'
            f'"request_counts":{{{counts}}},"errors":[{{"code":"x","line":{number}}}]}}'
        )
        batch = lenient_json.decoded(raw.encode(), BatchObject)
        seen = batch.look(NOW)
        assert isinstance(seen, Ended if status in ("completed", "failed") else Running)
        assert seen.n_done <= 2 * bounds.LARGEST_COUNT
        assert batch.made_at is None or batch.made_at >= NOW


@pytest.mark.parametrize("nothing", [None, "", " ", {}, [], 0, False])
def test_only_a_real_id_is_a_result_file(nothing: Any) -> None:
    done = ended(status="completed", output_file_id="file-1", error_file_id=nothing)
    assert done.ending.results == ("file-1",)
    done = ended(status="completed", output_file_id=nothing, error_file_id="file-2")
    assert done.ending.results == ("file-2",)
    assert ended(status="completed", output_file_id=nothing, error_file_id=nothing).ending.results == ()


@pytest.mark.parametrize("status", ["completed", "expired", "cancelled", "failed"])
def test_both_files_are_read_whatever_the_end(status: str) -> None:
    assert ended(status=status, output_file_id="o", error_file_id="e").ending.results == ("o", "e")


ENTRY = {"code": "invalid_method", "message": "Not a POST.", "param": "method", "line": 3}
READ = Complaint(code="invalid_method", message="Not a POST.", param="method", line=3)


@pytest.mark.parametrize(
    ("errors", "complaints"),
    [
        ({"object": "list", "data": [ENTRY]}, (READ,)),
        ([ENTRY], (READ,)),
        (ENTRY, (READ,)),
        ("Out of tokens.", (Complaint(code="", message="Out of tokens."),)),
        (["Out of tokens."], (Complaint(code="", message="Out of tokens."),)),
        ([{"code": "x", "line": None}], (Complaint(code="x", message=""),)),
        ([{"code": "x", "line": "3", "param": 4}], (Complaint(code="x", message="", line=3),)),
        ([{"code": "x", "line": "third"}], (Complaint(code="x", message=""),)),
        ([{"code": 500, "message": "No."}], (Complaint(code="500", message="No."),)),
        ({"object": "list", "data": None}, ()),
        ({"object": "list", "data": []}, ()),
        ([{}, None, 7], ()),
        (None, ()),
        ("", ()),
        (7, ()),
    ],
)
def test_complaints_are_read_in_every_shape(errors: Any, complaints: tuple[Complaint, ...]) -> None:
    assert ended(status="failed", errors=errors).ending.complaints == complaints


def test_complaints_may_stand_beside_a_completed_batch() -> None:
    done = ended(status="completed", output_file_id="o", errors=[ENTRY])
    assert (done.outcome, done.ending.complaints) == (Outcome.COMPLETED, (READ,))


@pytest.mark.parametrize("counts", [None, {}, {"total": 0, "completed": 0, "failed": 0}])
@pytest.mark.parametrize(
    "said",
    [
        {"errors": {"data": [{"code": "server_error", "message": "The server had an error."}]}},
        {"errors": [{"code": "invalid_request", "message": "no such model"}]},
        {"errors": "the importer failed", "completed_at": LONG_AGO},
        {"failed_at": LONG_AGO},
    ],
)
def test_a_completed_batch_with_errors_and_neither_rows_nor_files_has_failed(
    said: dict[str, Any], counts: Any
) -> None:
    told = ended(**{"status": "complete", "completed_at": None, "request_counts": counts, **said})
    assert told.outcome is Outcome.FAILED


def test_a_completed_batch_with_errors_may_show_its_rows_a_moment_later() -> None:
    errors = [{"message": "one line was skipped"}]
    assert isinstance(look(status="completed", completed_at=int(NOW.timestamp()), errors=errors), Running)


@pytest.mark.parametrize(
    "said",
    [
        {"completed_at": LONG_AGO, "failed_at": LONG_AGO, "errors": None},
        {"output_file_id": "file-1"},
        {"error_file_id": "file-2"},
        {"request_counts": {"total": 2, "completed": 1, "failed": 1}},
    ],
)
def test_a_completed_batch_that_shows_anything_of_its_rows_has_not_failed(said: dict[str, Any]) -> None:
    errors = [{"code": "server_error", "message": "The server had an error."}]
    told = ended(**{"status": "complete", "completed_at": None, "errors": errors, **said})
    assert told.outcome is Outcome.COMPLETED


@pytest.mark.parametrize(
    ("counts", "n_succeeded"),
    [
        ({"total": 6}, None),
        ({"total": 6, "failed": 6}, None),
        ({"total": 6, "completed": 0, "failed": 0}, None),
        ({"total": 6, "completed": None, "failed": 0}, None),
        ({"total": 6, "completed": 0, "failed": 6}, 0),
        ({"total": 6, "completed": "4", "failed": 0}, 4),
    ],
)
def test_counts_that_do_not_add_up_do_not_deny_that_requests_were_answered(
    counts: dict[str, Any], n_succeeded: int | None
) -> None:
    assert ended(status="completed", request_counts=counts).ending.n_succeeded == n_succeeded


@pytest.mark.parametrize("counts", [None, [], {}, {"total": None, "completed": "many", "failed": -1}])
def test_counts_are_never_needed(counts: Any) -> None:
    done = ended(status="completed", request_counts=counts)
    assert (done.n_done, done.n_total) == (0, 0)


COUNTS = {"total": 3, "completed": 2, "failed": 1}


def test_files_that_the_counts_promise_are_awaited_for_a_moment() -> None:
    for fields in ({}, {"output_file_id": "o"}, {"error_file_id": "e"}):
        just_now = look(status="completed", request_counts=COUNTS, completed_at=NOW.timestamp() - 5, **fields)
        assert just_now == Running(status="completed", n_done=3, n_total=3)
        done = ended(status="completed", request_counts=COUNTS, completed_at=NOW.timestamp() - 20, **fields)
        assert len(done.ending.results) == len(fields)


@pytest.mark.parametrize("at", [None, "yesterday", "2096-11-23T12:00:00Z", 4e9])
def test_an_end_without_a_believable_time_is_not_awaited(at: Any) -> None:
    assert ended(status="completed", request_counts=COUNTS, completed_at=at).ending.results == ()


@pytest.mark.parametrize("input_file_id", ["", None])
def test_a_batch_without_an_input_file_is_nobody_s(input_file_id: str | None) -> None:
    batch = BatchObject(id="batch_1", input_file_id=input_file_id, metadata={"batchling": ""})
    assert not batch.named.shows("", ())
    assert not batch.named.shows("batchling-b7", ())


@pytest.mark.parametrize(
    "metadata", [None, [], "batchling-b7", {"batchling": None}, {"other": "batchling-b7"}]
)
def test_metadata_of_any_shape_matches_by_its_label_only(metadata: Any) -> None:
    assert not BatchObject(metadata=metadata).named.shows("batchling-b7", ["file-1"])
    assert BatchObject(metadata={"batchling": "batchling-b7"}).named.shows("batchling-b7", ["file-1"])


@pytest.mark.parametrize(
    ("said", "seconds_ago"),
    [
        ("2026-11-23T11:59:58.2453994+00:00", 2),
        ("2026-11-23T11:59:58Z", 2),
        ("2026-11-23T12:59:58+01:00", 2),
        ("2026-11-23T11:59:58", 2),
    ],
)
def test_times_in_words_are_times(said: str, seconds_ago: int) -> None:
    batch = BatchObject(created_at=said)
    assert batch.made_at is not None
    assert NOW - dt.timedelta(seconds=seconds_ago + 1) <= batch.made_at < NOW
    counts = {"total": 1, "completed": 1, "failed": 0}
    waits = look(status="Completed", completed_at=said, request_counts=counts, output_file_id="")
    assert isinstance(waits, Running)


@pytest.mark.parametrize("said", ["", "soon", "2026-13-01T00:00:00Z", None, {}, []])
def test_a_time_that_is_none_rules_nothing_out(said: Any) -> None:
    assert BatchObject(created_at=said).made_at is None
