"""The sandbox's Anthropic, driven by the official SDK, behaves as the real API is known to."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from anthropic import (
    Anthropic,
    AnthropicError,
    APIStatusError,
    AuthenticationError,
    BadRequestError,
    NotFoundError,
    RequestTooLargeError,
)
from anthropic.types.messages import MessageBatch, MessageBatchResult

from batchling_client.wire.routes import Routes
from batchling_worker.providers.anthropic import FACTS, PROVIDER, STATUSES
from batchling_worker.sandbox import Limits, Sandbox
from batchling_worker.sandbox.providers.anthropic import AnthropicDialect
from batchling_worker.sandbox.world.faults import ExpireBatch, HideBatch, HideOutput, LateFileIds, LieInCounts
from tests.form import Ability, Form

MODEL = "claude-haiku-4-5"
BATCHES = "/v1/messages/batches"


def message_body(prompt: str, model: str) -> bytes:
    messages = [{"role": "user", "content": prompt}]
    return json.dumps({"model": model, "max_tokens": 64, "messages": messages}).encode()


def message_text(answer: Any) -> str:
    text: str = answer["content"][0]["text"]
    return text


FORM = Form(
    endpoint="/v1/messages",
    model=MODEL,
    slow_model="claude-sonnet-5",
    body=message_body,
    text=message_text,
    lacks=frozenset(
        {
            Ability.OPENAI_FILES,
            Ability.LABEL,
            Ability.UPLOAD,
            Ability.INPUT_FILE,
            Ability.RESULT_FILES,
            # A failed row has the type of its error, and not every status has a type.
            Ability.ROW_STATUSES,
            Ability.WHOLE_FAILURE,
        }
    ),
)


@pytest.fixture
def client(sandbox: Sandbox) -> Iterator[Anthropic]:
    with Anthropic(base_url=sandbox.base_url("anthropic"), api_key="sk-ant-one", max_retries=0) as client:
        yield client


def row(custom_id: str, prompt: str = "Say hello.", **params: Any) -> Any:
    body = {"model": MODEL, "max_tokens": 64, "messages": [{"role": "user", "content": prompt}], **params}
    return {"custom_id": custom_id, "params": body}


def create(client: Anthropic, *rows: Any) -> MessageBatch:
    return client.messages.batches.create(requests=rows)


def finish(sandbox: Sandbox, client: Anthropic, batch: MessageBatch, seconds: float = 10) -> MessageBatch:
    sandbox.clock.advance(seconds)
    return client.messages.batches.retrieve(batch.id)


def results(client: Anthropic, batch: MessageBatch) -> dict[str, MessageBatchResult]:
    return {line.custom_id: line.result for line in client.messages.batches.results(batch.id)}


def refusal(caught: pytest.ExceptionInfo[Any]) -> dict[str, Any]:
    assert isinstance(caught.value, APIStatusError)
    body = caught.value.body
    assert isinstance(body, dict)
    assert body["type"] == "error"
    assert body["request_id"].startswith("req_")
    error: dict[str, Any] = body["error"]
    return error


class TestFacts:
    def test_the_sandbox_enforces_the_numbers_of_the_adapter(self) -> None:
        traits = AnthropicDialect().traits
        assert (
            (traits.max_rows, traits.max_bytes) == (FACTS.max_rows, FACTS.max_bytes) == (100_000, 256_000_000)
        )

    def test_every_type_of_error_has_the_status_that_the_sandbox_answers_it_with(self) -> None:
        dialect = AnthropicDialect()
        for kind, status in STATUSES.items():
            assert dialect.error_body(status, None, "", None)["error"]["type"] == kind

    def test_a_lane_names_all_that_the_sdk_sends_for_a_whole_batch(self, sandbox: Sandbox) -> None:
        route = Routes().named("anthropic")
        assert route is not None
        with Anthropic(base_url=sandbox.base_url("anthropic"), api_key="sk-ant-one") as client:
            sent = {name.lower() for name in client.default_headers if name.lower().startswith("anthropic-")}
        assert sent <= set(route.batch_headers)


class TestStates:
    def test_rows_count_as_processing_until_all_has_ended(self, sandbox: Sandbox, client: Anthropic) -> None:
        batch = create(client, row("a"), row("b", "fault:400"), row("c"))
        assert batch.id.startswith("msgbatch_")
        assert (batch.type, batch.processing_status, batch.results_url) == (
            "message_batch",
            "in_progress",
            None,
        )
        assert (batch.expires_at - batch.created_at).total_seconds() == 86_400
        for _ in range(3):
            batch = finish(sandbox, client, batch, 0.15)
            assert batch.processing_status == "in_progress"
            assert (batch.request_counts.processing, batch.request_counts.succeeded) == (3, 0)
        ended = finish(sandbox, client, batch)
        assert ended.processing_status == "ended"
        assert ended.ended_at is not None
        counts = ended.request_counts
        assert (counts.processing, counts.succeeded, counts.errored) == (0, 2, 1)

    def test_counts_may_be_wrong(self, sandbox: Sandbox, client: Anthropic) -> None:
        sandbox.faults.add(LieInCounts(counts={"succeeded": 7}))
        ended = finish(sandbox, client, create(client, row("a")))
        assert (ended.request_counts.processing, ended.request_counts.succeeded) == (0, 7)

    def test_a_batch_may_be_404_just_after_its_create(self, sandbox: Sandbox, client: Anthropic) -> None:
        sandbox.faults.add(HideBatch(seconds=1.0))
        batch = create(client, row("a"))
        with pytest.raises(NotFoundError):
            client.messages.batches.retrieve(batch.id)
        assert finish(sandbox, client, batch).processing_status == "ended"


class TestCreate:
    @pytest.mark.parametrize(
        "requests",
        [
            [],
            [row("")],
            [row("a b")],
            [row("x" * 65)],
            [row("\u00e4")],
            [row("a"), row("b"), row("a")],
            [{"params": row("a")["params"]}],
            [{"custom_id": "a"}],
            [{"custom_id": "a", "params": "hello"}],
            [row("a"), 0],
            [0],
        ],
    )
    def test_a_bad_frame_is_refused_at_once(
        self, sandbox: Sandbox, client: Anthropic, requests: list[Any]
    ) -> None:
        with pytest.raises(BadRequestError) as caught:
            client.messages.batches.create(requests=requests)
        assert refusal(caught)["type"] == "invalid_request_error"
        assert sandbox.ledger().totals.n_batches == 0

    @pytest.mark.parametrize("body", [{}, {"requests": None}, {"requests": [row("a")], "name": "x"}, []])
    def test_anything_but_a_list_of_requests_is_refused(self, client: Anthropic, body: Any) -> None:
        with pytest.raises(BadRequestError):
            client.post(BATCHES, body=body, cast_to=object)

    def test_errors_of_a_row_are_in_its_result(self, sandbox: Sandbox, client: Anthropic) -> None:
        bad = {
            "model": row("model", model="unknown-1"),
            "nomodel": row("nomodel", model=None),
            "tokens": row("tokens", max_tokens=0),
            "speed": row("speed", speed="fast"),
            "stream": row("stream", stream=True),
            "messages": row("messages", messages=[]),
            "shape": row("shape", messages="hello"),
        }
        batch = create(client, row("good"), *bad.values())
        found = results(client, finish(sandbox, client, batch))
        assert found.keys() == {"good", *bad}
        assert found.pop("good").type == "succeeded"
        types = {name: result.error.error.type for name, result in found.items() if result.type == "errored"}
        assert types == {**dict.fromkeys(bad, "invalid_request_error"), "model": "not_found_error"}

    def test_more_rows_or_bytes_than_fit_are_refused(self, sandbox: Sandbox, client: Anthropic) -> None:
        for limits in (Limits(max_rows=2), Limits(max_bytes=300)):
            sandbox.limits = limits
            with pytest.raises(RequestTooLargeError):
                create(client, row("a"), row("b"), row("c"))
        assert sandbox.ledger().totals.n_batches == 0

    def test_rows_may_mix_models_and_are_taken_as_they_are(self, sandbox: Sandbox, client: Anthropic) -> None:
        tool = {
            "name": "weather",
            "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}},
        }
        batch = create(
            client,
            row("fast", 'Quote \\ " \n {[ ]} me.'),
            row("slow", model="claude-opus-5", system="Be brief."),
            row("tool", tools=[tool], tool_choice={"type": "tool", "name": "weather"}),
        )
        found = results(client, finish(sandbox, client, batch))
        messages = {name: result.message for name, result in found.items() if result.type == "succeeded"}
        assert "Quote" in message_text(messages["fast"].model_dump())
        assert messages["slow"].model == "claude-opus-5"
        assert messages["slow"].usage.service_tier == "batch"
        [block] = messages["tool"].content
        assert (block.type, messages["tool"].stop_reason) == ("tool_use", "tool_use")

    def test_the_beta_resource_makes_the_same_batches(self, sandbox: Sandbox, client: Anthropic) -> None:
        batch = client.beta.messages.batches.create(
            requests=[row("a")], betas=["output-300k-2026-03-24"], extra_query={"beta": "true"}
        )
        sandbox.clock.advance(10)
        lines = [line.custom_id for line in client.beta.messages.batches.results(batch.id)]
        assert lines == ["a"]

    def test_sampling_parameters_are_refused_since_a_version(
        self, sandbox: Sandbox, client: Anthropic
    ) -> None:
        rows = [row("good"), row("warm", temperature=0.5), row("top", top_p=0.9, top_k=3)]
        told = results(client, finish(sandbox, client, create(client, *rows)))
        assert {one: result.type for one, result in told.items()} == {
            "good": "succeeded",
            "warm": "errored",
            "top": "errored",
        }
        old = client.with_options(default_headers={"anthropic-version": "2023-06-01"})
        assert results(old, finish(sandbox, old, create(old, *rows)))["warm"].type == "succeeded"

    def test_every_answer_has_a_request_id_that_the_sdk_reads(
        self, sandbox: Sandbox, client: Anthropic
    ) -> None:
        batch = create(client, row("a"))
        assert str(batch._request_id).startswith("req_")
        with pytest.raises(APIStatusError) as caught:
            client.messages.batches.retrieve("msgbatch_none")
        assert str(caught.value.request_id).startswith("req_")

    def test_a_call_without_a_version_is_refused(self, client: Anthropic) -> None:
        with pytest.raises(BadRequestError, match="anthropic-version"):
            client.get(BATCHES, cast_to=object, options={"headers": {"anthropic-version": ""}})


class TestResults:
    def test_results_are_on_the_sandboxs_host_once_the_batch_has_ended(
        self, sandbox: Sandbox, client: Anthropic
    ) -> None:
        batch = create(client, row("a"), row("b"))
        with pytest.raises(AnthropicError, match="results_url"):
            client.messages.batches.results(batch.id)
        with pytest.raises(NotFoundError) as caught:
            client.get(f"{BATCHES}/{batch.id}/results", cast_to=object)
        assert refusal(caught)["type"] == "not_found_error"
        ended = finish(sandbox, client, batch)
        assert ended.results_url == f"{sandbox.base_url('anthropic')}{BATCHES}/{batch.id}/results"
        assert results(client, batch).keys() == {"a", "b"}
        assert results(client, batch).keys() == {"a", "b"}

    @pytest.mark.parametrize("fault", [HideOutput(seconds=5.0), LateFileIds(seconds=5.0)])
    def test_results_may_come_late(
        self, sandbox: Sandbox, client: Anthropic, fault: HideOutput | LateFileIds
    ) -> None:
        sandbox.faults.add(fault)
        batch = finish(sandbox, client, create(client, row("a")), 3.0)
        assert (batch.processing_status, batch.results_url) == ("ended", None)
        with pytest.raises(NotFoundError):
            client.get(f"{BATCHES}/{batch.id}/results", cast_to=object)
        assert results(client, finish(sandbox, client, batch)).keys() == {"a"}

    def test_an_error_is_nested_twice(self, sandbox: Sandbox, client: Anthropic) -> None:
        batch = finish(sandbox, client, create(client, row("a", "fault:529"), row("b", "fault:418")))
        found = results(client, batch)
        types = {name: result.error.error.type for name, result in found.items() if result.type == "errored"}
        assert types == {"a": "overloaded_error", "b": "invalid_request_error"}

    def test_rows_that_did_not_run_have_only_their_reason(self, sandbox: Sandbox, client: Anthropic) -> None:
        sandbox.faults.add(ExpireBatch(done=0.5))
        batch = finish(sandbox, client, create(client, *(row(f"r{n}") for n in range(4))))
        assert batch.processing_status == "ended"
        assert (batch.request_counts.succeeded, batch.request_counts.expired) == (2, 2)
        found = results(client, batch)
        expired = [result for result in found.values() if result.type == "expired"]
        assert [result.to_dict() for result in expired] == [{"type": "expired"}] * 2


class TestCancelAndDelete:
    def test_a_cancelled_batch_ends_mixed(self, sandbox: Sandbox, client: Anthropic) -> None:
        batch = create(client, *(row(f"r{n}", model="big") for n in range(40)))
        sandbox.clock.advance(1.0)
        canceling = client.messages.batches.cancel(batch.id)
        assert canceling.processing_status == "canceling"
        assert canceling.cancel_initiated_at is not None
        assert canceling.request_counts.processing == 40
        ended = finish(sandbox, client, batch, 1.0)
        counts = ended.request_counts
        assert ended.processing_status == "ended"
        assert counts.succeeded + counts.canceled == 40
        assert 0 < counts.canceled < 40
        types = [result.type for result in results(client, ended).values()]
        assert types.count("canceled") == counts.canceled

    def test_only_ended_batches_can_be_deleted(self, sandbox: Sandbox, client: Anthropic) -> None:
        batch = create(client, row("a"))
        with pytest.raises(BadRequestError):
            client.messages.batches.delete(batch.id)
        finish(sandbox, client, batch)
        with pytest.raises(BadRequestError):
            client.messages.batches.cancel(batch.id)
        assert client.messages.batches.delete(batch.id).type == "message_batch_deleted"
        with pytest.raises(NotFoundError):
            client.messages.batches.retrieve(batch.id)
        assert sandbox.ledger().totals.n_rows == 1


class TestList:
    def test_it_pages_both_ways_newest_first(self, sandbox: Sandbox, client: Anthropic) -> None:
        ids = [create(client, row("a")).id for _ in range(5)][::-1]
        assert [batch.id for batch in client.messages.batches.list(limit=2)] == ids
        page = client.messages.batches.list(limit=2, after_id=ids[1])
        assert ([batch.id for batch in page.data], page.has_more) == (ids[2:4], True)
        assert (page.first_id, page.last_id) == (ids[2], ids[3])
        before = client.messages.batches.list(limit=2, before_id=ids[3])
        assert ([batch.id for batch in before.data], before.has_more) == (ids[1:3], True)
        with pytest.raises(BadRequestError):
            client.messages.batches.list(limit=1001)


class TestCredentials:
    @pytest.mark.parametrize("name", ["x-api-key", "authorization"])
    def test_a_key_may_travel_bare_or_as_a_bearer(
        self, sandbox: Sandbox, client: Anthropic, name: str
    ) -> None:
        batch = create(client, row("a"))
        key = {"x-api-key": "sk-ant-one", "authorization": "Bearer sk-ant-one"}[name]
        url = f"{sandbox.base_url('anthropic')}{BATCHES}/{batch.id}"
        shown = httpx.get(url, headers={name: key, "anthropic-version": "2023-06-01"})
        assert shown.json()["id"] == batch.id

    def test_invalid_key_is_refused(self, sandbox: Sandbox) -> None:
        with Anthropic(
            base_url=sandbox.base_url("anthropic"), api_key="invalid-secret", max_retries=0
        ) as client:
            with pytest.raises(AuthenticationError) as caught:
                client.messages.batches.list()
            assert refusal(caught)["type"] == "authentication_error"
            assert "invalid-secret" not in str(caught.value)

    def test_batches_of_another_key_or_workspace_do_not_exist(
        self, sandbox: Sandbox, client: Anthropic
    ) -> None:
        batch = create(client, row("a"))
        elsewhere = {"anthropic-workspace-id": "wrkspc_1"}
        for key, headers in (("sk-ant-two", {}), ("sk-ant-one", elsewhere)):
            with Anthropic(
                base_url=sandbox.base_url("anthropic"), api_key=key, max_retries=0, default_headers=headers
            ) as other:
                assert not other.messages.batches.list().data
                with pytest.raises(NotFoundError):
                    other.messages.batches.retrieve(batch.id)


class TestRealtime:
    def test_realtime_answers_at_once_streams_and_counts(self, sandbox: Sandbox, client: Anthropic) -> None:
        asked: Any = {"model": MODEL, "messages": [{"role": "user", "content": "Hi."}]}
        answer = client.messages.create(max_tokens=10, **asked)
        assert "Hi." in message_text(answer.model_dump())
        assert answer.usage.service_tier == "standard"
        with client.messages.stream(max_tokens=10, **asked) as stream:
            assert "Hi." in "".join(stream.text_stream)
            assert stream.get_final_message().stop_reason == "end_turn"
        assert client.messages.count_tokens(**asked).input_tokens > 0
        tool = {"name": "t", "input_schema": {"type": "object", "properties": {"q": {"type": "string"}}}}
        insisting: Any = {"tools": [tool], "tool_choice": {"type": "any"}}
        with client.messages.stream(max_tokens=10, **asked, **insisting) as stream:
            [block] = stream.get_final_message().content
        assert block.type == "tool_use"
        assert block.input == {"q": "Hi."}
        with pytest.raises(BadRequestError):
            client.messages.create(max_tokens=10, model=MODEL, messages=[])


class TestSdk:
    def test_it_asks_for_a_timeout_before_any_call_with_many_tokens(
        self, sandbox: Sandbox, client: Anthropic
    ) -> None:
        asked: Any = {"model": MODEL, "messages": [{"role": "user", "content": "Hi."}]}
        client.messages.create(max_tokens=21_333, **asked)
        with pytest.raises(ValueError, match="Streaming"):
            client.messages.create(max_tokens=21_334, **asked)
        patient = client.with_options(timeout=3600.0)
        assert patient.messages.create(max_tokens=64_000, **asked).type == "message"
        assert sandbox.ledger().totals.n_realtime == 2

    def test_the_adapters_line_is_what_the_sdk_sends(self) -> None:
        asked = row("a", "Say \u00fc.")
        line = PROVIDER.line(
            custom_id="a", endpoint="/v1/messages", body=json.dumps(asked["params"]).encode()
        )
        assert json.loads(line) == asked
