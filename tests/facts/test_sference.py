"""The sandbox's Sference, driven by the official SDK, behaves as the real API is known to."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from typing import Any

import pytest
from sference_sdk import SferenceClient
from sference_sdk.client import ApiError
from sference_sdk.models import Batch

from batchling_worker.decisions import blame
from batchling_worker.provider import Complaint
from batchling_worker.providers.sference import FACTS, PROVIDER, read_row
from batchling_worker.sandbox import Limits, Sandbox
from batchling_worker.sandbox.providers.sference import SferenceDialect
from batchling_worker.sandbox.world import faults
from tests.form import Ability, Form, chat_body, chat_text

MODEL = "zai-org/GLM-5-flash"

FORM = Form(
    endpoint="/v1/chat/completions",
    model=MODEL,
    slow_model="zai-org/GLM-5",
    body=chat_body,
    text=chat_text,
    lacks=frozenset(
        {
            Ability.OPENAI_FILES,
            Ability.LABEL,
            Ability.UPLOAD,
            Ability.INPUT_FILE,
            Ability.RESULT_FILES,
            # Neither the shape nor the status of a failed row is published.
            Ability.ROW_STATUSES,
            # The create reports the errors of lines.
            Ability.WHOLE_FAILURE,
            Ability.EXPIRY,
        }
    ),
)


@pytest.fixture
def client(sandbox: Sandbox) -> Iterator[SferenceClient]:
    with SferenceClient(base_url=sandbox.base_url("sference"), api_key="sf-one") as client:
        yield client


def row(custom_id: str, prompt: str = "Say hello.", **body: Any) -> dict[str, Any]:
    asked = {"model": MODEL, "messages": [{"role": "user", "content": prompt}], **body}
    return {"custom_id": custom_id, "body": asked}


def finish(sandbox: Sandbox, client: SferenceClient, batch: Batch, seconds: float = 10) -> Batch:
    sandbox.clock.advance(seconds)
    return client.get_batch(batch.id)


def lines(client: SferenceClient, batch: Batch) -> dict[str, dict[str, Any]]:
    out = io.BytesIO()
    client.download_results_jsonl(batch.id, out)
    rows = [json.loads(line) for line in out.getvalue().splitlines()]
    return {one["custom_id"]: one for one in rows}


class TestFacts:
    def test_the_sandbox_enforces_the_numbers_of_the_adapter(self) -> None:
        traits = SferenceDialect().traits
        assert (traits.max_rows, traits.max_bytes) == (FACTS.max_rows, FACTS.max_bytes)

    def test_the_adapters_line_is_what_the_sdk_sends(self) -> None:
        asked = row("a", "Say \u00fc.")
        body = json.dumps(asked["body"]).encode()
        line = PROVIDER.line(custom_id="a", endpoint="/v1/chat/completions", body=body)
        assert json.loads(line) == asked


class TestStates:
    def test_a_batch_goes_through_its_states(self, sandbox: Sandbox, client: SferenceClient) -> None:
        batch = client.submit_batch(requests=[row("a"), row("b")])
        assert (batch.status, batch.request_count, batch.window) == ("pending", 2, "24h")
        assert finish(sandbox, client, batch, 0.3).status == "running"
        ended = finish(sandbox, client, batch)
        assert ended.status == "completed"
        assert ended.completed_at is not None
        assert ended.total_tokens == ended.total_prompt_tokens + ended.total_completion_tokens > 0

    def test_one_list_shows_all_batches(self, sandbox: Sandbox, client: SferenceClient) -> None:
        ids = [client.submit_batch(requests=[row("a")]).id for _ in range(30)]
        assert [batch.id for batch in client.list_batches().items] == ids[::-1]

    def test_a_cancelled_batch_stays_so(self, sandbox: Sandbox, client: SferenceClient) -> None:
        batch = client.submit_batch(requests=[row(str(n), model="big") for n in range(30)])
        sandbox.clock.advance(1.0)
        assert client.cancel_batch(batch.id).status == "running"
        assert finish(sandbox, client, batch, 1.0).status == "cancelled"
        with pytest.raises(ApiError, match="409"):
            client.cancel_batch(batch.id)
        statuses = [one["status"] for one in lines(client, batch).values()]
        assert {"completed", "cancelled"} == set(statuses)

    def test_no_batch_expires_by_name(self, sandbox: Sandbox, client: SferenceClient) -> None:
        sandbox.faults.add(faults.ExpireBatch(done=0.5))
        batch = client.submit_batch(requests=[row(str(n)) for n in range(4)])
        assert finish(sandbox, client, batch).status == "failed"
        assert sum(one["result_json"] is not None for one in lines(client, batch).values()) == 2


class TestCreate:
    @pytest.mark.parametrize(
        ("rows", "place"),
        [
            ([row("a"), row("b", messages=[])], 1),
            ([row("a"), row("b"), row("c", model="another")], 2),
            ([row("a"), row("a")], 1),
            ([row("a", background=True)], 0),
            ([row("a", model="unknown-1")], 0),
            ([row("a"), {"custom_id": "b", "body": {"messages": [{"role": "user", "content": "x"}]}}], 1),
        ],
    )
    def test_a_bad_request_is_named_and_nothing_is_made(
        self, sandbox: Sandbox, client: SferenceClient, rows: list[dict[str, Any]], place: int
    ) -> None:
        with pytest.raises(ApiError, match=r"^400: ") as caught:
            client.submit_batch(requests=rows)
        assert f"requests[{place}]" in str(caught.value)
        assert blame.pointer(Complaint(code="", message=str(caught.value))).line == place + 1
        assert sandbox.ledger().totals.n_batches == 0

    def test_the_refusal_has_a_status_a_detail_and_more(self, client: SferenceClient) -> None:
        with pytest.raises(ApiError) as caught:
            client._request("POST", "/v1/batches", {"requests": [row("a", messages=[])]})
        for word in ("'status_code': 400", "'detail': 'requests[0].body.messages: ", "'extra': [{'key': "):
            assert word in str(caught.value)

    @pytest.mark.parametrize(
        "create",
        [
            {},
            {"requests": []},
            {"requests": [row("a")], "window": "1h"},
            {"requests": [row("a")], "metadata": {}},
            {"requests": [{**row("a"), "method": "POST"}]},
        ],
    )
    def test_extra_keys_other_windows_and_empty_lists_are_refused(
        self, client: SferenceClient, create: dict[str, Any]
    ) -> None:
        with pytest.raises(ApiError, match=r"^400: "):
            client._request("POST", "/v1/batches", create)

    def test_a_custom_id_may_be_left_out_and_input_may_be_of_responses(
        self, sandbox: Sandbox, client: SferenceClient
    ) -> None:
        bodies = [{"body": {"model": MODEL, "input": "Say hello."}}, {"body": row("a")["body"]}]
        batch = client.submit_batch(requests=bodies)
        assert finish(sandbox, client, batch).request_count == len(lines(client, batch)) == 2

    def test_more_than_fits_is_refused(self, sandbox: Sandbox, client: SferenceClient) -> None:
        for limits, status in ((Limits(max_rows=1), "400"), (Limits(max_bytes=99), "413")):
            sandbox.limits = limits
            with pytest.raises(ApiError, match=rf"^{status}: "):
                client.submit_batch(requests=[row("a"), row("b")])


class TestResults:
    def test_results_come_as_lines_and_as_one_object(self, sandbox: Sandbox, client: SferenceClient) -> None:
        batch = client.submit_batch(requests=[row("a", "Hi."), row("b", "fault:400"), row("c", "fault:500")])
        with pytest.raises(ApiError, match="404"):
            client.get_results(batch.id)
        finish(sandbox, client, batch)
        found = client.get_results_indexed(batch.id)
        assert "Hi." in found["a"].completion_text
        assert {one: said.status for one, said in found.items()} == {
            "a": "completed",
            "b": "failed",
            "c": "failed",
        }
        assert found["b"].error_json
        assert found["b"].result_json is None
        assert lines(client, batch)["a"]["result_json"] == found["a"].result_json

    def test_large_batches_show_only_the_url_of_their_results(
        self, sandbox: Sandbox, client: SferenceClient
    ) -> None:
        batch = client.submit_batch(requests=[row(str(n)) for n in range(1_001)])
        finish(sandbox, client, batch)
        results = client.get_results(batch.id)
        assert results.results is None
        assert results.output_url == f"{sandbox.base_url('sference')}/v1/batches/{batch.id}/results.jsonl"
        assert len(lines(client, batch)) == 1_001


class TestRows:
    @pytest.mark.parametrize(
        ("fields", "status", "origin"),
        [
            ({"status": "completed", "result_json": {"id": "x"}}, 200, "provider"),
            ({"result_json": {"id": "x"}, "error_json": None}, 200, "provider"),
            ({"status": "failed", "error_json": {"message": "m"}}, 500, "provider"),
            ({"status": "failed", "error_json": {"type": "invalid_request_error"}}, 400, "provider"),
            ({"status": "failed", "error_json": {"status_code": 422, "detail": "m"}}, 422, "provider"),
            ({"status": "failed", "error_json": {"error": {"code": 429, "message": "m"}}}, 429, "provider"),
            ({"status": "failed", "error_json": {"code": "context_length"}}, 500, "provider"),
            ({"status": "cancelled", "result_json": None, "error_json": None}, 499, "batch_cancelled"),
            ({"status": "expired"}, 504, "batch_expired"),
            ({"status": "failed"}, 503, "batch_row_lost"),
            ({"status": "completed", "result_json": {}}, 200, "provider"),
            ({"status": "completed"}, 503, "batch_row_lost"),
            ({}, 503, "batch_row_lost"),
        ],
    )
    def test_a_row_becomes_the_answer_that_it_most_likely_means(
        self, fields: dict[str, Any], status: int, origin: str
    ) -> None:
        answer = read_row("a", {name: json.dumps(value).encode() for name, value in fields.items()})
        assert (answer.status, answer.origin) == (status, origin)
        assert status < 400 or "error" in json.loads(answer.body)


class TestCredentials:
    def test_an_invalid_key_is_refused(self, sandbox: Sandbox) -> None:
        with SferenceClient(base_url=sandbox.base_url("sference"), api_key="invalid-secret") as client:
            with pytest.raises(ApiError, match=r"^401: ") as caught:
                client.list_batches()
            assert "invalid-secret" not in str(caught.value)

    def test_batches_of_another_key_do_not_exist(self, sandbox: Sandbox, client: SferenceClient) -> None:
        batch = client.submit_batch(requests=[row("a")])
        with SferenceClient(base_url=sandbox.base_url("sference"), api_key="sf-two") as other:
            assert other.list_batches().items == []
            with pytest.raises(ApiError, match=r"^404: "):
                other.get_batch(batch.id)
