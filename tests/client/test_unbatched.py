"""Warnings about calls that cannot be batched: the true reason, once, and no warning about free calls."""

from __future__ import annotations

from typing import Final

import pytest

from batchling_client.session.unbatched import unbatched
from batchling_client.wire.charges import Charge
from batchling_client.wire.deployment.provider_settings import EndpointSettings, checked, routes_of
from batchling_client.wire.routes import Routes

REGISTRY: Final = Routes()
VERTEX: Final = "us-central1-aiplatform.googleapis.com"
PROJECT: Final = "/v1/projects/p/locations/us-central1"
FREE: Final = [
    *(
        ("api.openai.com", path)
        for path in (
            "/v1/chat/completions/chatcmpl-1",
            "/v1/responses/resp_1/cancel",
            "/v1/responses/input_tokens",
            "/v1/traces/ingest",
            "/v1/realtime/client_secrets",
            "/v1/realtime/sessions",
            "/v1/skills",
            "/v1/conversations",
            "/v1/vector_stores/vs_1/search",
            "/v1/threads/thread_1/messages",
            "/v1/uploads/upload_1/complete",
            "/v1/evals/eval_1/runs",
            "/v1/containers",
            "/v1/fine_tuning/jobs",
        )
    ),
    ("api.anthropic.com", "/v1/messages/count_tokens"),
    ("api.anthropic.com", "/v1/messages/batches"),
    ("api.x.ai", "/v1/tokenize-text"),
    ("api.mistral.ai", "/v1/batch/jobs"),
    ("api.together.ai", "/v1/fine-tunes/estimate-price"),
    ("api.together.ai", "/v2/projects/p1/models/upload/complete"),
    ("generativelanguage.googleapis.com", "/v1beta/models/m:countTokens"),
    ("generativelanguage.googleapis.com", "/v1beta/cachedContents"),
    ("generativelanguage.googleapis.com", "/upload/v1beta/files"),
    (VERTEX, f"{PROJECT}/publishers/google/models/m:countTokens"),
    (VERTEX, f"{PROJECT}/publishers/anthropic/models/count-tokens:rawPredict"),
    ("bedrock-runtime.us-east-1.amazonaws.com", "/model/anthropic.claude-v1:0/count-tokens"),
    ("mine.openai.azure.com", "/openai/files"),
    ("mtls.api.openai.com", "/v1/files"),
]
CHARGED: Final = [
    ("api.openai.com", "/v1/audio/speech", "openai's batches do not take /v1/audio/speech"),
    ("api.openai.com", "/v1/responses/compact", "do not take /v1/responses/compact"),
    ("api.mistral.ai", "/v1/conversations/conv_1", "do not take /v1/conversations/ID"),
    ("api.together.ai", "/v1/rerank", "do not take /v1/rerank"),
    ("eu.api.openai.com", "/v1/threads/runs", "do not take /v1/threads/runs"),
    ("mtls-eu.api.openai.com", "/v1/responses", "client certificate"),
    ("mine.openai.azure.us", "/openai/v1/chat/completions", "Azure Government has no batch deployments"),
    ("mine.services.ai.azure.com", "/anthropic/v1/messages", "Claude in Microsoft Foundry has no batches"),
    ("bedrock-mantle.us-east-1.api.aws", "/openai/v1/responses", "bedrock-mantle endpoint has no batches"),
    ("bedrock-mantle.us-east-1.api.aws", "/anthropic/v1/messages", "bedrock-mantle endpoint has no batches"),
    ("claude.googleapis.com", f"{PROJECT}/workspaces/w/invoke/v1/messages", "are not documented"),
    ("generativelanguage.googleapis.com", "/v1beta/openai/chat/completions", "OpenAI-compatible calls"),
    ("generativelanguage.googleapis.com", "/v1beta/interactions", "do not take interactions"),
    ("generativelanguage.googleapis.com", "/v1beta/models/m:streamGenerateContent", "stream=True"),
    ("aiplatform.googleapis.com", "/v1/publishers/google/models/m:generateContent", "belong to a project"),
    (VERTEX, f"{PROJECT}/publishers/anthropic/models/m:rawPredict", "Google's own models"),
    (VERTEX, f"{PROJECT}/endpoints/openapi/chat/completions", "not to endpoints"),
]


@pytest.mark.parametrize(("host", "path"), FREE)
def test_nothing_is_said_of_a_call_that_costs_nothing(host: str, path: str) -> None:
    assert unbatched(REGISTRY, host, path) is None


@pytest.mark.parametrize(("host", "path", "reason"), CHARGED)
def test_a_call_that_costs_is_warned_of_with_the_reason(host: str, path: str, reason: str) -> None:
    passing = unbatched(REGISTRY, host, path)
    assert passing is not None
    assert passing.charge is Charge.FULL_PRICE
    assert "full price" in passing.sentence
    assert reason in passing.sentence


def test_a_path_that_another_url_serves_has_a_warning_of_its_own() -> None:
    """A sentence that refuses and offers the same endpoint is of no help."""
    routes = routes_of(checked({"openai": EndpointSettings(base_url="http://127.0.0.1:9/llm")}))
    for host, path in (
        ("api.openai.com", "/chat/completions"),
        ("127.0.0.1:9", "/llm/team/v1/chat/completions"),
    ):
        passing = unbatched(routes, host, path)
        assert passing is not None
        assert f"Calls to {path} at {host}" in passing.sentence
        assert "expects /v1/chat/completions" in passing.sentence
        assert "BATCHLING_PROVIDERS__OPENAI__BASE_URL" in passing.sentence


def test_a_path_that_nobody_knows_is_not_called_expensive() -> None:
    passing = unbatched(REGISTRY, "api.openai.com", "/v1/brand/new/9f3")
    assert passing is not None
    assert passing.charge is Charge.UNKNOWN
    assert "/v1/brand/new/ID" in passing.sentence
    assert "full price" not in passing.sentence


def test_a_thousand_calls_with_ids_are_one_sentence() -> None:
    said = {unbatched(REGISTRY, "api.openai.com", f"/v1/videos/video_{i}/remix") for i in range(1000)}
    assert len(said) == 1


def test_nothing_is_said_of_hosts_that_are_nobodys() -> None:
    assert unbatched(REGISTRY, "example.com", "/v1/chat/completions") is None
