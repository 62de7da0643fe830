"""The sandbox's Mistral, driven by the official SDK, behaves as the real API is known to; the adapter reads it."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import httpx
import pytest
from mistralai.client import Mistral
from mistralai.client.errors import SDKError
from mistralai.client.models import BatchJob, BatchRequest, File

from batchling_client.wire.routes import Routes
from batchling_worker import providers
from batchling_worker.dialects.openai.batch_object import LABEL_NAME, BatchObject
from batchling_worker.dialects.openai.rows import openai_rows
from batchling_worker.provider import Ended, Running
from batchling_worker.providers.mistral import FACTS, Job
from batchling_worker.sandbox import Limits, Sandbox
from batchling_worker.sandbox.world.faults import ExpireBatch, FailBatch
from tests.form import CHAT_FORM, Ability

from .lines import CHAT, jsonl, parse

MODEL = "mistral-small-latest"

FORM = replace(
    CHAT_FORM,
    model=MODEL,
    slow_model="mistral-large-latest",
    # Its adapter is an OpenAIFiles with its own statuses; rows that never ran are in no file.
    lacks=frozenset({Ability.OPENAI_FILES, Ability.UNDONE_ROWS}),
)
NOW = dt.datetime(2026, 11, 25, tzinfo=dt.UTC)


@pytest.fixture
def mistral(sandbox: Sandbox) -> Iterator[Mistral]:
    with client(sandbox, "mk-one") as opened:
        yield opened


def client(sandbox: Sandbox, key: str) -> Mistral:
    return Mistral(api_key=key, server_url=sandbox.base_url("mistral"))


def row(custom_id: str | None, prompt: str = "Say hello.", **more: Any) -> dict[str, Any]:
    body = {"messages": [{"role": "user", "content": prompt}], **more}
    return {"body": body} if custom_id is None else {"custom_id": custom_id, "body": body}


def upload(mistral: Mistral, content: bytes, name: str = "in.jsonl") -> str:
    return mistral.files.upload(file={"file_name": name, "content": content}, purpose="batch").id


def create(mistral: Mistral, content: bytes, **more: Any) -> BatchJob:
    wanted: dict[str, Any] = {"endpoint": CHAT, "model": MODEL, **more}
    return mistral.batch.jobs.create(input_files=[upload(mistral, content)], **wanted)


def finish(sandbox: Sandbox, mistral: Mistral, job_id: str, seconds: float = 60) -> BatchJob:
    sandbox.clock.advance(seconds)
    return mistral.batch.jobs.get(job_id=job_id)


def results(mistral: Mistral, file_id: Any) -> dict[str, dict[str, Any]]:
    assert isinstance(file_id, str)
    return parse(mistral.files.download(file_id=file_id).read())


class TestJobs:
    def test_a_job_goes_through_its_states_in_time(self, sandbox: Sandbox, mistral: Mistral) -> None:
        job = create(mistral, jsonl(row("a"), row("b")), metadata={"label": "x"}, timeout_hours=2)
        assert (job.status, job.total_requests, job.model) == ("QUEUED", 0, MODEL)
        assert job.metadata == {"label": "x"}
        assert finish(sandbox, mistral, job.id, 0.3).status == "RUNNING"
        ended = finish(sandbox, mistral, job.id)
        assert ended.status == "SUCCESS"
        assert (ended.total_requests, ended.completed_requests, ended.succeeded_requests) == (2, 2, 2)
        assert ended.completed_at
        rows = results(mistral, ended.output_file)
        assert rows.keys() == {"a", "b"}
        assert rows["a"]["response"]["body"]["model"] == MODEL
        assert ended.error_file is None

    def test_failed_rows_have_a_file_of_their_own_and_a_body_in_a_string(
        self, sandbox: Sandbox, mistral: Mistral
    ) -> None:
        job = create(mistral, jsonl(row("good"), row("bad", "fault:400")))
        ended = finish(sandbox, mistral, job.id)
        assert (ended.status, ended.failed_requests) == ("SUCCESS", 1)
        assert results(mistral, ended.output_file).keys() == {"good"}
        bad = results(mistral, ended.error_file)["bad"]
        assert bad["response"]["status_code"] == 400
        assert bad["error"] is None
        assert json.loads(bad["response"]["body"])["raw_status_code"] == 400

    def test_requests_may_stand_in_the_create_call(self, sandbox: Sandbox, mistral: Mistral) -> None:
        requests = [BatchRequest(custom_id="a", body=row("a")["body"]), BatchRequest(body=row("b")["body"])]
        job = mistral.batch.jobs.create(requests=requests, endpoint=CHAT, model=MODEL)
        assert results(mistral, finish(sandbox, mistral, job.id).output_file).keys() == {"a", "1"}

    def test_several_files_become_one_job(self, sandbox: Sandbox, mistral: Mistral) -> None:
        files = [upload(mistral, jsonl(row(name))) for name in ("a", "b")]
        job = mistral.batch.jobs.create(input_files=files, endpoint=CHAT, model=MODEL)
        assert results(mistral, finish(sandbox, mistral, job.id).output_file).keys() == {"a", "b"}

    @pytest.mark.parametrize(
        "wrong",
        [
            {"timeout_hours": 0},
            {"timeout_hours": 169},
            {"model": None},
            {"metadata": {"k" * 33: "v"}},
            {"metadata": {"k": "v" * 513}},
        ],
    )
    def test_what_the_schema_does_not_take_is_refused_as_fastapi_does(
        self, sandbox: Sandbox, mistral: Mistral, wrong: dict[str, Any]
    ) -> None:
        with pytest.raises(SDKError) as caught:
            create(mistral, jsonl(row("a")), **wrong)
        assert caught.value.status_code == 422
        [flaw] = json.loads(caught.value.body)["detail"]
        assert flaw.keys() == {"type", "loc", "msg"}
        assert sandbox.ledger().totals.n_batches == 0

    def test_unknown_files_models_and_endpoints_are_refused_at_once(self, mistral: Mistral) -> None:
        with pytest.raises(SDKError) as caught:
            mistral.batch.jobs.create(input_files=["nothing"], endpoint=CHAT, model=MODEL)
        assert caught.value.status_code == 404
        with pytest.raises(SDKError) as caught:
            create(mistral, jsonl(row("a")), model="unknown-x")
        assert caught.value.status_code == 422
        with pytest.raises(SDKError) as caught, pytest.warns(UserWarning, match="endpoint"):
            create(mistral, jsonl(row("a")), endpoint="/v1/responses")
        assert caught.value.status_code == 422

    def test_a_running_job_is_cancelled_in_two_steps(self, sandbox: Sandbox, mistral: Mistral) -> None:
        job = create(mistral, jsonl(*(row(str(n)) for n in range(100))), model="mistral-large-latest")
        sandbox.clock.advance(1.0)
        assert mistral.batch.jobs.cancel(job_id=job.id).status == "CANCELLATION_REQUESTED"
        ended = finish(sandbox, mistral, job.id, 1.0)
        assert ended.status == "CANCELLED"
        assert ended.completed_requests == len(results(mistral, ended.output_file)) < 100

    def test_a_job_that_takes_too_long_ends_with_what_it_has(
        self, sandbox: Sandbox, mistral: Mistral
    ) -> None:
        sandbox.faults.add(ExpireBatch(done=0.5))
        ended = finish(sandbox, mistral, create(mistral, jsonl(row("a"), row("b"))).id)
        assert ended.status == "TIMEOUT_EXCEEDED"
        assert len(results(mistral, ended.output_file)) == 1

    def test_a_job_that_fails_says_why(self, sandbox: Sandbox, mistral: Mistral) -> None:
        sandbox.faults.add(FailBatch(message="the reason"))
        ended = finish(sandbox, mistral, create(mistral, jsonl(row("a"))).id)
        assert ended.status == "FAILED"
        assert [(error.message, error.count) for error in ended.errors] == [("the reason", 1)]

    def test_outputs_stand_in_the_job_where_a_look_asks_for_them(
        self, sandbox: Sandbox, mistral: Mistral
    ) -> None:
        job = create(mistral, jsonl(row("good"), row("bad", "fault:400")))
        assert mistral.batch.jobs.get(job_id=job.id, inline=True).outputs is None
        assert finish(sandbox, mistral, job.id).outputs is None
        outputs = mistral.batch.jobs.get(job_id=job.id, inline=True).outputs
        told = {one["custom_id"]: one["response"]["status_code"] for one in outputs or ()}
        assert told == {"good": 200, "bad": 400}

    def test_a_job_that_has_ended_can_be_deleted(self, sandbox: Sandbox, mistral: Mistral) -> None:
        job = create(mistral, jsonl(row("a")))
        with pytest.raises(SDKError):
            mistral.batch.jobs.delete(job_id=job.id)
        finish(sandbox, mistral, job.id)
        assert mistral.batch.jobs.delete(job_id=job.id).deleted
        with pytest.raises(SDKError) as caught:
            mistral.batch.jobs.get(job_id=job.id)
        assert caught.value.status_code == 404


class TestList:
    def test_jobs_are_listed_by_page_number_newest_first(self, sandbox: Sandbox, mistral: Mistral) -> None:
        ids = [create(mistral, jsonl(row("a"))).id for _ in range(5)][::-1]
        pages = [mistral.batch.jobs.list(page=number, page_size=2) for number in range(4)]
        assert [[job.id for job in page.data or []] for page in pages] == [ids[:2], ids[2:4], ids[4:], []]
        assert {page.total for page in pages} == {5}

    def test_jobs_are_found_by_time_status_and_metadata(self, sandbox: Sandbox, mistral: Mistral) -> None:
        create(mistral, jsonl(row("a")))
        sandbox.clock.advance(3600)
        after = dt.datetime.fromtimestamp(sandbox.clock.now() - 60, dt.UTC)
        late = create(mistral, jsonl(row("a")), metadata={"label": "x"})
        for found in (
            mistral.batch.jobs.list(created_after=after),
            mistral.batch.jobs.list(status=["QUEUED"]),
            mistral.batch.jobs.list(metadata={"label": "x"}),
        ):
            assert [job.id for job in found.data or []] == [late.id]


class TestFiles:
    @pytest.mark.parametrize(
        "bad",
        [
            "{no json",
            row("b", temperature=1.6),
            row("b", max_tokens=-1),
            row("b", stream=True),
            {"custom_id": "b", "body": {"messages": [{"role": "robot", "content": "x"}]}},
            {"custom_id": "b"},
        ],
    )
    def test_an_upload_is_refused_for_a_bad_line_that_it_names(
        self, sandbox: Sandbox, mistral: Mistral, bad: dict[str, Any] | str
    ) -> None:
        with pytest.raises(SDKError) as caught:
            upload(mistral, jsonl(row("a"), bad, row("c")))
        assert caught.value.status_code == 422
        assert "line 2" in caught.value.body
        assert not mistral.files.list().data

    def test_a_file_can_be_listed_read_and_deleted(self, mistral: Mistral) -> None:
        content = jsonl(row("a"), row(None))
        file_id = upload(mistral, content, "named.jsonl")
        assert [file.filename for file in mistral.files.list(search="named").data] == ["named.jsonl"]
        assert not mistral.files.list(search="other").data
        shown = mistral.files.retrieve(file_id=file_id)
        assert (shown.size_bytes, shown.sample_type, shown.purpose) == (
            len(content),
            "batch_request",
            "batch",
        )
        assert mistral.files.download(file_id=file_id).read() == content
        assert mistral.files.delete(file_id=file_id).deleted
        with pytest.raises(SDKError):
            mistral.files.retrieve(file_id=file_id)

    def test_a_signed_url_reads_a_file_without_a_key_for_its_hours(
        self, sandbox: Sandbox, mistral: Mistral
    ) -> None:
        file_id = upload(mistral, jsonl(row("a")))
        url = mistral.files.get_signed_url(file_id=file_id, expiry=2).url
        assert httpx.get(url).content == jsonl(row("a"))
        sandbox.clock.advance(2 * 3600)
        assert httpx.get(url).status_code == 403
        with pytest.raises(SDKError):
            mistral.files.get_signed_url(file_id=file_id, expiry=169)

    def test_the_lines_of_a_file_are_counted(self, mistral: Mistral) -> None:
        file_id = upload(mistral, jsonl(row("a"), row("b")))
        assert mistral.files.retrieve(file_id=file_id).num_lines == 2

    def test_an_upload_is_kept_for_so_many_hours(self, mistral: Mistral) -> None:
        file = File(file_name="a.jsonl", content=jsonl(row("a")))
        kept = mistral.files.upload(file=file, purpose="batch", expiry=48)
        assert kept.expires_at == kept.created_at + 48 * 3600
        with pytest.raises(SDKError) as caught:
            mistral.files.upload(file=file, purpose="batch", expiry=721)
        assert caught.value.status_code == 422

    def test_too_large_a_file_is_refused(self, sandbox: Sandbox, mistral: Mistral) -> None:
        sandbox.limits = Limits(max_bytes=100)
        with pytest.raises(SDKError):
            upload(mistral, jsonl(row("a", "x" * 100)))


class TestCredentials:
    def test_an_invalid_key_is_refused_with_a_detail(self, sandbox: Sandbox) -> None:
        with client(sandbox, "invalid-secret") as stranger, pytest.raises(SDKError) as caught:
            stranger.batch.jobs.list()
        assert caught.value.status_code == 401
        assert json.loads(caught.value.body).keys() == {"detail"}
        assert "invalid-secret" not in caught.value.body

    def test_jobs_of_another_workspace_do_not_exist(self, sandbox: Sandbox, mistral: Mistral) -> None:
        job = create(mistral, jsonl(row("a")))
        with client(sandbox, "mk-two") as other:
            assert not other.batch.jobs.list().data
            with pytest.raises(SDKError):
                other.batch.jobs.get(job_id=job.id)


TALK: Any = [{"role": "user", "content": "Hi."}]
CALLS: dict[str, Callable[[Mistral], Any]] = {
    "/v1/chat/completions": lambda m: m.chat.complete(model=MODEL, messages=TALK),
    "/v1/embeddings": lambda m: m.embeddings.create(model="mistral-embed", inputs=["a", "b"]),
    "/v1/fim/completions": lambda m: m.fim.complete(model="codestral-latest", prompt="def f(", suffix=")"),
    "/v1/moderations": lambda m: m.classifiers.moderate(model="mistral-moderation", inputs=["a", "b"]),
    "/v1/chat/moderations": lambda m: m.classifiers.moderate_chat(model="mistral-moderation", inputs=[TALK]),
    "/v1/ocr": lambda m: m.ocr.process(
        model="mistral-ocr", document={"type": "document_url", "document_url": "https://example.com/a.pdf"}
    ),
    "/v1/classifications": lambda m: m.classifiers.classify(model="my-classifier", inputs=["a"]),
    "/v1/chat/classifications": lambda m: m.classifiers.classify_chat(
        model="my-classifier", input={"messages": TALK}
    ),
    "/v1/conversations": lambda m: m.beta.conversations.start(model=MODEL, inputs="Hi."),
    "/v1/audio/transcriptions": lambda m: m.audio.transcriptions.complete(
        model="voxtral-mini", file_url="https://example.com/a.mp3"
    ),
}


class TestEndpoints:
    def test_all_ten_are_batchable(self) -> None:
        route = Routes().named("mistral")
        assert route is not None
        assert set(route.endpoints) == set(CALLS)
        assert all(place == path for path, place in route.endpoints.items())

    @pytest.mark.parametrize("endpoint", CALLS)
    def test_the_sdk_reads_the_answer_of_a_call(
        self, sandbox: Sandbox, mistral: Mistral, endpoint: str
    ) -> None:
        assert CALLS[endpoint](mistral) is not None
        assert [call.endpoint for call in sandbox.ledger().realtime] == [endpoint]

    def test_a_streamed_call_is_answered_in_pieces(self, mistral: Mistral) -> None:
        with mistral.chat.stream(model=MODEL, messages=TALK) as events:
            text = "".join(str(event.data.choices[0].delta.content or "") for event in events)
        assert "Hi." in text


class TestAdapter:
    def test_a_line_has_the_body_byte_for_byte_and_neither_method_nor_url(self) -> None:
        raw = (
            b'{"model":"m","tools":[{"function":{"name":"\xc3\xa9"}}],"n":1.50,"stop":["\\n"],"x":{"y":null}}'
        )
        line = providers.load("mistral").line(custom_id="r1", endpoint=CHAT, body=raw)
        assert line == b'{"custom_id":"r1","body":' + raw + b"}\n"

    def test_every_hour_up_to_a_week_is_a_window(self) -> None:
        assert FACTS.windows[0] == "1h"
        assert FACTS.windows[-1] == "168h"
        assert len(FACTS.windows) == 168

    @pytest.mark.parametrize(
        ("status", "seen"),
        [
            ("QUEUED", Running),
            ("RUNNING", Running),
            ("CANCELLATION_REQUESTED", Running),
            ("SOMETHING_NEW", Running),
            ("SUCCESS", Ended),
            ("FAILED", Ended),
            ("TIMEOUT_EXCEEDED", Ended),
            ("CANCELLED", Ended),
            (None, Running),
        ],
    )
    def test_a_status_is_an_end_only_where_it_is_known_to_be(self, status: str | None, seen: type) -> None:
        assert isinstance(Job(id="j", status=status).batch.look(NOW), seen)

    def test_an_unreadable_job_has_not_ended(self) -> None:
        odd = Job(id=7, status=[], input_files={}, metadata=[], total_requests="x", errors=3)
        assert isinstance(odd.batch.look(NOW), Running)
        assert odd.batch.named.shows("l", ["f"]) is None

    def test_a_job_is_known_by_its_label_or_its_file(self) -> None:
        labelled: BatchObject = Job(id="j", metadata={LABEL_NAME: "l"}, input_files=["other"]).batch
        assert labelled.named.shows("l", []) is True
        assert labelled.named.shows("another", []) is False
        assert Job(id="j", input_files=["f"]).batch.named.shows("l", ["f"]) is True

    @pytest.mark.parametrize(
        ("body", "read"),
        [
            (
                json.dumps('{"object":"error","message":"é \\"x\\""}'),
                '{"object":"error","message":"é \\"x\\""}',
            ),
            ('{"message":"bare"}', '{"message":"bare"}'),
            ('"just words"', '"just words"'),
            ('"[1]"', '"[1]"'),
            ('"{broken"', '"{broken"'),
        ],
    )
    def test_the_body_of_a_failed_row_is_read_in_both_shapes(self, body: str, read: str) -> None:
        line = f'{{"id":"b","custom_id":"r1","response":{{"status_code":422,"body":{body}}},"error":null}}'
        [answer] = openai_rows().answers([line.encode()])
        assert (answer.status, answer.body.decode()) == (422, read)

    def test_the_body_of_a_success_is_read_in_both_shapes_too(self) -> None:
        line = b'{"custom_id":"r1","response":{"status_code":200,"body":"{\\"text\\":1}"},"error":null}'
        [answer] = openai_rows().answers([line])
        assert answer.body == b'{"text":1}'
