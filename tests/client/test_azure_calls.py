"""Calls to Azure OpenAI, as its two clients send them: deployments, dated versions, batch deployments."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx2
import msgspec
import pytest
from openai import AsyncAzureOpenAI, AsyncOpenAI

from batchling_client import settings
from batchling_client.intercept.interceptor import HttpCall, HttpReply, host_of
from batchling_client.session.calls import Calls, Request
from batchling_client.session.lanes import Terms
from batchling_client.wire.ids import new_run_id

from .asking import body_of

ENDPOINT = "https://mine.openai.azure.com"
VERSION = "2024-10-21"
MESSAGES: Any = [{"role": "user", "content": "hé"}]


def calls() -> Calls:
    used = settings.load()
    return Calls(Terms(run_id=new_run_id(), run_name=""), used.routes())


def sent(reader: Calls, call: HttpCall) -> tuple[Request, dict[str, Any]]:
    """Return the request of a call, and its body as stored in a row."""
    request = reader.read(call)
    assert isinstance(request, Request), request
    return request, json.loads(body_of(request))


class Wire:
    """Keeps the last call of an SDK's client, and answers nothing."""

    def __init__(self) -> None:
        self.http = httpx2.AsyncClient(transport=httpx2.MockTransport(self._keep))
        self.call: HttpCall | None = None

    def _keep(self, request: httpx2.Request) -> httpx2.Response:
        self.call = HttpCall(
            method=request.method,
            url=str(request.url),
            host=host_of(request.url.host, request.url.port),
            path=request.url.path,
            headers=dict(request.headers.items()),
            body=request.content,
        )
        return httpx2.Response(200, json={})

    def heard(self) -> HttpCall:
        assert self.call is not None
        return self.call


@pytest.fixture
async def wire() -> AsyncIterator[Wire]:
    wire = Wire()
    yield wire
    await wire.http.aclose()


def dated(wire: Wire, **more: Any) -> AsyncAzureOpenAI:
    given = {"azure_endpoint": ENDPOINT, "api_key": "az-CANARY", "api_version": VERSION, **more}
    return AsyncAzureOpenAI(http_client=wire.http, max_retries=0, **given)


def v1(wire: Wire) -> AsyncOpenAI:
    return AsyncOpenAI(
        base_url=f"{ENDPOINT}/openai/v1", api_key="az-CANARY", http_client=wire.http, max_retries=0
    )


async def test_a_deployment_of_the_dated_client_is_the_lanes_model(wire: Wire) -> None:
    await dated(wire).chat.completions.create(model="mine-batch", messages=MESSAGES, temperature=1.0)
    request, body = sent(calls(), wire.heard())
    spec = request.lane.spec
    assert (spec.provider, spec.host, spec.endpoint) == (
        "azure",
        "mine.openai.azure.com",
        "/chat/completions",
    )
    assert spec.model == "mine-batch"
    assert (spec.query, spec.headers) == ((("api-version", VERSION),), ())
    assert body == {"model": "mine-batch", "messages": MESSAGES, "temperature": 1.0}
    assert "CANARY" not in repr(spec)


async def test_the_plain_client_goes_by_the_v1_path(wire: Wire) -> None:
    await v1(wire).chat.completions.create(model="mine-batch", messages=MESSAGES)
    request, _ = sent(calls(), wire.heard())
    assert (request.lane.spec.endpoint, request.lane.spec.query) == ("/v1/chat/completions", ())
    await v1(wire).responses.create(model="mine-batch", input="hé")
    request, body = sent(calls(), wire.heard())
    assert request.lane.spec.endpoint == "/v1/responses"
    assert body == {"model": "mine-batch", "input": "hé"}


async def test_responses_of_the_dated_client_are_batched(wire: Wire) -> None:
    await dated(wire).responses.create(model="mine-batch", input="hé")
    request, _ = sent(calls(), wire.heard())
    assert (request.lane.spec.endpoint, request.lane.spec.model) == ("/v1/responses", "mine-batch")


async def test_two_versions_two_resources_and_two_kinds_of_key_share_no_lane(wire: Wire) -> None:
    clients: list[Callable[[], AsyncOpenAI]] = [
        lambda: dated(wire),
        lambda: dated(wire, api_version="2025-03-01-preview"),
        lambda: dated(wire, azure_endpoint="https://other.openai.azure.com"),
        lambda: dated(wire, azure_endpoint="https://mine.services.ai.azure.com"),
        lambda: dated(wire, azure_endpoint="https://mine.cognitiveservices.azure.com"),
        lambda: dated(wire, api_key=None, azure_ad_token="az-token-CANARY"),
        lambda: v1(wire),
    ]
    reader, lanes = calls(), set()
    for client in clients:
        await client().chat.completions.create(model="mine-batch", messages=MESSAGES)
        request, _ = sent(reader, wire.heard())
        lanes.add(request.lane.lane_id)
    assert len(lanes) == len(clients)


async def test_a_deployment_counts_and_not_the_model_that_its_body_names(wire: Wire) -> None:
    client = dated(wire, azure_deployment="mine-batch")
    await client.chat.completions.create(model="gpt-4o", messages=MESSAGES)
    request, body = sent(calls(), wire.heard())
    assert request.lane.spec.model == body["model"] == "mine-batch"


def test_a_body_that_names_no_model_gets_its_deployments() -> None:
    call = HttpCall(
        method="POST",
        url=f"{ENDPOINT}/openai/deployments/mine/chat/completions?api-version={VERSION}",
        host="mine.openai.azure.com",
        path="/openai/deployments/mine/chat/completions",
        headers={"api-key": "az-CANARY"},
        body=b'{"messages":[{"role":"user","content":"h\\u00e9"}]}',
    )
    _, body = sent(calls(), call)
    assert body == {"messages": MESSAGES, "model": "mine"}


async def test_a_standard_deployment_is_batched_in_the_batch_deployment_that_settings_name(
    wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BATCHLING_PROVIDERS__AZURE__MODELS", '{"gpt-4o": "gpt-4o-batch"}')
    reader = calls()
    exotic: dict[str, Any] = {
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}],
        "extra_body": {"custom": {"model": "gpt-4o", "deep": [1, 1.0, None, "\u2028"]}},
    }
    for client in (dated(wire), v1(wire)):
        await client.chat.completions.create(model="gpt-4o", messages=MESSAGES, **exotic)
        request, body = sent(reader, wire.heard())
        asked = json.loads(wire.heard().body)
        assert request.lane.spec.model == body["model"] == "gpt-4o-batch"
        assert body == {**asked, "model": "gpt-4o-batch"}
        kept = msgspec.json.decode(body_of(request), type=dict[str, msgspec.Raw])
        assert bytes(kept["custom"]) in wire.heard().body
    await v1(wire).chat.completions.create(model="other-batch", messages=MESSAGES)
    assert sent(reader, wire.heard())[0].lane.spec.model == "other-batch"


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ("a=b, c = d", {"a": "b", "c": "d"}),
        ('{"a": "b"}', {"a": "b"}),
    ],
)
def test_models_are_set_as_pairs_or_as_json(
    monkeypatch: pytest.MonkeyPatch, said: str, found: dict[str, str]
) -> None:
    monkeypatch.setenv("BATCHLING_PROVIDERS__AZURE__MODELS", said)
    assert settings.load().providers["azure"].models == found


def test_an_empty_setting_names_no_models(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BATCHLING_PROVIDERS__AZURE__MODELS", "")
    assert settings.load().providers == {}


@pytest.mark.parametrize("path", ["/openai/deployments/mine/embeddings", "/openai/v1/embeddings"])
def test_azure_calls_without_batches_pass(path: str, caplog: pytest.LogCaptureFixture) -> None:
    assert not calls().wants("POST", "mine.openai.azure.com", path)


def test_a_call_without_any_key_is_refused() -> None:
    call = HttpCall(
        method="POST",
        url=f"{ENDPOINT}/openai/v1/chat/completions",
        host="mine.openai.azure.com",
        path="/openai/v1/chat/completions",
        headers={"authorization": "Bearer "},
        body=b'{"model":"m"}',
    )
    reply = calls().read(call)
    assert isinstance(reply, HttpReply)
    assert reply.status == 401
