"""The sandbox's OpenAI, driven by the official SDK, behaves as the real API is known to."""

from __future__ import annotations

import json
from typing import Any

import pytest
from openai import (
    APIStatusError,
    AuthenticationError,
    BadRequestError,
    ConflictError,
    NotFoundError,
    OpenAI,
    RateLimitError,
)
from openai.types import Batch

from batchling_worker.sandbox import Limits, Sandbox
from batchling_worker.sandbox.providers.openai import OpenAIDialect
from tests.form import CHAT_FORM

from .lines import CHAT, chat, jsonl, parse

FORM = CHAT_FORM


def upload(client: OpenAI, content: bytes, name: str = "input.jsonl") -> str:
    return client.files.create(file=(name, content), purpose="batch").id


def create(client: OpenAI, content: bytes, **more: Any) -> Batch:
    wanted: dict[str, Any] = {"endpoint": CHAT, "completion_window": "24h", **more}
    return client.batches.create(input_file_id=upload(client, content), **wanted)


def finish(sandbox: Sandbox, client: OpenAI, batch: Batch, seconds: float = 10) -> Batch:
    sandbox.clock.advance(seconds)
    return client.batches.retrieve(batch.id)


def results(client: OpenAI, file_id: str | None) -> dict[str, dict[str, Any]]:
    assert file_id
    return parse(client.files.content(file_id).content)


class TestStates:
    def test_batch_goes_through_its_states_in_time(self, sandbox: Sandbox, openai: OpenAI) -> None:
        batch = create(openai, jsonl(chat("a"), chat("b")), metadata={"label": "x"})
        assert batch.id.startswith("batch_")
        assert batch.status == "validating"
        assert batch.request_counts is not None
        assert batch.request_counts.total == 0
        assert batch.expires_at == batch.created_at + 86_400
        assert batch.in_progress_at is None
        assert batch.output_file_id is None
        assert batch.errors is None

        batch = finish(sandbox, openai, batch, 0.3)
        assert batch.status == "in_progress"
        assert batch.request_counts is not None
        assert batch.request_counts.total == 2

        batch = finish(sandbox, openai, batch, 0.28)
        assert batch.status == "finalizing"
        assert batch.output_file_id is None

        batch = finish(sandbox, openai, batch, 0.1)
        assert batch.status == "completed"
        assert batch.completed_at is not None
        assert batch.metadata == {"label": "x"}
        assert batch.request_counts is not None
        assert batch.request_counts.completed == 2

    def test_small_models_are_faster_than_big_ones(self, sandbox: Sandbox, openai: OpenAI) -> None:
        fast = create(openai, jsonl(chat("a", model="llama-3.1-8b-instant")))
        slow = create(openai, jsonl(chat("a", model="openai/gpt-oss-20b")))
        assert finish(sandbox, openai, fast, 1.0).status == "completed"
        assert openai.batches.retrieve(slow.id).status == "in_progress"
        assert finish(sandbox, openai, slow, 1.1).status == "completed"

    def test_batch_that_is_never_done_expires_after_its_window(
        self, sandbox: Sandbox, openai: OpenAI
    ) -> None:
        sandbox.speeds.set({"slow-model": 4 * 86_400.0})
        batch = create(openai, jsonl(*(chat(str(n), model="slow-model") for n in range(100))))
        assert finish(sandbox, openai, batch, 86_399).status == "in_progress"
        batch = finish(sandbox, openai, batch, 2)
        assert batch.status == "expired"
        assert batch.expired_at == batch.expires_at
        done, undone = results(openai, batch.output_file_id), results(openai, batch.error_file_id)
        assert done
        assert undone
        assert done.keys() | undone.keys() == {str(n) for n in range(100)}
        row = next(iter(undone.values()))
        assert row["response"] is None
        assert row["error"]["code"] == "batch_expired"
        assert sandbox.ledger().totals.n_rows == len(done)


class TestResults:
    def test_each_answer_belongs_to_its_question(self, sandbox: Sandbox, openai: OpenAI) -> None:
        rows = [chat(f"id-{n}", f"Question number {n}?") for n in range(50)]
        batch = finish(sandbox, openai, create(openai, jsonl(*rows)))
        content = openai.files.content(batch.output_file_id or "").content
        order = [json.loads(line)["custom_id"] for line in content.splitlines()]
        assert order != sorted(order, key=lambda custom_id: int(custom_id[3:]))
        for custom_id, row in parse(content).items():
            body = row["response"]["body"]
            assert row["response"]["status_code"] == 200
            assert row["error"] is None
            assert row["id"].startswith("batch_req_")
            assert row["response"]["request_id"]
            assert f"Question number {custom_id[3:]}?" in body["choices"][0]["message"]["content"]

    def test_failed_rows_are_in_the_error_file_only(self, sandbox: Sandbox, openai: OpenAI) -> None:
        rows = (
            chat("good"),
            chat("bad", "fault:400"),
            chat("busy", "fault:429"),
            chat("broken", "fault:500"),
        )
        batch = finish(sandbox, openai, create(openai, jsonl(*rows)))
        assert batch.status == "completed"
        assert batch.request_counts is not None
        assert (batch.request_counts.completed, batch.request_counts.failed) == (1, 3)
        assert results(openai, batch.output_file_id).keys() == {"good"}
        errors = results(openai, batch.error_file_id)
        assert {key: row["response"]["status_code"] for key, row in errors.items()} == {
            "bad": 400,
            "busy": 429,
            "broken": 500,
        }
        error = errors["bad"]["response"]["body"]["error"]
        assert error.keys() == {"message", "type", "param", "code"}
        assert errors["bad"]["error"] is None

    def test_batch_with_failed_rows_only_completes_without_output(
        self, sandbox: Sandbox, openai: OpenAI
    ) -> None:
        batch = finish(sandbox, openai, create(openai, jsonl(chat("a", "fault:400"), chat("b", "fault:400"))))
        assert batch.status == "completed"
        assert batch.output_file_id is None
        assert batch.error_file_id
        assert batch.usage is not None
        assert batch.usage.total_tokens == 0
        assert sandbox.ledger().totals.cost_usd == 0

    def test_batch_without_failed_rows_has_no_error_file(self, sandbox: Sandbox, openai: OpenAI) -> None:
        batch = finish(sandbox, openai, create(openai, jsonl(chat("a"))))
        assert batch.output_file_id
        assert batch.error_file_id is None
        assert batch.usage is not None
        assert batch.usage.total_tokens > 0
        file = openai.files.retrieve(batch.output_file_id)
        assert file.purpose == "batch_output"
        assert file.expires_at is not None
        assert file.bytes == len(openai.files.content(file.id).content)

    @pytest.mark.parametrize(
        ("endpoint", "body", "shows"),
        [
            ("/v1/responses", {"input": "What is it?"}, lambda body: body["output"][0]["content"][0]["text"]),
            ("/v1/embeddings", {"input": ["one", "two"]}, lambda body: body["data"][1]["embedding"]),
            ("/v1/completions", {"prompt": "Once"}, lambda body: body["choices"][0]["text"]),
            ("/v1/moderations", {"input": "nice"}, lambda body: body["results"][0]["categories"]),
            ("/v1/images/generations", {"prompt": "a cat"}, lambda body: body["data"][0]["url"]),
            ("/v1/images/edits", {"prompt": "a cat"}, lambda body: body["data"][0]["url"]),
            ("/v1/videos", {"prompt": "a cat"}, lambda body: body["id"]),
        ],
    )
    def test_every_batch_endpoint_answers(
        self, sandbox: Sandbox, openai: OpenAI, endpoint: str, body: dict[str, Any], shows: Any
    ) -> None:
        row = {"custom_id": "a", "method": "POST", "url": endpoint, "body": {"model": "m", **body}}
        batch = finish(sandbox, openai, create(openai, jsonl(row), endpoint=endpoint))
        assert shows(results(openai, batch.output_file_id)["a"]["response"]["body"])

    def test_structured_output_fits_its_schema(self, sandbox: Sandbox, openai: OpenAI) -> None:
        schema = {"type": "object", "properties": {"city": {"type": "string"}, "people": {"type": "integer"}}}
        wanted = {"type": "json_schema", "json_schema": {"name": "place", "schema": schema}}
        batch = finish(sandbox, openai, create(openai, jsonl(chat("a", response_format=wanted))))
        body = results(openai, batch.output_file_id)["a"]["response"]["body"]
        place = json.loads(body["choices"][0]["message"]["content"])
        assert isinstance(place["city"], str)
        assert isinstance(place["people"], int)


class TestValidation:
    @pytest.mark.parametrize(
        ("bad", "code", "param"),
        [
            ("{not json", "invalid_json_line", None),
            ("[1]", "invalid_json_line", None),
            ("", "invalid_json_line", None),
            (chat("a"), "duplicate_custom_id", "custom_id"),
            ({**chat("b"), "custom_id": None}, "missing_required_parameter", "custom_id"),
            (chat("b", model="gpt-4.1"), "mismatched_model", "body.model"),
            ({**chat("b"), "url": "/v1/embeddings"}, "invalid_url", "url"),
            ({**chat("b"), "url": "/openai/v1/chat/completions"}, "invalid_url", "url"),
            (chat("b", model="unknown-model"), "model_not_found", "body.model"),
            ({**chat("b"), "body": {"messages": []}}, "invalid_request", "body.model"),
            (chat("b", stream=True), "streaming_unsupported", "body.stream"),
        ],
    )
    def test_first_bad_line_fails_the_batch(
        self, sandbox: Sandbox, openai: OpenAI, bad: dict[str, Any] | str, code: str, param: str | None
    ) -> None:
        batch = create(openai, jsonl(chat("a"), bad, chat("c"), "{not json"))
        assert batch.status == "validating"
        batch = finish(sandbox, openai, batch)
        assert batch.status == "failed"
        assert batch.failed_at is not None
        assert batch.errors is not None
        assert batch.errors.data is not None
        assert [(error.code, error.param, error.line) for error in batch.errors.data] == [(code, param, 2)]
        assert batch.output_file_id is None
        assert batch.error_file_id is None
        assert batch.request_counts is not None
        assert batch.request_counts.total == 0
        assert sandbox.ledger().totals.n_rows == 0

    @pytest.mark.parametrize(
        ("endpoint", "body"),
        [
            ("/v1/moderations", {"input": "x"}),
            ("/v1/images/generations", {"prompt": "x"}),
            ("/v1/videos", {"prompt": "x"}),
            ("/v1/responses", {"prompt": {"id": "pmpt_1"}}),
        ],
    )
    def test_some_requests_need_not_name_a_model(
        self, sandbox: Sandbox, openai: OpenAI, endpoint: Any, body: dict[str, Any]
    ) -> None:
        line = {"custom_id": "a", "method": "POST", "url": endpoint, "body": body}
        batch = finish(sandbox, openai, create(openai, jsonl(line), endpoint=endpoint))
        assert results(openai, batch.output_file_id)["a"]["response"]["status_code"] == 200

    def test_other_requests_without_a_model_fail_the_batch(self, sandbox: Sandbox, openai: OpenAI) -> None:
        for endpoint, body in (("/v1/embeddings", {"input": "x"}), ("/v1/responses", {"input": "x"})):
            line = {"custom_id": "a", "method": "POST", "url": endpoint, "body": body}
            batch = finish(sandbox, openai, create(openai, jsonl(line), endpoint=endpoint))
            assert batch.errors is not None
            assert [error.param for error in batch.errors.data or ()] == ["body.model"]

    def test_unknown_file_fails_after_create(self, sandbox: Sandbox, openai: OpenAI) -> None:
        batch = openai.batches.create(input_file_id="file-none", endpoint=CHAT, completion_window="24h")
        batch = finish(sandbox, openai, batch)
        assert batch.status == "failed"
        assert batch.errors is not None
        assert batch.errors.data is not None
        assert (batch.errors.data[0].code, batch.errors.data[0].param) == ("invalid_request", "file_id")

    def test_empty_file_fails(self, sandbox: Sandbox, openai: OpenAI) -> None:
        batch = finish(sandbox, openai, create(openai, b""))
        assert batch.status == "failed"
        assert batch.errors is not None
        assert batch.errors.data is not None
        assert batch.errors.data[0].code == "empty_file"

    @pytest.mark.parametrize(
        "wrong",
        [
            {"completion_window": "1h"},
            {"endpoint": "/v1/audio/transcriptions"},
            {"metadata": {str(n): "" for n in range(17)}},
            {"metadata": {"k" * 65: ""}},
            {"metadata": {"k": "v" * 513}},
            {"output_expires_after": {"anchor": "created_at", "seconds": 60}},
        ],
    )
    def test_bad_create_is_refused_at_once(
        self, openai: OpenAI, sandbox: Sandbox, wrong: dict[str, Any]
    ) -> None:
        with pytest.raises(BadRequestError) as caught:
            create(openai, jsonl(chat("a")), **wrong)
        assert caught.value.type == "invalid_request_error"
        assert sandbox.ledger().totals.n_batches == 0


class TestFiles:
    def test_file_can_be_listed_read_and_deleted(self, openai: OpenAI) -> None:
        content = jsonl(chat("a"))
        file = openai.files.create(file=("first.jsonl", content), purpose="batch")
        other = openai.files.create(file=("second.txt", b"x"), purpose="user_data")
        assert file.id.startswith("file-")
        assert file.bytes == len(content)
        assert file.status == "processed"
        assert file.expires_at == file.created_at + 2_592_000
        assert [f.id for f in openai.files.list()] == [other.id, file.id]
        assert [f.id for f in openai.files.list(order="asc", limit=1)] == [file.id, other.id]
        assert [f.filename for f in openai.files.list(purpose="batch")] == ["first.jsonl"]
        assert openai.files.content(file.id).content == content
        assert openai.files.delete(file.id).deleted
        with pytest.raises(NotFoundError):
            openai.files.retrieve(file.id)

    def test_files_expire(self, sandbox: Sandbox, openai: OpenAI) -> None:
        expires: Any = {"anchor": "created_at", "seconds": 3600}
        file = openai.files.create(file=("a.jsonl", b"{}\n"), purpose="batch", expires_after=expires)
        assert file.expires_at == file.created_at + 3600
        sandbox.clock.advance(3601)
        with pytest.raises(NotFoundError):
            openai.files.content(file.id)

    def test_wrong_file_name_is_refused_with_detail(self, openai: OpenAI) -> None:
        with pytest.raises(BadRequestError) as caught:
            upload(openai, b"{}\n", "input.json")
        body = caught.value.response.json()
        assert body["error"].keys() == {"message", "type", "param", "code"}
        assert body["detail"].keys() == {"message", "code"}

    def test_too_large_file_is_refused(self, sandbox: Sandbox, openai: OpenAI) -> None:
        sandbox.limits = Limits(max_bytes=1_000_000)
        assert upload(openai, b"x" * 1_000_000)
        with pytest.raises(BadRequestError, match="too large"):
            upload(openai, b"x" * 3_000_000)

    def test_input_file_may_go_while_its_batch_runs(self, sandbox: Sandbox, openai: OpenAI) -> None:
        batch = create(openai, jsonl(*(chat(str(n)) for n in range(10))))
        openai.files.delete(batch.input_file_id)
        assert len(results(openai, finish(sandbox, openai, batch).output_file_id)) == 10


class TestLimits:
    def test_published_limits_are_the_defaults(self) -> None:
        limits, traits = Limits(), OpenAIDialect.traits
        assert (traits.row_limit(limits), traits.byte_limit(limits)) == (50_000, 200_000_000)
        assert (limits.max_embedding_inputs, limits.max_creates_per_hour) == (50_000, 2_000)

    def test_too_many_rows_fail_the_batch(self, sandbox: Sandbox, openai: OpenAI) -> None:
        rows = jsonl(*(chat(str(n)) for n in range(50_001)))
        assert finish(sandbox, openai, create(openai, rows)).status == "failed"

    def test_too_many_embedding_inputs_fail_the_batch(self, sandbox: Sandbox, openai: OpenAI) -> None:
        sandbox.limits = Limits(max_embedding_inputs=3)
        row = {
            "custom_id": "a",
            "method": "POST",
            "url": "/v1/embeddings",
            "body": {"model": "m", "input": ["x"] * 4},
        }
        batch = create(openai, jsonl(row), endpoint="/v1/embeddings")
        assert finish(sandbox, openai, batch).status == "failed"

    def test_creates_are_limited_by_the_hour(self, sandbox: Sandbox, openai: OpenAI) -> None:
        sandbox.limits = Limits(max_creates_per_hour=2)
        create(openai, jsonl(chat("a")))
        create(openai, jsonl(chat("b")))
        with pytest.raises(RateLimitError) as caught:
            create(openai, jsonl(chat("c")))
        assert int(caught.value.response.headers["retry-after"]) > 0
        sandbox.clock.advance(3600)
        create(openai, jsonl(chat("c")))

    def test_enqueued_tokens_fail_a_batch_until_others_end(self, sandbox: Sandbox, openai: OpenAI) -> None:
        sandbox.limits = Limits(max_enqueued_tokens=400)
        rows = jsonl(chat("a", "x" * 1000))
        first = create(openai, rows)
        # Two batches read at once may take the room in any order: wait until the first has taken it.
        assert finish(sandbox, openai, first, 0.1).status == "in_progress"
        second = finish(sandbox, openai, create(openai, rows), 0.3)
        assert second.status == "failed"
        assert second.errors is not None
        assert second.errors.data is not None
        assert second.errors.data[0].code == "token_limit_exceeded"
        assert finish(sandbox, openai, first).status == "completed"
        assert finish(sandbox, openai, create(openai, rows)).status == "completed"


class TestList:
    def test_list_pages_newest_first(self, openai: OpenAI) -> None:
        ids = [create(openai, jsonl(chat("a"))).id for _ in range(5)][::-1]
        page = openai.batches.list(limit=2)
        assert [batch.id for batch in page.data] == ids[:2]
        assert page.has_more
        page = openai.batches.list(limit=2, after=ids[3])
        assert [batch.id for batch in page.data] == ids[4:]
        assert not page.has_more
        assert [batch.id for batch in openai.batches.list(limit=2)] == ids

    def test_list_shows_up_to_twenty_unless_asked_for_more(self, sandbox: Sandbox, openai: OpenAI) -> None:
        rows = upload(openai, jsonl(chat("a")))
        for _ in range(25):
            openai.batches.create(input_file_id=rows, endpoint=CHAT, completion_window="24h")
        assert len(openai.batches.list().data) == 20
        assert len(openai.batches.list(limit=100).data) == 25
        with pytest.raises(BadRequestError):
            openai.batches.list(limit=101)


class TestCancel:
    def test_cancelled_batch_delivers_what_was_done(self, sandbox: Sandbox, openai: OpenAI) -> None:
        batch = create(openai, jsonl(*(chat(str(n), model="big") for n in range(100))))
        sandbox.clock.advance(1.0)
        batch = openai.batches.cancel(batch.id)
        assert batch.status == "cancelling"
        assert batch.cancelling_at is not None
        batch = finish(sandbox, openai, batch, 1.0)
        assert batch.status == "cancelled"
        assert batch.cancelled_at is not None
        done, undone = results(openai, batch.output_file_id), results(openai, batch.error_file_id)
        assert done
        assert undone
        assert len(done) + len(undone) == 100
        assert {row["error"]["code"] for row in undone.values()} == {"batch_cancelled"}
        assert sandbox.ledger().totals.n_rows == len(done)

    def test_ended_batch_cannot_be_cancelled(self, sandbox: Sandbox, openai: OpenAI) -> None:
        batch = finish(sandbox, openai, create(openai, jsonl(chat("a"))))
        with pytest.raises(ConflictError):
            openai.batches.cancel(batch.id)


class TestCredentials:
    def test_invalid_key_is_refused(self, sandbox: Sandbox) -> None:
        client = OpenAI(base_url=sandbox.base_url("openai") + "/v1", api_key="invalid-secret", max_retries=0)
        with client, pytest.raises(AuthenticationError) as caught:
            client.batches.list()
        assert caught.value.code == "invalid_api_key"
        assert "invalid-secret" not in caught.value.message

    def test_missing_key_is_refused(self, sandbox: Sandbox, openai: OpenAI) -> None:
        with pytest.raises(AuthenticationError):
            openai.batches.list(extra_headers={"Authorization": ""})

    @pytest.mark.parametrize("headers", [{"Authorization": "Bearer sk-two"}, {"OpenAI-Project": "other"}])
    def test_objects_of_another_credential_do_not_exist(
        self, sandbox: Sandbox, openai: OpenAI, headers: dict[str, str]
    ) -> None:
        batch = create(openai, jsonl(chat("a")))
        with pytest.raises(NotFoundError):
            openai.batches.retrieve(batch.id, extra_headers=headers)
        with pytest.raises(NotFoundError):
            openai.files.retrieve(batch.input_file_id, extra_headers=headers)
        assert not openai.batches.list(extra_headers=headers).data
        assert not openai.files.list(extra_headers=headers).data
        foreign = openai.batches.create(
            input_file_id=batch.input_file_id, endpoint=CHAT, completion_window="24h", extra_headers=headers
        )
        sandbox.clock.advance(10)
        assert openai.batches.retrieve(foreign.id, extra_headers=headers).status == "failed"


class TestErrors:
    def test_unknown_batch_is_not_found(self, openai: OpenAI) -> None:
        with pytest.raises(NotFoundError) as caught:
            openai.batches.retrieve("batch_none")
        assert caught.value.type == "invalid_request_error"
        assert caught.value.code is None

    def test_unknown_url_is_not_found(self, openai: OpenAI) -> None:
        with pytest.raises(NotFoundError):
            openai.post("/nonsense", cast_to=object)

    def test_body_that_is_not_json_is_refused(self, openai: OpenAI) -> None:
        with pytest.raises(APIStatusError) as caught:
            openai.post("/batches", cast_to=object, body={"input_file_id": 3})
        assert caught.value.status_code == 400


class TestRealtime:
    def test_realtime_costs_twice_the_batch(self, sandbox: Sandbox, openai: OpenAI) -> None:
        answer = openai.chat.completions.create(
            model="gpt-4o-mini", messages=[{"role": "user", "content": "Hi."}]
        )
        assert "Hi." in (answer.choices[0].message.content or "")
        finish(sandbox, openai, create(openai, jsonl(chat("a", "Hi."))))
        ledger = sandbox.ledger()
        assert ledger.realtime[0].endpoint == CHAT
        assert ledger.realtime[0].cost_usd == pytest.approx(2 * ledger.rows[0].cost_usd)

    def test_streams_end_with_the_whole_answer(self, openai: OpenAI) -> None:
        chunks = openai.chat.completions.create(
            model="gpt-4o-mini", messages=[{"role": "user", "content": "Hi."}], stream=True
        )
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
        assert "Hi." in text
        events = list(openai.responses.create(model="gpt-4o-mini", input="Hi.", stream=True))
        assert events[0].type == "response.created"
        assert events[-1].type == "response.completed"
        assert "Hi." in events[-1].response.output_text

    def test_other_endpoints_answer_in_the_sdks_types(self, openai: OpenAI) -> None:
        assert "Hi." in openai.responses.create(model="gpt-4.1", input="Hi.").output_text
        embedded = openai.embeddings.create(model="text-embedding-3-small", input=["a", "b"], dimensions=8)
        assert [len(item.embedding) for item in embedded.data] == [8, 8]
        assert (
            openai.moderations.create(input="Hi.", model="omni-moderation-latest").results[0].flagged is False
        )
        assert openai.audio.transcriptions.create(file=("a.wav", b"x"), model="whisper-1").text

    def test_realtime_errors_are_the_sdks_own(self, sandbox: Sandbox, openai: OpenAI) -> None:
        with pytest.raises(NotFoundError) as caught:
            openai.responses.create(model="unknown-model", input="Hi.")
        assert caught.value.code == "model_not_found"
        with pytest.raises(RateLimitError):
            openai.responses.create(model="gpt-4.1", input="fault:429")
        assert sandbox.ledger().totals.cost_usd == 0
