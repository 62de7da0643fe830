"""The sandbox's Together, driven by the official SDK, behaves as the real API is known to; the adapter reads it."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from together import (
    APIStatusError,
    AuthenticationError,
    BadRequestError,
    ConflictError,
    NotFoundError,
    Together,
)
from together.types import BatchJob

from batchling_worker import providers
from batchling_worker.decisions import blame
from batchling_worker.dialects.openai.rows import openai_rows
from batchling_worker.provider import Ended, Running
from batchling_worker.providers.together import Job, status_of
from batchling_worker.sandbox import Limits, Sandbox
from batchling_worker.sandbox.world.faults import ExpireBatch
from tests.form import CHAT_FORM, Ability

from .lines import CHAT, jsonl, parse

MODEL = "meta-llama/Llama-3.3-70B-Instruct-Turbo"

FORM = replace(
    CHAT_FORM,
    # Its adapter is an OpenAIFiles with its own statuses. Failed rows have a code and no status; rows that never
    # ran are in no file.
    lacks=frozenset({Ability.OPENAI_FILES, Ability.UNDONE_ROWS, Ability.ROW_STATUSES}),
)
NOW = dt.datetime(2026, 11, 25, tzinfo=dt.UTC)


@pytest.fixture
def together(sandbox: Sandbox) -> Iterator[Together]:
    with client(sandbox, "tk-one") as opened:
        yield opened


def client(sandbox: Sandbox, key: str) -> Together:
    return Together(base_url=sandbox.base_url("together"), api_key=key, max_retries=0)


def row(custom_id: str, prompt: str = "Say hello.", *, model: str = MODEL, **more: Any) -> dict[str, Any]:
    body = {"model": model, "messages": [{"role": "user", "content": prompt}], **more}
    return {"custom_id": custom_id, "body": body}


@pytest.fixture
def stored(together: Together, tmp_path: Path) -> Any:
    """Upload lines as the SDK does: get a URL, put the lines there, and have them checked."""

    def store(*lines: dict[str, Any] | str, name: str = "in.jsonl") -> str:
        path = tmp_path / name
        path.write_bytes(jsonl(*lines))
        return together.files.upload(path, purpose="batch-api", check=False).id

    return store


def create(together: Together, file_id: str, endpoint: Any = CHAT) -> BatchJob:
    job = together.batches.create(input_file_id=file_id, endpoint=endpoint).job
    assert job is not None
    return job


def finish(sandbox: Sandbox, together: Together, job: BatchJob, seconds: float = 60) -> BatchJob:
    sandbox.clock.advance(seconds)
    assert job.id
    return together.batches.retrieve(job.id)


def results(together: Together, file_id: str | None) -> dict[str, dict[str, Any]]:
    assert file_id
    return parse(together.files.content(file_id).read())


class TestJobs:
    def test_a_job_goes_through_its_states_in_time(
        self, sandbox: Sandbox, together: Together, stored: Any
    ) -> None:
        job = create(together, stored(row("a"), row("b")))
        assert (job.status, job.progress, job.x_model_id) == ("VALIDATING", 0.0, None)
        assert job.job_deadline is not None
        assert job.created_at is not None
        assert job.job_deadline - job.created_at == dt.timedelta(hours=24)
        assert finish(sandbox, together, job, 0.3).status == "IN_PROGRESS"
        ended = finish(sandbox, together, job)
        assert (ended.status, ended.progress, ended.x_model_id) == ("COMPLETED", 100.0, MODEL)
        assert ended.error_file_id is None
        rows = results(together, ended.output_file_id)
        assert rows.keys() == {"a", "b"}
        assert rows["a"].keys() == {"id", "custom_id", "response"}
        assert rows["a"]["response"]["body"]["choices"][0]["message"]["tool_calls"] == []

    def test_a_created_job_is_wrapped_and_a_list_is_bare(
        self, sandbox: Sandbox, together: Together, stored: Any
    ) -> None:
        file_id = stored(row("a"))
        answer = httpx.post(
            sandbox.base_url("together") + "/v1/batches",
            headers={"Authorization": "Bearer tk-one"},
            json={"input_file_id": file_id, "endpoint": CHAT},
        )
        assert answer.status_code == 201
        assert answer.json().keys() == {"job"}
        assert "request_counts" not in answer.json()["job"]
        assert "metadata" not in answer.json()["job"]
        create(together, file_id)
        assert len(together.batches.list()) == 2

    def test_a_failed_row_has_a_code_and_no_status(
        self, sandbox: Sandbox, together: Together, stored: Any
    ) -> None:
        rows = (
            row("good"),
            row("bad", "fault:400"),
            row("none", model="unknown-x"),
            row("sick", "fault:503"),
        )
        ended = finish(sandbox, together, create(together, stored(*rows)))
        assert ended.status == "COMPLETED"
        assert results(together, ended.output_file_id).keys() == {"good"}
        errors = results(together, ended.error_file_id)
        assert {one["error"]["code"] for one in errors.values()} == {
            "batch_client_error",
            "invalid_model",
            "batch_server_error",
        }
        assert all(one.keys() == {"id", "custom_id", "error"} for one in errors.values())

    @pytest.mark.parametrize("lines", [("{no json",), (row("a"), "{no json"), (row("a"), row("a"))])
    def test_bad_lines_fail_the_job_and_are_named(
        self, sandbox: Sandbox, together: Together, stored: Any, lines: tuple[Any, ...]
    ) -> None:
        ended = finish(sandbox, together, create(together, stored(*lines)))
        assert ended.status == "FAILED"
        assert ended.error is not None
        assert f"input format error: Line {len(lines)}:" in ended.error
        assert ended.output_file_id is None

    def test_an_unknown_file_fails_the_job_later(self, sandbox: Sandbox, together: Together) -> None:
        ended = finish(sandbox, together, create(together, "file-none"))
        assert ended.status == "FAILED"
        assert "Failed to download input file" in (ended.error or "")

    def test_an_unknown_endpoint_is_refused_with_a_sentence(self, together: Together, stored: Any) -> None:
        with pytest.raises(BadRequestError) as caught:
            create(together, stored(row("a")), "/v1/embeddings")
        assert isinstance(caught.value.body, dict)
        assert isinstance(caught.value.body["error"], str)

    def test_a_cancelled_job_hands_out_what_was_done(
        self, sandbox: Sandbox, together: Together, stored: Any
    ) -> None:
        job = create(together, stored(*(row(str(n)) for n in range(100))))
        sandbox.clock.advance(1.0)
        assert job.id
        assert together.batches.cancel(job.id).status == "CANCELING"  # type: ignore[comparison-overlap]
        ended = finish(sandbox, together, job, 1.0)
        assert ended.status == "CANCELLED"
        assert 0 < len(results(together, ended.output_file_id)) < 100
        with pytest.raises(ConflictError, match="already in terminal state: CANCELLED"):
            together.batches.cancel(job.id)

    def test_an_expired_job_hands_out_what_was_done(
        self, sandbox: Sandbox, together: Together, stored: Any
    ) -> None:
        sandbox.faults.add(ExpireBatch(done=0.5))
        ended = finish(sandbox, together, create(together, stored(row("a"), row("b"))))
        assert ended.status == "EXPIRED"
        assert len(results(together, ended.output_file_id)) == 1


class TestFiles:
    def test_equal_bytes_are_stored_once(self, sandbox: Sandbox, together: Together, stored: Any) -> None:
        first = stored(row("a"), name="one.jsonl")
        assert stored(row("a"), name="two.jsonl") == first
        assert stored(row("b"), name="three.jsonl") != first
        with client(sandbox, "tk-two") as other, pytest.raises(NotFoundError):
            other.files.retrieve(first)

    def test_a_place_takes_only_the_bytes_it_was_given_out_for(self, sandbox: Sandbox) -> None:
        url, key = sandbox.base_url("together"), {"Authorization": "Bearer tk-one"}
        wanted = {
            "purpose": (None, "batch-api"),
            "file_name": (None, "a.jsonl"),
            "file_type": (None, "jsonl"),
            "checksum": (None, hashlib.sha256(b"{}\n").hexdigest()),
        }
        begun = httpx.post(f"{url}/v1/files", headers=key, files=wanted)
        assert begun.status_code == 302
        file_id = begun.headers["X-Together-File-Id"]
        assert httpx.put(begun.headers["Location"], content=b"other").status_code == 400
        assert httpx.post(f"{url}/v1/files/{file_id}/preprocess", headers=key).status_code == 404
        assert httpx.put(begun.headers["Location"], content=b"{}\n").status_code == 200
        assert httpx.post(f"{url}/v1/files/{file_id}/preprocess", headers=key).json()["id"] == file_id
        assert httpx.put(f"{url}/_store/file-none", content=b"x").status_code == 403

    def test_a_file_may_go_up_in_one_call(self, sandbox: Sandbox, together: Together) -> None:
        content = jsonl(row("a"))
        answer = httpx.post(
            sandbox.base_url("together") + "/v1/files/upload",
            headers={"Authorization": "Bearer tk-one"},
            data={"purpose": "batch-api", "file_name": "a.jsonl"},
            files={"file": ("a.jsonl", content)},
        )
        file = together.files.retrieve(answer.json()["id"])
        assert (file.bytes, file.filename, file.purpose) == (len(content), "a.jsonl", "batch-api")
        assert [one.id for one in together.files.list().data] == [file.id]
        assert together.files.content(file.id).read() == content

    def test_the_lines_of_a_file_are_counted(self, together: Together, stored: Any) -> None:
        told = together.files.retrieve(stored(row("a"), row("b"))).model_dump()
        assert told["LineCount"] == 2

    def test_too_large_a_file_is_refused(self, sandbox: Sandbox, together: Together) -> None:
        assert providers.load("together").facts.max_bytes == 100_000_000
        sandbox.limits = Limits(max_bytes=100)
        answer = httpx.post(
            sandbox.base_url("together") + "/v1/files/upload",
            headers={"Authorization": "Bearer tk-one"},
            data={"purpose": "batch-api", "file_name": "a.jsonl"},
            files={"file": ("a.jsonl", b"x" * 200)},
        )
        assert answer.status_code == 400


class TestDoor:
    def test_an_invalid_key_is_refused(self, sandbox: Sandbox) -> None:
        with client(sandbox, "invalid-secret") as stranger, pytest.raises(AuthenticationError) as caught:
            stranger.batches.list()
        assert "invalid-secret" not in str(caught.value)

    def test_jobs_of_another_key_do_not_exist(
        self, sandbox: Sandbox, together: Together, stored: Any
    ) -> None:
        job = create(together, stored(row("a")))
        assert job.id
        with client(sandbox, "tk-two") as other:
            assert not other.batches.list()
            with pytest.raises(NotFoundError):
                other.batches.retrieve(job.id)

    def test_a_caller_that_names_itself_python_s_own_is_turned_away(self, sandbox: Sandbox) -> None:
        answer = httpx.get(
            sandbox.base_url("together") + "/v1/batches",
            headers={"Authorization": "Bearer tk-one", "User-Agent": "Python-urllib/3.11"},
        )
        assert answer.status_code == 403
        assert "1010" in answer.text

    def test_realtime_answers_at_once_and_streams(self, sandbox: Sandbox, together: Together) -> None:
        talk: Any = [{"role": "user", "content": "Hi."}]
        answer = together.chat.completions.create(model=MODEL, messages=talk)
        assert "Hi." in str(answer.choices[0].message)
        chunks = together.chat.completions.create(model=MODEL, messages=talk, stream=True)
        assert "Hi." in "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
        assert sandbox.ledger().totals.n_realtime == 2

    def test_a_refusal_is_the_sdk_s_own_exception(self, together: Together) -> None:
        talk: Any = [{"role": "user", "content": "fault:429"}]
        with pytest.raises(APIStatusError) as caught:
            together.chat.completions.create(model=MODEL, messages=talk)
        assert caught.value.status_code == 429


class TestAdapter:
    def test_a_line_has_the_body_byte_for_byte_and_neither_method_nor_url(self) -> None:
        raw = (
            b'{"model":"m","tools":[{"function":{"name":"\xc3\xa9"}}],"n":1.50,"stop":["\\n"],"x":{"y":null}}'
        )
        line = providers.load("together").line(custom_id="r1", endpoint=CHAT, body=raw)
        assert line == b'{"custom_id":"r1","body":' + raw + b"}\n"

    @pytest.mark.parametrize(
        ("status", "seen"),
        [
            ("VALIDATING", Running),
            ("IN_PROGRESS", Running),
            ("CANCELING", Running),
            ("SOMETHING_NEW", Running),
            (None, Running),
            ("COMPLETED", Ended),
            ("FAILED", Ended),
            ("EXPIRED", Ended),
            ("CANCELLED", Ended),
        ],
    )
    def test_a_status_is_an_end_only_where_it_is_known_to_be(self, status: str | None, seen: type) -> None:
        assert isinstance(Job(id="j", status=status).batch.look(NOW), seen)

    @pytest.mark.parametrize(
        ("said", "second"),
        [
            ("2026-11-25T00:00:00Z", 1795564800.0),
            ("2026-11-25T00:00:00.5+00:00", 1795564800.5),
            ("2026-11-25T00:00:00", 1795564800.0),
            ("soon", None),
            (7, 7.0),
            (-7, None),
            (None, None),
        ],
    )
    def test_times_are_read_where_they_can_be(self, said: object, second: float | None) -> None:
        assert Job(id="j", created_at=said).batch.created_at == second

    def test_a_job_that_ended_without_files_just_now_is_looked_at_again(self) -> None:
        bare = Job(id="j", status="COMPLETED", completed_at=NOW.isoformat())
        assert isinstance(bare.batch.look(NOW + dt.timedelta(seconds=3)), Running)
        assert isinstance(bare.batch.look(NOW + dt.timedelta(seconds=60)), Ended)

    def test_a_row_is_blamed_by_the_sentence_and_a_missing_file_blames_none(self) -> None:
        words = "Failed to calculate tokens: input format error: Line 2 is not valid JSON"
        failed = Job(id="j", status="FAILED", error=words).batch.look(NOW)
        assert isinstance(failed, Ended)
        [complaint] = failed.ending.complaints
        assert blame.pointer(complaint).line == 2
        unseen = Job(id="j", status="FAILED", error="Failed to download input file file-1: 404").batch.look(
            NOW
        )
        assert isinstance(unseen, Ended)
        [complaint] = unseen.ending.complaints
        assert (complaint.param, complaint.line) == ("file_id", None)

    @pytest.mark.parametrize(
        ("code", "status"),
        [
            ("batch_client_error", 400),
            ("invalid_model", 400),
            ("timeout", 504),
            ("request_timeout_error", 504),
            ("batch_server_error", 500),
            ("something_new", 500),
            ("", 500),
        ],
    )
    def test_the_status_of_a_failed_row_follows_from_its_code_and_the_body_says_so(
        self, code: str, status: int
    ) -> None:
        line = {"id": "br_1", "custom_id": "r1", "error": {"code": code, "message": "the reason"}}
        [answer] = openai_rows(status_of).answers([json.dumps(line).encode()])
        assert (answer.status, answer.origin) == (status, "provider")
        error = json.loads(answer.body)["error"]
        assert (error["message"], error["code"] or "") == ("the reason", code)
        assert error["status_chosen_for_code"] == status
