"""The sandbox's Doubleword, driven by OpenAI's SDK as its users do, behaves as the real API is known to."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator
from typing import Any

import pytest
from openai import APIStatusError, BadRequestError, NotFoundError, OpenAI
from openai.types import Batch

from batchling_worker.dialects.http_errors import CallInfo, of_status
from batchling_worker.dialects.openai.batch_object import BatchObject
from batchling_worker.provider import Ended, Ending, Running
from batchling_worker.providers import doubleword
from batchling_worker.sandbox import Sandbox
from batchling_worker.sandbox.world import faults
from tests.form import CHAT_FORM, Ability, Form

from .lines import CHAT, chat, jsonl, parse

FORM = Form(
    endpoint=CHAT_FORM.endpoint,
    model="Qwen/Qwen3-VL-30B-A3B-Instruct",
    slow_model="Qwen/Qwen3-VL-235B-A22B-Instruct",
    body=CHAT_FORM.body,
    text=CHAT_FORM.text,
    lacks=frozenset(
        {
            Ability.ROW_STATUSES,
            Ability.EXPIRY,
            Ability.UNDONE_ROWS,
            Ability.WHOLE_FAILURE,
            Ability.OPENAI_FILES,
        }
    ),
)
"""Its adapter is an OpenAIFiles; behaviour shared with other providers is not tested again."""


@pytest.fixture
def client(sandbox: Sandbox) -> Iterator[OpenAI]:
    with OpenAI(base_url=sandbox.base_url("doubleword") + "/v1", api_key="dw-one", max_retries=0) as client:
        yield client


def upload(client: OpenAI, *rows: dict[str, Any] | str) -> str:
    return client.files.create(file=("input.jsonl", jsonl(*rows)), purpose="batch").id


def create(client: OpenAI, *rows: dict[str, Any] | str, **more: Any) -> Batch:
    wanted: dict[str, Any] = {"endpoint": CHAT, "completion_window": "24h", **more}
    return client.batches.create(input_file_id=upload(client, *rows), **wanted)


class TestUploads:
    @pytest.mark.parametrize(
        "bad",
        [
            "{not json",
            {**chat("b"), "method": "GET"},
            {**chat("b"), "url": "/v1/moderations"},
            chat("b", stream=True),
        ],
    )
    def test_a_bad_line_is_named_at_the_upload_in_plain_text(
        self, sandbox: Sandbox, client: OpenAI, bad: dict[str, Any] | str
    ) -> None:
        with pytest.raises(BadRequestError) as caught:
            upload(client, chat("a"), bad, "{worse")
        response = caught.value.response
        assert response.headers["content-type"].startswith("text/plain")
        assert response.text.startswith("Line 2: ")
        assert not client.files.list().data

    def test_what_is_made_is_answered_with_201(self, client: OpenAI) -> None:
        file = client.files.with_raw_response.create(file=("in.jsonl", jsonl(chat("a"))), purpose="batch")
        batch = client.batches.with_raw_response.create(
            input_file_id=file.parse().id, endpoint=CHAT, completion_window="24h"
        )
        assert (file.status_code, batch.status_code) == (201, 201)

    def test_two_lines_may_have_one_name(self, client: OpenAI) -> None:
        assert upload(client, chat("a"), chat("a"))

    @pytest.mark.parametrize("window", ["48h", "15m"])
    def test_other_windows_are_refused(self, client: OpenAI, window: Any) -> None:
        with pytest.raises(BadRequestError):
            create(client, chat("a"), completion_window=window)
        assert create(client, chat("a"), completion_window="1h").completion_window == "1h"


class TestBatches:
    def test_a_label_is_searched_for_and_metadata_is_enriched(self, client: OpenAI) -> None:
        create(client, chat("a"), metadata={"batchling": "label-1", "request_source": "mine"})
        create(client, chat("a"), metadata={"batchling": "label-2"})
        [found] = client.batches.list(extra_query={"search": "label-1"}).data
        assert found.metadata is not None
        assert found.metadata["batchling"] == "label-1"
        assert found.metadata["request_source"] == "api"
        assert client.batches.list(extra_query={"search": "nobody"}).data == []

    def test_a_batch_whose_rows_all_failed_has_failed_and_has_its_rows(
        self, sandbox: Sandbox, client: OpenAI
    ) -> None:
        batch = create(client, chat("a", "fault:400"), chat("b", "fault:400"))
        sandbox.clock.advance(60)
        batch = client.batches.retrieve(batch.id)
        assert batch.status == "failed"
        rows = parse(client.files.content(batch.error_file_id or "").content)
        assert rows.keys() == {"a", "b"}
        assert rows["a"]["response"] is None
        assert rows["a"]["error"]["code"] is None
        assert rows["a"]["error"]["message"]

    def test_a_batch_runs_past_its_deadline(self, sandbox: Sandbox, client: OpenAI) -> None:
        sandbox.speeds.set({"slow": 3 * 3600.0})
        batch = create(client, *(chat(str(n), model="slow") for n in range(10)), completion_window="1h")
        sandbox.clock.advance(2 * 3600.0)
        batch = client.batches.retrieve(batch.id)
        assert (batch.status, batch.expired_at) == ("in_progress", batch.expires_at)
        sandbox.clock.advance(3600.0)
        batch = client.batches.retrieve(batch.id)
        assert batch.status == "completed"
        assert batch.request_counts is not None
        assert batch.request_counts.completed == 10

    def test_a_cancelled_batch_keeps_what_was_done(self, sandbox: Sandbox, client: OpenAI) -> None:
        batch = create(client, *(chat(str(n)) for n in range(40)))
        sandbox.clock.advance(0.3)
        client.batches.cancel(batch.id)
        sandbox.clock.advance(60)
        batch = client.batches.retrieve(batch.id)
        assert batch.status == "cancelled"
        assert 0 < len(parse(client.files.content(batch.output_file_id or "").content)) < 40
        with pytest.raises(BadRequestError):
            client.batches.cancel(batch.id)

    def test_messages_are_answered_as_messages(self, sandbox: Sandbox, client: OpenAI) -> None:
        body = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi."}]}
        row = {"custom_id": "a", "method": "POST", "url": "/v1/messages", "body": body}
        batch = create(client, row, endpoint="/v1/messages")
        sandbox.clock.advance(60)
        file_id = client.batches.retrieve(batch.id).output_file_id or ""
        answer = parse(client.files.content(file_id).content)["a"]["response"]["body"]
        assert "Hi." in answer["content"][0]["text"]


class TestEarlyFiles:
    def test_lines_are_read_as_they_are_written(self, sandbox: Sandbox, client: OpenAI) -> None:
        sandbox.faults.add(faults.StickBatch(state="in_progress", seconds=3600, done=0.5))
        batch = create(client, *(chat(str(n)) for n in range(20)))
        sandbox.clock.advance(30)
        file_id = client.batches.retrieve(batch.id).output_file_id or ""
        first = client.files.with_raw_response.content(file_id)
        assert (first.headers["x-incomplete"], first.headers["x-last-line"]) == ("true", "10")
        assert len(parse(first.content)) == 10
        later = client.files.with_raw_response.content(file_id, extra_query={"skip": "8"})
        assert (len(parse(later.content)), later.headers["x-last-line"]) == (2, "10")
        some = client.files.with_raw_response.content(file_id, extra_query={"skip": "2", "limit": "3"})
        assert (len(parse(some.content)), some.headers["x-last-line"]) == (3, "5")

        sandbox.clock.advance(3600)
        batch = client.batches.retrieve(batch.id)
        assert (batch.status, batch.output_file_id) == ("completed", file_id)
        rest = client.files.with_raw_response.content(file_id, extra_query={"skip": "10"})
        assert (len(parse(rest.content)), rest.headers["x-incomplete"]) == (10, "false")
        assert parse(first.content + rest.content).keys() == {str(n) for n in range(20)}

    def test_a_row_that_heals_is_a_failure_before_it_is_an_answer(
        self, sandbox: Sandbox, client: OpenAI
    ) -> None:
        sandbox.faults.add(
            faults.StickBatch(state="in_progress", seconds=3600, done=0.9),
            faults.HealRows(n=None, status=500),
        )
        batch = create(client, *(chat(str(n)) for n in range(10)))
        sandbox.clock.advance(30)
        batch = client.batches.retrieve(batch.id)
        assert len(parse(client.files.content(batch.error_file_id or "").content)) == 9
        counts = client.batches.retrieve(batch.id).request_counts
        assert counts is not None
        assert (counts.completed, counts.failed) == (0, 9)
        sandbox.clock.advance(3600)
        batch = client.batches.retrieve(batch.id)
        assert batch.status == "completed"
        assert len(parse(client.files.content(batch.output_file_id or "").content)) == 10
        assert batch.error_file_id is None

    def test_files_of_another_are_not_found(self, sandbox: Sandbox, client: OpenAI) -> None:
        sandbox.faults.add(faults.StickBatch(state="in_progress", done=0.5))
        batch = create(client, *(chat(str(n)) for n in range(10)))
        sandbox.clock.advance(30)
        file_id = client.batches.retrieve(batch.id).output_file_id or ""
        with pytest.raises(NotFoundError):
            client.files.content(file_id, extra_headers={"Authorization": "Bearer dw-two"})


class TestLooks:
    """How the adapter reads a batch object."""

    def look(self, **shown: Any) -> Any:
        return doubleword.DIALECT.told(BatchObject(id="b", **shown), dt.datetime(2026, 11, 25, tzinfo=dt.UTC))

    def test_a_batch_that_failed_with_rows_is_one_that_completed(self) -> None:
        seen = self.look(
            status="failed", error_file_id="f", request_counts={"total": 2, "completed": 0, "failed": 2}
        )
        assert isinstance(seen, Ended)
        assert (seen.outcome.value, seen.ending.results) == ("completed", ("f",))

    def test_a_batch_that_failed_without_rows_has_failed(self) -> None:
        seen = self.look(status="failed", errors={"data": [{"message": "no"}]})
        assert isinstance(seen, Ended)
        assert (seen.outcome.value, seen.ending.complaints[0].message) == ("failed", "no")

    def test_past_its_deadline_a_batch_runs_on(self) -> None:
        seen = self.look(status="in_progress", expired_at=1)
        assert isinstance(seen, Running)

    @pytest.mark.parametrize(("n_done", "early"), [(0, None), (3, Ending(results=("out",)))])
    def test_what_is_done_can_be_read(self, n_done: int, early: Ending | None) -> None:
        counts = {"total": 9, "completed": n_done, "failed": 0}
        seen = self.look(
            status="in_progress", output_file_id="out", error_file_id="err", request_counts=counts
        )
        assert isinstance(seen, Running)
        assert seen.early == early


@pytest.mark.parametrize(
    ("message", "status", "body"),
    [
        ("the model said no", 500, "the model said no"),
        ('{"type":"NonRetriableHttpStatus","status":400,"body":"{\\"error\\":1}"}', 400, '{"error":1}'),
        ('{"type":"NonRetriableHttpStatus","details":{"status":422,"body":"bad"}}', 422, "bad"),
        ('{"status":"odd"}', 500, "odd"),
        ('{"status":200,"body":"fine"}', 500, "fine"),
        ("[1] status", 500, "status"),
    ],
)
def test_a_status_in_the_words_of_a_failed_row_is_its_status(message: str, status: int, body: str) -> None:
    row = {"custom_id": "a", "response": None, "error": {"code": None, "message": message}}
    [answer] = doubleword.reader(6).answers([json.dumps(row).encode()])
    assert (answer.status, answer.origin, answer.cursor) == (status, "provider", "7")
    assert body in answer.body.decode()


def test_the_wait_in_the_body_of_a_refusal_is_read_too(sandbox: Sandbox, client: OpenAI) -> None:
    body = json.dumps({"error": "too_many_requests", "message": "at capacity", "retry_after_seconds": 42})
    sandbox.faults.add(faults.RefuseCreate(status=429, body=body))
    with pytest.raises(APIStatusError) as caught:
        create(client, chat("a"))
    error = of_status(CallInfo(provider="doubleword", does="create"), 429, {}, caught.value.response.content)
    assert getattr(error, "delay_s", None) == 42.0
    assert "at capacity" in str(error)
