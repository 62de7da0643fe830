"""The sandbox's xAI, driven over REST as its users do with OpenAI's SDK, behaves as the real API is known to."""

from __future__ import annotations

import datetime as dt
import io
import json
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any

import httpx
import httpx2
import pytest
from openai import APIStatusError, BadRequestError, NotFoundError, OpenAI, PermissionDeniedError

from batchling_client.wire.keys import BatchId, ProviderBatchId
from batchling_client.wire.routes import Routes
from batchling_client.wire.states import Outcome
from batchling_worker.dialects.openai.chat_as_response import as_response
from batchling_worker.pipeline.answer_check import checked
from batchling_worker.provider import Account, Answer, Ended, Ending, Running, SearchCriteria, Submission
from batchling_worker.providers import xai
from batchling_worker.sandbox import Sandbox
from batchling_worker.sandbox.world import faults
from tests.form import CHAT_FORM, Ability, Form

FORM = Form(
    endpoint=CHAT_FORM.endpoint,
    model="grok-4.3",
    slow_model="grok-4.20-0309-reasoning",
    body=CHAT_FORM.body,
    text=CHAT_FORM.text,
    lacks=frozenset(
        {
            Ability.OPENAI_FILES,
            Ability.UPLOAD,
            Ability.INPUT_FILE,
            Ability.RESULT_FILES,
            Ability.ROW_STATUSES,
            Ability.UNDONE_ROWS,
        }
    ),
)

JSON = dict[str, Any]


@pytest.fixture
def client(sandbox: Sandbox) -> Iterator[OpenAI]:
    with OpenAI(base_url=sandbox.base_url("xai") + "/v1", api_key="xai-one", max_retries=0) as client:
        yield client


def ask(
    request_id: str, prompt: str = "Say hello.", *, kind: str = "chat_get_completion", **more: Any
) -> JSON:
    body: JSON = {"model": "grok-4.3", "messages": [{"role": "user", "content": prompt}], **more}
    if kind == "responses":
        body = {"model": "grok-4.3", "input": prompt, **more}
    return {"batch_request_id": request_id, "batch_request": {kind: body}}


def make(client: OpenAI, name: str = "evals") -> str:
    made = client.post("/batches", cast_to=object, body={"name": name})
    assert isinstance(made, dict)
    return str(made["batch_id"])


def append(client: OpenAI, batch_id: str, *asked: JSON) -> None:
    answer = client.post(
        f"/batches/{batch_id}/requests", cast_to=object, body={"batch_requests": list(asked)}
    )
    assert answer == {}


def show(client: OpenAI, batch_id: str) -> Any:
    return client.get(f"/batches/{batch_id}", cast_to=object)


def results(client: OpenAI, batch_id: str, **query: Any) -> Any:
    return client.get(f"/batches/{batch_id}/results", cast_to=object, options={"params": query})


class TestContainers:
    def test_a_container_costs_nothing_and_has_no_state_but_its_counters(
        self, sandbox: Sandbox, client: OpenAI
    ) -> None:
        batch_id = make(client)
        shown = show(client, batch_id)
        assert set(shown["state"].values()) == {0}
        assert "status" not in shown
        assert shown["cancel_time"] is None
        made, expires = shown["create_time"], shown["expire_time"]
        assert len(made) == len(expires) == len("2026-09-23")
        assert dt.date.fromisoformat(expires) - dt.date.fromisoformat(made) == dt.timedelta(days=30)
        assert sandbox.ledger().totals.n_batches == 0

    def test_rows_are_counted_as_they_are_done(self, sandbox: Sandbox, client: OpenAI) -> None:
        batch_id = make(client)
        append(client, batch_id, *(ask(str(n)) for n in range(10)), ask("bad", "fault:400"))
        state = show(client, batch_id)["state"]
        assert (state["num_requests"], state["num_pending"]) == (11, 11)
        sandbox.clock.advance(60)
        state = show(client, batch_id)["state"]
        assert (state["num_requests"], state["num_pending"], state["num_error"]) == (11, 0, 1)

    def test_a_repeated_request_is_ignored_and_another_with_its_id_is_refused(
        self, sandbox: Sandbox, client: OpenAI
    ) -> None:
        batch_id = make(client)
        append(client, batch_id, ask("a"), ask("b"))
        append(client, batch_id, ask("b"), ask("c"))
        with pytest.raises(APIStatusError) as caught:
            append(client, batch_id, ask("d"), ask("a", "Something else."))
        assert caught.value.status_code == 412
        sandbox.clock.advance(60)
        assert show(client, batch_id)["state"]["num_success"] == 3
        assert sandbox.ledger().executed() == {"a": 1, "b": 1, "c": 1}

    @pytest.mark.parametrize("model", ["grok-4.5", "grok-4.6-fast", "grok-3-mini", "unknown-model"])
    def test_a_model_that_no_batch_takes_refuses_the_whole_call(
        self, sandbox: Sandbox, client: OpenAI, model: str
    ) -> None:
        batch_id = make(client)
        with pytest.raises(BadRequestError) as caught:
            append(client, batch_id, ask("a"), ask("b", model=model))
        assert "not supported for batch" in caught.value.response.json()["error"]
        assert show(client, batch_id)["state"]["num_requests"] == 0

    @pytest.mark.parametrize(
        "bad",
        [
            {"batch_request_id": "x", "batch_request": {}},
            {"batch_request_id": "x", "batch_request": {"embedding": {"model": "grok-4.3"}}},
            ask("x", stream=True),
        ],
    )
    def test_an_invalid_request_is_refused_with_its_index(self, client: OpenAI, bad: JSON) -> None:
        with pytest.raises(BadRequestError) as caught:
            append(client, make(client), ask("a"), bad)
        assert "batch_requests[1]" in caught.value.response.json()["error"]

    def test_a_cancelled_container_takes_no_more(self, sandbox: Sandbox, client: OpenAI) -> None:
        batch_id = make(client)
        append(client, batch_id, *(ask(str(n)) for n in range(10)))
        sandbox.clock.advance(1.2)
        assert client.post(f"/batches/{batch_id}:cancel", cast_to=object)
        sandbox.clock.advance(60)
        state = show(client, batch_id)["state"]
        assert state["num_pending"] == 0
        assert state["num_success"] + state["num_cancelled"] == 10
        assert 0 < state["num_success"] < 10
        with pytest.raises(PermissionDeniedError):
            append(client, batch_id, ask("late"))

    def test_lists_are_paged(self, client: OpenAI) -> None:
        made = [make(client, str(n)) for n in range(5)]
        first: Any = client.get("/batches", cast_to=object, options={"params": {"limit": 3}})
        token = first["pagination_token"]
        rest: Any = client.get(
            "/batches", cast_to=object, options={"params": {"limit": 3, "pagination_token": token}}
        )
        assert [one["batch_id"] for one in first["batches"] + rest["batches"]] == made[::-1]
        assert rest["pagination_token"] is None

    def test_an_unknown_key_is_answered_with_400(self, sandbox: Sandbox) -> None:
        stranger = OpenAI(base_url=sandbox.base_url("xai") + "/v1", api_key="invalid-1", max_retries=0)
        with stranger, pytest.raises(BadRequestError) as caught:
            show(stranger, "batch_1")
        assert "Incorrect API key" in caught.value.response.json()["error"]

    def test_a_container_of_another_is_not_found(self, sandbox: Sandbox, client: OpenAI) -> None:
        batch_id = make(client)
        other = OpenAI(base_url=sandbox.base_url("xai") + "/v1", api_key="xai-two", max_retries=0)
        with other, pytest.raises(NotFoundError):
            show(other, batch_id)


class TestResults:
    def test_rows_are_there_before_the_batch_is_done(self, sandbox: Sandbox, client: OpenAI) -> None:
        sandbox.faults.add(faults.StickBatch(state="in_progress", done=0.5))
        batch_id = make(client)
        append(client, batch_id, *(ask(str(n)) for n in range(10)))
        assert results(client, batch_id) == {"results": [], "pagination_token": None}
        sandbox.clock.advance(60)
        assert len(results(client, batch_id)["results"]) == 5

    def test_pages_hold_each_row_once_also_of_several_appends(self, sandbox: Sandbox, client: OpenAI) -> None:
        batch_id = make(client)
        for start in (0, 10, 20):
            append(client, batch_id, *(ask(str(n)) for n in range(start, start + 10)))
        sandbox.clock.advance(60)
        seen: list[str] = []
        token: str | None = ""
        while token is not None:
            page = results(client, batch_id, limit=7, pagination_token=token)
            assert len(page["results"]) <= 7
            seen += [row["batch_request_id"] for row in page["results"]]
            token = page["pagination_token"]
        assert sorted(seen, key=int) == [str(n) for n in range(30)]

    def test_every_kind_of_request_is_answered(self, sandbox: Sandbox, client: OpenAI) -> None:
        batch_id = make(client)
        append(
            client,
            batch_id,
            ask("chat"),
            ask("response", kind="responses"),
            ask("image", kind="image_generation", prompt="a cat"),
            ask("edit", kind="image_edit", prompt="a cat"),
            ask("video", kind="video_generation", prompt="a cat"),
            ask("longer", kind="video_extension", prompt="a cat"),
        )
        sandbox.clock.advance(60)
        told = {
            row["batch_request_id"]: row["batch_result"]["response"]
            for row in results(client, batch_id)["results"]
        }
        assert told["chat"]["chat_get_completion"]["object"] == "chat.completion"
        # xAI returns a response as a chat completion.
        assert told["response"]["chat_get_completion"]["object"] == "chat.completion"
        assert told["image"]["image_generation"]["data"]
        assert told["edit"]["image_generation"]["data"]
        assert told["video"]["video_generation"]["id"]
        assert told["longer"]["video_generation"]["id"]


class TestRealtime:
    def test_the_sdk_is_answered_at_full_price(self, sandbox: Sandbox, client: OpenAI) -> None:
        chat = client.chat.completions.create(model="grok-4.3", messages=[{"role": "user", "content": "Hi."}])
        assert "Hi." in (chat.choices[0].message.content or "")
        assert "Hi." in client.responses.create(model="grok-4.3", input="Hi.").output_text
        assert len(sandbox.ledger().realtime) == 2


ANSWERED: JSON = {"id": "c1", "object": "chat.completion", "choices": []}


class TestRows:
    """How the adapter reads a row, of any shape."""

    @pytest.mark.parametrize(
        ("row", "status", "words"),
        [
            ({"batch_result": {"error": "the model is overloaded"}}, 500, "the model is overloaded"),
            ({"batch_result": {"error": {"code": 3, "message": "bad image"}}}, 400, "bad image"),
            ({"batch_result": {"error": {"code": 8, "message": "slow down"}}}, 429, "slow down"),
            ({"batch_result": {"error": {"code": 99, "message": "odd"}}}, 500, "odd"),
            ({"batch_result": {"error": {"reason": "odd"}}}, 500, "odd"),
            ({"error_message": "gone wrong"}, 500, "gone wrong"),
            ({"batch_result": None, "error_message": "gone wrong"}, 500, "gone wrong"),
        ],
    )
    def test_errors_of_any_shape_are_read(self, row: JSON, status: int, words: str) -> None:
        answer = read(row)
        assert (answer.status, answer.origin) == (status, "provider")
        assert words in json.loads(answer.body)["error"]

    def test_a_cancelled_row_is_read_as_cancelled(self) -> None:
        answer = read({"batch_result": {"error": {"code": 1, "message": "cancelled"}}})
        assert (answer.status, answer.origin) == (499, "batch_cancelled")

    @pytest.mark.parametrize(
        "row",
        [
            {},
            {"batch_result": {}},
            {"batch_result": {"response": {}}},
            {"batch_result": {"response": None, "error": {}}},
            {"batch_result": 7},
            {"batch_result": {"response": []}},
        ],
    )
    def test_a_row_without_answer_or_error_counts_as_lost(self, row: JSON) -> None:
        answer = read(row)
        assert (answer.status, answer.origin) == (503, "batch_row_lost")

    @pytest.mark.parametrize("body", [{}, None, [], "no JSON"])
    @pytest.mark.parametrize("endpoint", ["/v1/chat/completions", "/v1/responses"])
    def test_a_row_with_an_invalid_answer_is_not_run_again(self, endpoint: str, body: object) -> None:
        line = {"batch_request_id": "a", "batch_result": {"response": {"chat_get_completion": body}}}
        found = answer_in(json.dumps(line).encode(), xai.KINDS[endpoint])
        assert found is not None
        answer = checked(found, endpoint)
        assert (answer.status, answer.origin) == (502, "batch_answer_unfit")

    def test_an_answer_beside_an_empty_error_succeeds(self) -> None:
        row = {"batch_result": {"response": {"chat_get_completion": ANSWERED}, "error": {"code": 0}}}
        assert (read(row).status, json.loads(read(row).body)) == (200, ANSWERED)

    @pytest.mark.parametrize("raw", [b'"half a li', b"7", b"{}", b'{"batch_request_id":7}', b"[1]"])
    def test_a_row_without_an_id_belongs_to_no_request(self, raw: bytes) -> None:
        assert answer_in(raw, "") is None

    def test_an_answer_goes_through_byte_for_byte(self) -> None:
        body = b'{ "id":"c1", "choices":[{"message":{"content":"\\u00e9 \xc3\xa9"}}],  "x": 1.50 }'
        raw = b'{"batch_request_id":"a","batch_result":{"response":{"chat_get_completion":%b}}}' % body
        answer = answer_in(raw, "chat_get_completion")
        assert answer is not None
        assert answer.body == body

    @pytest.mark.parametrize("kind", ["chat_get_completion", "responses"])
    def test_an_answer_in_a_text_of_json_is_taken_out(self, kind: str) -> None:
        chat = {"id": "c1", "choices": [{"message": {"content": "hello"}}]}
        as_it_is, in_a_text = (
            answer_in(
                json.dumps(
                    {"batch_request_id": "a", "batch_result": {"response": {"chat_get_completion": told}}}
                ).encode(),
                kind,
            )
            for told in (chat, json.dumps(chat))
        )
        assert as_it_is is not None
        assert in_a_text is not None
        assert in_a_text.status == 200
        assert json.loads(in_a_text.body) == json.loads(as_it_is.body)

    def test_an_answer_in_json_that_only_python_decodes_is_read(self) -> None:
        told = b'{"id":"c1","choices":[{"message":{"content":"cut \\ud83d"},"p":NaN}]}'
        raw = b'{"batch_request_id":"a","batch_result":{"response":{"chat_get_completion":%b}}}' % told
        chat = answer_in(raw, "chat_get_completion")
        assert chat is not None
        assert (chat.status, json.loads(chat.body)["choices"][0]["message"]["content"]) == (200, "cut \ud83d")
        response = answer_in(raw, "responses")
        assert response is not None
        assert response.status == 200
        [item] = json.loads(response.body)["output"]
        assert item["content"][0]["text"] == "cut \ufffd"

    def test_an_error_in_json_that_only_python_decodes_is_read(self) -> None:
        answer = answer_in(
            b'{"batch_request_id":"a","batch_result":{"error":{"code":3,"message":"no \\ud83d"}}}', ""
        )
        assert answer is not None
        assert (answer.status, json.loads(answer.body)["error"]) == (400, "no \ufffd")


@pytest.fixture
async def account(sandbox: Sandbox) -> AsyncIterator[Account]:
    async with httpx.AsyncClient(trust_env=False) as http:
        headers = {"authorization": "Bearer xai-one"}
        yield Account(base_url=sandbox.base_url("xai"), headers=headers, http=http, digest="a")


def submission(n_lines: int) -> Submission:
    return Submission(
        batch_id=BatchId("b1"),
        label="batchling-test-1",
        endpoint="/v1/chat/completions",
        model="grok-4.3",
        completion_window="24h",
        n_lines=n_lines,
    )


async def test_counters_that_lack_rows_do_not_end_a_batch(
    sandbox: Sandbox, client: OpenAI, account: Account
) -> None:
    container = ProviderBatchId(await xai.PROVIDER.upload(account, submission(20), io.BytesIO()))
    append(client, container, *(ask(str(n)) for n in range(10)))
    sandbox.clock.advance(60)
    for _ in range(2):
        look = (await xai.PROVIDER.look(account, [container]))[container]
        assert isinstance(look, Running), look
        sandbox.clock.advance(xai.APPEND_SETTLES.total_seconds() / 3)
    sandbox.clock.advance(xai.APPEND_SETTLES.total_seconds())
    look = (await xai.PROVIDER.look(account, [container]))[container]
    assert isinstance(look, Ended)
    assert (look.outcome, look.n_done) == (Outcome.COMPLETED, 10)


@pytest.mark.parametrize("made", ["", " 1", f" {'9' * 11}"], ids=["an older name", "long ago", "yet to come"])
async def test_a_container_that_does_not_tell_its_second_ends_by_its_counters_and_is_found(
    sandbox: Sandbox, client: OpenAI, account: Account, made: str
) -> None:
    container = ProviderBatchId(make(client, f"batchling-test-1 20 responses{made}"))
    append(client, container, *(ask(str(n)) for n in range(20)))

    async def no(_: object) -> bool:
        return False

    since = dt.datetime.fromtimestamp(sandbox.clock.now(), dt.UTC)
    sought = SearchCriteria(
        submission=submission(20), input_file_ids=(), since=since, is_another=no, holds=no
    )
    assert await xai.PROVIDER.find(account, sought) == [container]
    short = ProviderBatchId(make(client, f"batchling-test-2 20 responses{made}"))
    append(client, short, ask("a"))
    sandbox.clock.advance(60)
    look = (await xai.PROVIDER.look(account, [short]))[short]
    assert isinstance(look, Ended)
    assert look.ending.results == (f"{short} responses",)


@pytest.mark.parametrize("kind", ["chat_get_completion", "responses"])
async def test_half_of_a_surrogate_pair_in_one_row_costs_no_other(
    sandbox: Sandbox, client: OpenAI, account: Account, kind: str
) -> None:
    half = '{"batch_request_id":"CUSTOM_ID","batch_result":{"response":{"chat_get_completion":%s}}}'
    chat = '{"id":"c1","choices":[{"message":{"role":"assistant","content":"cut \\ud83d"}}]}'
    sandbox.faults.add(faults.SpoilRows(n=1, lines=(half % chat,)))
    batch_id = make(client)
    append(client, batch_id, *(ask(str(n), kind=kind) for n in range(10)))
    sandbox.clock.advance(60)

    ending = Ending(results=(f"{batch_id} {kind}",))
    answers = {one.custom_id: one async for one in xai.PROVIDER.results(account, ending)}

    assert sorted(answers) == [str(n) for n in range(10)]
    assert {answer.status for answer in answers.values()} == {200}
    [spoilt] = [answer for answer in answers.values() if b"cut " in answer.body]
    assert json.loads(spoilt.body)["id"] == "c1"


def answer_in(raw: bytes, kind: str) -> Answer | None:
    return next(xai.reader(kind).answers([raw]), None)


def read(row: Mapping[str, Any]) -> Answer:
    answer = answer_in(json.dumps({"batch_request_id": "a", **row}).encode(), "chat_get_completion")
    assert answer is not None
    assert answer.custom_id == "a"
    return answer


def test_a_request_goes_in_byte_for_byte() -> None:
    body = b'{"model":"grok-4.3", "messages":[{"role":"system","content":"\xc3\xa9\\n"}],"tools":[{"x":[]}],"a":1.0}'
    line = xai.PROVIDER.line(custom_id="a" * 26, endpoint="/v1/chat/completions", body=body)
    assert body in line
    assert json.loads(line) == {
        "batch_request_id": "a" * 26,
        "batch_request": {"chat_get_completion": json.loads(body)},
    }


def test_appends_are_pieces_that_a_call_takes() -> None:
    small = [b'{"batch_request_id":"%d"}\n' % n for n in range(2 * xai.PIECE_ROWS + 1)]
    pieces = [json.loads(piece)["batch_requests"] for piece in xai.pieces(io.BytesIO(b"".join(small)))]
    assert [len(piece) for piece in pieces] == [xai.PIECE_ROWS, xai.PIECE_ROWS, 1]
    assert [row for piece in pieces for row in piece] == [json.loads(line) for line in small]
    with tempfile.TemporaryFile() as lines:
        for _ in range(5):
            lines.write(b'"%b"\n' % (b"x" * 5_000_000))
        lines.seek(0)
        sizes = [len(piece) for piece in xai.pieces(lines)]
    assert len(sizes) == 3
    assert max(sizes) < 25_000_000


class TestResponses:
    """A chat completion as the SDK reads a response."""

    def test_text_and_usage_are_read(self) -> None:
        usage = {
            "prompt_tokens": 10,
            "completion_tokens": 5,
            "total_tokens": 22,
            "prompt_tokens_details": {"cached_tokens": 4},
            "completion_tokens_details": {"reasoning_tokens": 7},
            "cost_in_usd_ticks": 12,
        }
        response = parsed({"role": "assistant", "content": "Hello.", "reasoning_content": "Hm."}, usage=usage)
        assert response.output_text == "Hello."
        assert [item.type for item in response.output] == ["reasoning", "message"]
        assert response.output[0].summary[0].text == "Hm."
        assert (response.status, response.model, response.created_at) == (
            "completed",
            "grok-4.3",
            1_700_000_000,
        )
        assert (response.usage.input_tokens, response.usage.output_tokens) == (10, 12)
        assert response.usage.output_tokens_details.reasoning_tokens == 7
        assert response.usage.input_tokens_details.cached_tokens == 4
        assert response.usage.cost_in_usd_ticks == 12
        assert response.citations == ["https://x.ai"]

    def test_tool_calls_are_read(self) -> None:
        call = {"id": "call_1", "type": "function", "function": {"name": "add", "arguments": '{"a":1}'}}
        response = parsed(
            {"role": "assistant", "content": "", "tool_calls": [call]}, finish_reason="tool_calls"
        )
        [item] = response.output
        assert (item.type, item.call_id, item.name, item.arguments) == (
            "function_call",
            "call_1",
            "add",
            '{"a":1}',
        )

    @pytest.mark.parametrize(
        ("reason", "told"), [("length", "max_output_tokens"), ("content_filter", "content_filter")]
    )
    def test_an_incomplete_response_is_read_as_such(self, reason: str, told: str) -> None:
        response = parsed({"role": "assistant", "content": "Hel"}, finish_reason=reason)
        assert (response.status, response.incomplete_details.reason) == ("incomplete", told)

    def test_other_bodies_are_not_converted(self) -> None:
        for body in (b'{"object":"response","output":[]}', b"[1]", b'{"choices":7}'):
            assert as_response(body) == body


def parsed(message: JSON, *, finish_reason: str = "stop", usage: JSON | None = None) -> Any:
    chat = {
        "id": "c1",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": "grok-4.3",
        "choices": [{"index": 0, "message": message, "finish_reason": finish_reason}],
        "usage": usage,
        "citations": ["https://x.ai"],
    }
    body = as_response(json.dumps(chat).encode())
    transport = httpx2.MockTransport(lambda request: httpx2.Response(200, content=body))
    http = httpx2.Client(transport=transport)
    with OpenAI(api_key="k", base_url="http://sandbox.invalid/v1", http_client=http, max_retries=0) as client:
        return client.responses.create(model="grok-4.3", input="Hi.")


def test_endpoints_have_a_kind_each() -> None:
    route = Routes().named("xai")
    assert route is not None
    assert set(route.endpoints.values()) == set(xai.KINDS)
