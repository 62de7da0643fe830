"""The sandbox's Azure OpenAI, driven by both clients of the official SDK, behaves as the real API is known to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from openai import AuthenticationError, AzureOpenAI, BadRequestError, ConflictError, NotFoundError, OpenAI
from openai.types import Batch

from batchling_worker.providers.azure import FACTS
from batchling_worker.sandbox import Limits, Sandbox
from batchling_worker.sandbox.world.faults import HoldFilePending
from tests.form import CHAT_FORM, Ability

from .lines import CHAT, chat, jsonl, parse

# Its adapter is an OpenAIFiles, which is tested with OpenAI and Groq; the tests here cover the differences.
FORM = replace(
    CHAT_FORM,
    model="gpt-4o-mini-batch",
    slow_model="gpt-4o-batch",
    lacks=frozenset({Ability.EXPIRY, Ability.OPENAI_FILES}),
)

MODEL = FORM.model
VERSION = "2024-10-21"
DAY_S = 86_400


@pytest.fixture
def v1(sandbox: Sandbox) -> Iterator[OpenAI]:
    """Return the plain client, which sends the key as a bearer token."""
    base_url = sandbox.base_url("azure") + "/openai/v1"
    with OpenAI(base_url=base_url, api_key="az-one", max_retries=0) as client:
        yield client


@pytest.fixture
def dated(sandbox: Sandbox) -> Iterator[AzureOpenAI]:
    """Return Azure's client, which sends the key bare; files and batches are outside of its deployments."""
    endpoint = sandbox.base_url("azure")
    with AzureOpenAI(azure_endpoint=endpoint, api_key="az-one", api_version=VERSION, max_retries=0) as client:
        yield client


@pytest.fixture(params=["v1", "dated"])
def client(request: pytest.FixtureRequest) -> OpenAI:
    found: OpenAI = request.getfixturevalue(request.param)
    return found


def create(client: OpenAI, content: bytes, **more: Any) -> Batch:
    file = client.files.create(file=("input.jsonl", content), purpose="batch")
    wanted: dict[str, Any] = {"endpoint": CHAT, "completion_window": "24h", **more}
    return client.batches.create(input_file_id=file.id, **wanted)


def finish(sandbox: Sandbox, client: OpenAI, batch: Batch, seconds: float = 10) -> Batch:
    sandbox.clock.advance(seconds)
    return client.batches.retrieve(batch.id)


def results(client: OpenAI, file_id: str | None) -> dict[str, dict[str, Any]]:
    assert file_id
    return parse(client.files.content(file_id).read())


def line(custom_id: str, prompt: str = "Say hello.", **more: Any) -> dict[str, Any]:
    return chat(custom_id, prompt, model=MODEL, **more)


def test_limits_are_the_published_ones() -> None:
    assert (FACTS.max_rows, FACTS.max_bytes, FACTS.windows) == (100_000, 200_000_000, ("24h",))
    assert FACTS.least_look_s == 60.0


class TestBothClients:
    def test_a_batch_runs_to_its_end(self, sandbox: Sandbox, client: OpenAI) -> None:
        batch = create(client, jsonl(line("a", "Hi."), line("b", "fault:400")), metadata={"label": "x"})
        assert batch.id.startswith("batch_")
        assert batch.input_file_id.startswith("file-")
        assert batch.status.lower() == "validating"
        ended = finish(sandbox, client, batch)
        assert ended.status.lower() == "completed"
        assert ended.metadata == {"label": "x"}
        [good] = results(client, ended.output_file_id).values()
        assert good["custom_id"] == "a"
        body = good["response"]["body"]
        assert "Hi." in body["choices"][0]["message"]["content"]
        assert body["choices"][0]["content_filter_results"]["hate"]["filtered"] is False
        assert results(client, ended.error_file_id)["b"]["response"]["status_code"] == 400

    def test_both_clients_see_the_same_objects(
        self, sandbox: Sandbox, v1: OpenAI, dated: AzureOpenAI
    ) -> None:
        batch = create(dated, jsonl(line("a")))
        ended = finish(sandbox, v1, batch)
        assert (ended.id, ended.status) == (batch.id, "completed")
        assert results(v1, ended.output_file_id).keys() == {"a"}
        assert [one.id for one in dated.batches.list(limit=10).data] == [batch.id]

    def test_without_failed_rows_the_error_file_has_no_bytes(self, sandbox: Sandbox, client: OpenAI) -> None:
        ended = finish(sandbox, client, create(client, jsonl(line("a"))))
        assert ended.error_file_id
        assert client.files.content(ended.error_file_id).read() == b""

    def test_a_batch_does_not_expire_after_its_window(self, sandbox: Sandbox, client: OpenAI) -> None:
        sandbox.speeds.set({"*": 5.0 * DAY_S})
        batch = create(client, jsonl(line("a")))
        assert finish(sandbox, client, batch, 2 * DAY_S).status.lower() == "in_progress"
        assert finish(sandbox, client, batch, 4 * DAY_S).status.lower() == "completed"

    def test_a_cancelled_batch_delivers_what_was_done(self, sandbox: Sandbox, client: OpenAI) -> None:
        batch = create(client, jsonl(*(chat(str(n), model="big") for n in range(100))))
        sandbox.clock.advance(1.0)
        assert client.batches.cancel(batch.id).status.lower() == "cancelling"
        ended = finish(sandbox, client, batch, 1.0)
        assert ended.status.lower() == "cancelled"
        done, undone = results(client, ended.output_file_id), results(client, ended.error_file_id)
        assert len(done) + len(undone) == 100
        with pytest.raises(ConflictError):
            client.batches.cancel(batch.id)

    def test_a_file_has_to_be_processed_first(self, sandbox: Sandbox, client: OpenAI) -> None:
        sandbox.faults.add(HoldFilePending(seconds=60))
        file = client.files.create(file=("input.jsonl", jsonl(line("a"))), purpose="batch")
        assert status_of(client, file.id) == "pending"
        wanted: dict[str, Any] = {"endpoint": CHAT, "completion_window": "24h"}
        with pytest.raises(BadRequestError):
            client.batches.create(input_file_id=file.id, **wanted)
        assert sandbox.ledger().totals.n_batches == 0
        sandbox.clock.advance(61)
        assert status_of(client, file.id) == "processed"
        assert client.batches.create(input_file_id=file.id, **wanted).id

    def test_too_many_enqueued_tokens_are_refused_at_once_with_400(
        self, sandbox: Sandbox, client: OpenAI
    ) -> None:
        sandbox.limits = Limits(max_enqueued_tokens=1, quota_at_create=True)
        with pytest.raises(BadRequestError) as caught:
            create(client, jsonl(line("a")))
        assert caught.value.code == "token_limit_exceeded"

    @pytest.mark.parametrize("seconds", [3600, 14 * DAY_S - 1, 30 * DAY_S + 1])
    def test_files_are_kept_for_14_to_30_days(self, client: OpenAI, seconds: int) -> None:
        content = ("input.jsonl", jsonl(line("a")))
        with pytest.raises(BadRequestError):
            client.files.create(
                file=content, purpose="batch", expires_after={"anchor": "created_at", "seconds": seconds}
            )
        kept: Any = {"anchor": "created_at", "seconds": 14 * DAY_S}
        file = client.files.create(file=content, purpose="batch", expires_after=kept)
        assert file.expires_at == file.created_at + 14 * DAY_S

    @pytest.mark.parametrize(
        ("bad", "code"),
        [
            ("{no", "invalid_json_line"),
            ("\ufeff" + jsonl(line("b")).decode().strip(), "invalid_json_line"),
            (chat("b", model="another"), "model_mismatch"),
            ({**line("b"), "url": "/v1/embeddings"}, "url_mismatch"),
            (line("a"), "duplicate_custom_id"),
        ],
    )
    def test_a_bad_line_fails_the_batch_under_codes_of_its_own(
        self, sandbox: Sandbox, client: OpenAI, bad: dict[str, Any] | str, code: str
    ) -> None:
        ended = finish(sandbox, client, create(client, jsonl(line("a"), bad)))
        assert ended.status.lower() == "failed"
        assert ended.errors is not None
        assert [(one.code, one.line) for one in ended.errors.data or []] == [(code, 2)]

    def test_a_file_without_a_line_fails_the_batch(self, sandbox: Sandbox, client: OpenAI) -> None:
        ended = finish(sandbox, client, create(client, b""))
        assert ended.errors is not None
        assert [one.code for one in ended.errors.data or []] == ["empty_file"]

    def test_too_many_rows_fail_the_batch(self, sandbox: Sandbox, client: OpenAI) -> None:
        sandbox.limits = Limits(max_rows=1)
        ended = finish(sandbox, client, create(client, jsonl(line("a"), line("b"))))
        assert ended.errors is not None
        assert [one.code for one in ended.errors.data or []] == ["too_many_tasks"]

    @pytest.mark.parametrize("window", ["1h", "7d", ""])
    def test_no_other_window_is_taken(self, client: OpenAI, window: str) -> None:
        with pytest.raises(BadRequestError):
            create(client, jsonl(line("a")), completion_window=window)

    def test_an_unknown_file_is_refused_at_once(self, client: OpenAI) -> None:
        with pytest.raises(BadRequestError, match="not found"):
            client.batches.create(input_file_id="file-none", endpoint=CHAT, completion_window="24h")


class TestWords:
    def test_the_dated_path_shows_capitals_iso_times_and_blanks(
        self, sandbox: Sandbox, dated: AzureOpenAI
    ) -> None:
        shown = raw(dated, create(dated, jsonl(line("a"))).id)
        assert shown["status"] == "Validating"
        assert shown["created_at"].endswith("+00:00")
        assert (shown["request_counts"], shown["endpoint"]) == (None, None)
        assert (shown["output_file_id"], shown["error_file_id"]) == ("", "")

    def test_the_v1_path_words_them_as_openai_does(self, sandbox: Sandbox, v1: OpenAI) -> None:
        shown = raw(v1, create(v1, jsonl(line("a"))).id)
        assert shown["status"] == "validating"
        assert shown["expires_at"] == shown["created_at"] + DAY_S
        assert shown["request_counts"] == {"total": 0, "completed": 0, "failed": 0}


class TestCredentials:
    def test_the_key_counts_in_either_header(self, sandbox: Sandbox, v1: OpenAI) -> None:
        batch = create(v1, jsonl(line("a")))
        bare = {"api-key": "az-one", "Authorization": ""}
        assert v1.batches.retrieve(batch.id, extra_headers=bare).id == batch.id
        with pytest.raises(NotFoundError):
            v1.batches.retrieve(batch.id, extra_headers={"api-key": "az-two"})

    def test_a_wrong_key_is_refused(self, sandbox: Sandbox) -> None:
        endpoint = sandbox.base_url("azure")
        with (
            AzureOpenAI(
                azure_endpoint=endpoint, api_key="invalid-one", api_version=VERSION, max_retries=0
            ) as client,
            pytest.raises(AuthenticationError),
        ):
            client.batches.list()

    def test_a_call_without_a_version_is_not_found_on_the_dated_path(self, dated: AzureOpenAI) -> None:
        with pytest.raises(NotFoundError):
            dated.get("/batches", cast_to=object, options={"params": {"api-version": None}})


class TestRealtime:
    def test_deployments_answer_at_full_price(self, sandbox: Sandbox, dated: AzureOpenAI, v1: OpenAI) -> None:
        asked: Any = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hi."}]}
        for client in (dated, v1):
            answer = client.chat.completions.create(**asked)
            assert "Hi." in (answer.choices[0].message.content or "")
        assert "Hi." in dated.responses.create(model="gpt-4o", input="Hi.").output_text
        assert [one.endpoint for one in sandbox.ledger().realtime] == [CHAT, CHAT, "/v1/responses"]


def raw(client: OpenAI, batch_id: str) -> dict[str, Any]:
    shown: dict[str, Any] = client.get(f"/batches/{batch_id}", cast_to=dict[str, Any])
    return shown


def status_of(client: OpenAI, file_id: str) -> str:
    """Return a file's status; Azure has more statuses than OpenAI."""
    return str(client.files.retrieve(file_id).status)
