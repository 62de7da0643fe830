"""The sandbox's Groq, driven by the official SDK, behaves as the real API is known to."""

from __future__ import annotations

from typing import Any

import pytest
from groq import AuthenticationError, BadRequestError, Groq, NotFoundError, PermissionDeniedError
from groq.types import BatchCreateResponse, BatchRetrieveResponse

from batchling_worker.sandbox import Limits, Sandbox
from batchling_worker.sandbox.world.faults import BareErrors, RefuseCreate
from tests.form import CHAT_FORM

from .lines import CHAT, chat, jsonl, parse

FORM = CHAT_FORM

MODEL = "llama-3.1-8b-instant"
ROOT = "/openai/v1"


def create(client: Groq, content: bytes, **more: Any) -> BatchCreateResponse:
    file = client.files.create(file=("input.jsonl", content), purpose="batch")
    assert file.id
    wanted: dict[str, Any] = {"endpoint": CHAT, "completion_window": "24h", **more}
    return client.batches.create(input_file_id=file.id, **wanted)


def finish(sandbox: Sandbox, client: Groq, batch_id: str, seconds: float = 10) -> BatchRetrieveResponse:
    sandbox.clock.advance(seconds)
    return client.batches.retrieve(batch_id)


def results(client: Groq, file_id: str | None) -> dict[str, dict[str, Any]]:
    assert file_id
    return parse(client.files.content(file_id).read())


def raw(client: Groq, path: str) -> dict[str, Any]:
    answer: dict[str, Any] = client.get(f"{ROOT}{path}", cast_to=dict[str, Any])
    return answer


class TestStates:
    def test_batch_goes_through_its_states_in_time(self, sandbox: Sandbox, groq: Groq) -> None:
        batch = create(groq, jsonl(chat("a", model=MODEL)), metadata={"label": "x"})
        assert batch.id.startswith("batch_01")
        assert batch.input_file_id.startswith("file_01")
        assert batch.status == "validating"
        assert finish(sandbox, groq, batch.id, 0.3).status == "in_progress"
        assert finish(sandbox, groq, batch.id, 0.28).status == "finalizing"
        ended = finish(sandbox, groq, batch.id, 0.1)
        assert ended.status == "completed"
        assert ended.metadata == {"label": "x"}
        assert ended.request_counts is not None
        assert ended.request_counts.completed == 1
        shown = raw(groq, f"/batches/{batch.id}")
        assert "model" not in shown
        assert "usage" not in shown

    @pytest.mark.parametrize(("window", "seconds"), [("24h", 86_400), ("36h", 129_600), ("7d", 604_800)])
    def test_windows_from_a_day_to_a_week(self, groq: Groq, window: str, seconds: int) -> None:
        batch = create(groq, jsonl(chat("a", model=MODEL)), completion_window=window)
        assert batch.expires_at == batch.created_at + seconds

    @pytest.mark.parametrize("window", ["23h", "8d", "1h", "soon", ""])
    def test_other_windows_are_refused(self, sandbox: Sandbox, groq: Groq, window: str) -> None:
        with pytest.raises(BadRequestError):
            create(groq, jsonl(chat("a", model=MODEL)), completion_window=window)
        assert sandbox.ledger().totals.n_batches == 0


class TestResults:
    def test_file_may_mix_models_and_endpoints(self, sandbox: Sandbox, groq: Groq) -> None:
        speech = {"model": "whisper-large-v3", "url": "https://example.com/a.wav"}
        batch = create(
            groq,
            jsonl(
                chat("fast", model=MODEL),
                chat("slow", model="openai/gpt-oss-20b"),
                {"custom_id": "speech", "method": "POST", "url": "/v1/audio/transcriptions", "body": speech},
            ),
        )
        ended = finish(sandbox, groq, batch.id)
        rows = results(groq, ended.output_file_id)
        assert rows.keys() == {"fast", "slow", "speech"}
        assert rows["slow"]["response"]["body"]["model"] == "openai/gpt-oss-20b"
        assert rows["speech"]["response"]["body"]["text"]
        assert rows["fast"]["response"]["body"]["x_groq"]["id"]
        assert rows["fast"]["response"]["body"]["usage"]["total_time"] > 0

    def test_failed_rows_are_in_the_error_file_only(self, sandbox: Sandbox, groq: Groq) -> None:
        rows = (
            chat("good", model=MODEL),
            chat("bad", "fault:400", model=MODEL),
            chat("none", model="unknown-x"),
        )
        ended = finish(sandbox, groq, create(groq, jsonl(*rows)).id)
        assert ended.status == "completed"
        assert results(groq, ended.output_file_id).keys() == {"good"}
        errors = results(groq, ended.error_file_id)
        assert errors["bad"]["response"]["status_code"] == 400
        assert errors["bad"]["response"]["body"]["error"]["type"] == "invalid_request_error"
        assert errors["none"]["response"]["body"]["error"]["code"] == "model_not_found"


class TestValidation:
    @pytest.mark.parametrize(
        ("bad", "code"),
        [
            ("{not json", "invalid_json_line"),
            ({**chat("b"), "method": "GET"}, "invalid_method"),
            ({**chat("b"), "url": "/openai/v1/chat/completions"}, "invalid_url"),
            (chat("a"), "duplicate_custom_id"),
            (chat("b", stream=True), "streaming_unsupported"),
        ],
    )
    def test_bad_line_is_skipped_and_counted(
        self, sandbox: Sandbox, groq: Groq, bad: dict[str, Any] | str, code: str
    ) -> None:
        batch = create(groq, jsonl(chat("a"), bad, chat("c")))
        sandbox.clock.advance(10)
        shown = raw(groq, f"/batches/{batch.id}")
        assert shown["status"] == "completed"
        assert shown["request_counts"] == {"total": 3, "completed": 2, "failed": 1}
        assert [(error["code"], error["line"]) for error in shown["errors"]["data"]] == [(code, 2)]
        assert results(groq, shown["output_file_id"]).keys() == {"a", "c"}

    def test_file_without_a_good_line_fails(self, sandbox: Sandbox, groq: Groq) -> None:
        batch = create(groq, jsonl("{no", "[]"))
        sandbox.clock.advance(10)
        shown = raw(groq, f"/batches/{batch.id}")
        assert shown["status"] == "failed"
        assert len(shown["errors"]["data"]) == 2
        told = groq.batches.retrieve(batch.id).errors
        assert told is not None
        assert [error.line for error in told.data or ()] == [1, 2]

    def test_errors_may_be_a_bare_list(self, sandbox: Sandbox, groq: Groq) -> None:
        sandbox.faults.add(BareErrors())
        batch = create(groq, jsonl(chat("a"), "{no"))
        sandbox.clock.advance(10)
        assert [error["line"] for error in raw(groq, f"/batches/{batch.id}")["errors"]] == [2]

    def test_unknown_file_is_refused_at_once(self, groq: Groq) -> None:
        with pytest.raises(BadRequestError):
            groq.batches.create(input_file_id="file_none", endpoint=CHAT, completion_window="24h")

    def test_plan_without_batches_is_refused(self, sandbox: Sandbox, groq: Groq) -> None:
        sandbox.faults.add(RefuseCreate(status=403, code="not_available_for_plan"))
        with pytest.raises(PermissionDeniedError) as caught:
            create(groq, jsonl(chat("a")))
        assert isinstance(caught.value.body, dict)
        assert caught.value.body["error"]["code"] == "not_available_for_plan"


class TestList:
    def test_many_ids_are_polled_in_one_call(self, sandbox: Sandbox, groq: Groq) -> None:
        ids = [create(groq, jsonl(chat("a", model=MODEL))).id for _ in range(5)]
        sandbox.clock.advance(10)
        shown = raw(groq, "/batches?" + "&".join(f"id={batch_id}" for batch_id in [*ids[:3], "batch_none"]))
        assert {batch["id"]: batch["status"] for batch in shown["data"]} == dict.fromkeys(
            ids[:3], "completed"
        )

    def test_more_than_200_ids_are_refused(self, groq: Groq) -> None:
        with pytest.raises(BadRequestError):
            raw(groq, "/batches?" + "&".join(f"id=batch_{n}" for n in range(201)))

    def test_list_pages_by_cursor(self, sandbox: Sandbox, groq: Groq) -> None:
        sandbox.limits = Limits(page_size=2)
        ids = [create(groq, jsonl(chat("a", model=MODEL))).id for _ in range(5)][::-1]
        seen: list[str] = []
        path: str | None = "/batches"
        while path:
            page = raw(groq, path)
            seen += [batch["id"] for batch in page["data"]]
            cursor = page["paging"]["next_cursor"]
            path = f"/batches?cursor={cursor}" if cursor else None
        assert seen == ids


class TestFiles:
    def test_file_can_be_listed_read_and_deleted(self, groq: Groq) -> None:
        content = jsonl(chat("a"))
        file = groq.files.create(file=("named.jsonl", content), purpose="batch")
        assert file.id
        assert file.bytes == len(content)
        assert [entry.filename for entry in groq.files.list().data or []] == ["named.jsonl"]
        assert raw(groq, f"/files/{file.id}").keys() == {
            "id",
            "object",
            "bytes",
            "created_at",
            "filename",
            "purpose",
        }
        assert groq.files.content(file.id).read() == content
        assert groq.files.delete(file.id).deleted
        with pytest.raises(NotFoundError):
            groq.files.info(file.id)

    def test_wrong_file_name_is_refused(self, groq: Groq) -> None:
        with pytest.raises(BadRequestError) as caught:
            groq.files.create(file=("input.csv", b"{}\n"), purpose="batch")
        assert isinstance(caught.value.body, dict)
        assert caught.value.body.keys() == {"error"}


class TestLimits:
    def test_creates_are_not_limited_by_the_hour(self, sandbox: Sandbox, groq: Groq) -> None:
        sandbox.limits = Limits(max_creates_per_hour=1)
        for _ in range(3):
            create(groq, jsonl(chat("a")))

    def test_too_many_rows_fail_the_batch(self, sandbox: Sandbox, groq: Groq) -> None:
        sandbox.limits = Limits(max_rows=2)
        batch = create(groq, jsonl(chat("a"), chat("b"), chat("c")))
        assert finish(sandbox, groq, batch.id).status == "failed"

    def test_too_large_file_is_refused(self, sandbox: Sandbox, groq: Groq) -> None:
        sandbox.limits = Limits(max_bytes=100)
        with pytest.raises(BadRequestError):
            create(groq, jsonl(chat("a", "x" * 100)))


class TestCancel:
    def test_cancelled_batch_delivers_what_was_done(self, sandbox: Sandbox, groq: Groq) -> None:
        batch = create(groq, jsonl(*(chat(str(n), model="big") for n in range(100))))
        sandbox.clock.advance(1.0)
        assert groq.batches.cancel(batch.id).status == "cancelling"
        ended = finish(sandbox, groq, batch.id, 1.0)
        assert ended.status == "cancelled"
        assert len(results(groq, ended.output_file_id)) + len(results(groq, ended.error_file_id)) == 100

    def test_ended_batch_cannot_be_cancelled(self, sandbox: Sandbox, groq: Groq) -> None:
        batch = create(groq, jsonl(chat("a", model=MODEL)))
        sandbox.clock.advance(10)
        with pytest.raises(BadRequestError):
            groq.batches.cancel(batch.id)


class TestCredentials:
    def test_invalid_key_is_refused(self, sandbox: Sandbox) -> None:
        with Groq(base_url=sandbox.base_url("groq"), api_key="invalid-secret", max_retries=0) as client:
            with pytest.raises(AuthenticationError) as caught:
                client.batches.list()
            assert "invalid-secret" not in str(caught.value)

    def test_objects_of_another_credential_do_not_exist(self, sandbox: Sandbox, groq: Groq) -> None:
        batch = create(groq, jsonl(chat("a")))
        with Groq(base_url=sandbox.base_url("groq"), api_key="gsk-two", max_retries=0) as other:
            assert not other.batches.list().data
            assert not other.batches.list(extra_query={"id": batch.id}).data
            with pytest.raises(NotFoundError):
                other.batches.retrieve(batch.id)
            with pytest.raises(NotFoundError):
                other.files.content(batch.input_file_id)


class TestRealtime:
    def test_realtime_answers_at_once_and_streams(self, sandbox: Sandbox, groq: Groq) -> None:
        answer = groq.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "Hi."}])
        assert "Hi." in (answer.choices[0].message.content or "")
        chunks = groq.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": "Hi."}], stream=True
        )
        assert "Hi." in "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
        assert groq.audio.transcriptions.create(file=("a.wav", b"x"), model="whisper-large-v3").text
        assert sandbox.ledger().totals.n_realtime == 3
