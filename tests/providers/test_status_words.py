"""Words for a status that no provider documents: common ones are read, others are ends where an end shows."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from batchling_client.wire.states import Outcome
from batchling_worker.decisions import status_words
from batchling_worker.dialects import bounds, lenient_json
from batchling_worker.dialects.google.operation import Operation
from batchling_worker.dialects.google.vertex_job import Job
from batchling_worker.provider import Ended, Look, Running
from batchling_worker.providers import anthropic, bedrock, sference

NOW = dt.datetime(2026, 11, 23, 12, 0, 0, tzinfo=dt.UTC)
LONG_AGO = "2026-11-22T12:00:00Z"


def gemini(word: str, **more: Any) -> Look:
    said = {"name": "batches/1", "metadata": {"state": word, **more}}
    return msgspec.json.decode(json.dumps(said), type=Operation).look(NOW)


def gemini_with(word: str, **more: Any) -> Look:
    """A batch that says more beside its metadata."""
    said = {"name": "batches/1", "metadata": {"state": word}, **more}
    return msgspec.json.decode(json.dumps(said), type=Operation).look(NOW)


def vertex(word: str, **more: Any) -> Look:
    name = "projects/p/locations/l/batchPredictionJobs/1"
    return msgspec.json.decode(json.dumps({"name": name, "state": word, **more}), type=Job).look()


def anthropic_look(word: str, **more: Any) -> Look:
    said = {"id": "msgbatch_1", "processing_status": word, **more}
    return msgspec.json.decode(json.dumps(said), type=anthropic._Batch).shown().look


def sference_look(word: str, **more: Any) -> Look:
    return (
        msgspec.json.decode(json.dumps({"id": "b", "status": word, **more}), type=sference._Batch)
        .shown()
        .look
    )


def bedrock_look(word: str, **more: Any) -> Look:
    return bedrock._told({"status": word, **more})


LOOKS = {
    "gemini": gemini,
    "vertex": vertex,
    "anthropic": anthropic_look,
    "sference": sference_look,
    "bedrock": bedrock_look,
}


@pytest.mark.parametrize("provider", LOOKS)
@pytest.mark.parametrize("word", ["complete", "SUCCEEDED", "done", "Finished", "JOB_STATE_COMPLETED"])
def test_a_common_word_for_an_end_is_one_at_every_provider(provider: str, word: str) -> None:
    seen = LOOKS[provider](word)
    assert isinstance(seen, Ended)
    assert seen.outcome is Outcome.COMPLETED


@pytest.mark.parametrize("provider", LOOKS)
@pytest.mark.parametrize("word", ["odd", "", "queued", "InProgress", "JOB_STATE_RUNNING", "x" * 10_000])
def test_any_other_word_is_none(provider: str, word: str) -> None:
    assert isinstance(LOOKS[provider](word), Running)


@pytest.mark.parametrize(
    ("seen", "outcome"),
    [
        (vertex("JOB_STATE_ODD", endTime=LONG_AGO), Outcome.COMPLETED),
        (vertex("JOB_STATE_ODD", endTime=LONG_AGO, error={"code": 13, "message": "no"}), Outcome.FAILED),
        (
            anthropic_look("odd", ended_at=LONG_AGO, request_counts={"processing": 0, "succeeded": 2}),
            Outcome.COMPLETED,
        ),
        (bedrock_look("Odd", endTime=NOW), Outcome.COMPLETED),
        (bedrock_look("Odd", endTime=NOW, message="no"), Outcome.FAILED),
        (bedrock_look("Complete", message="no", processedRecordCount=0), Outcome.FAILED),
        (bedrock_look("Complete", message="no", processedRecordCount=3), Outcome.COMPLETED),
        (bedrock_look("Complete", message="no"), Outcome.COMPLETED),
    ],
)
def test_a_word_that_nobody_knows_is_an_end_where_an_end_is_shown(seen: Look, outcome: Outcome) -> None:
    assert isinstance(seen, Ended)
    assert seen.outcome is outcome


@pytest.mark.parametrize("looked", [gemini_with, vertex])
def test_a_job_that_is_called_succeeded_beside_an_error_and_has_no_results_has_failed(
    looked: Callable[..., Look],
) -> None:
    error = {"code": 13, "message": "The importer failed."}
    seen = looked("JOB_STATE_SUCCEEDED", error=error)
    assert isinstance(seen, Ended)
    assert seen.outcome is Outcome.FAILED
    assert "The importer failed." in seen.ending.body


def test_an_unknown_status_is_not_an_end_while_rows_are_open() -> None:
    counts = {"processing": 1, "succeeded": 2}
    assert isinstance(anthropic_look("odd", ended_at=LONG_AGO, request_counts=counts), Running)
    assert isinstance(anthropic_look("odd", request_counts={"succeeded": 2}), Running)


def test_no_word_is_both_an_end_and_none() -> None:
    assert not status_words.RUNNING & set(status_words.ENDS)


def test_a_job_of_bedrock_whose_counts_are_absent_or_lag_behind_may_have_answered_requests() -> None:
    told = {"status": "Completed", "totalRecordCount": 6, "processedRecordCount": 6}
    for counts in ({}, {"successRecordCount": 0, "errorRecordCount": 0}):
        look = bedrock._told({**told, **counts})
        assert isinstance(look, Ended)
        assert look.ending.n_succeeded is None
    look = bedrock._told({**told, "successRecordCount": 0, "errorRecordCount": 6})
    assert isinstance(look, Ended)
    assert look.ending.n_succeeded == 0


@pytest.mark.parametrize(
    "number", ["9" * 400, "9" * 5000, "1e999", '"' + "9" * 400 + '"', '"²"', "-1", "true"]
)
def test_an_absurd_counter_of_any_provider_costs_no_look(number: str) -> None:
    raw = f'{{"requestCount":{number},"successfulRequestCount":{number}}}'
    operation = f'{{"name":"batches/1","metadata":{{"state":"RUNNING","batchStats":{raw}}}}}'
    shown = f'{{"id":"m","processing_status":"in_progress","request_counts":{{"processing":{number}}}}}'
    job = f'{{"name":"projects/p","state":"JOB_STATE_RUNNING","completionStats":{{"successfulCount":{number}}}}}'
    looks = (
        lenient_json.decoded(operation.encode(), Operation).look(NOW),
        lenient_json.decoded(shown.encode(), anthropic._Batch).shown().look,
        lenient_json.decoded(job.encode(), Job).look(),
        bedrock._told(
            {"status": "InProgress", "totalRecordCount": lenient_json.decoded(number.encode(), object)}
        ),
    )
    for seen in looks:
        assert isinstance(seen, Running)
        assert seen.n_total <= 2 * bounds.LARGEST_COUNT
