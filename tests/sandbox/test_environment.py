"""The environment of a rehearsal points SDKs at the sandbox and holds no real key."""

import inspect
from typing import Any

import anthropic
import groq
import openai
import pytest
import together
from google import genai

from batchling_client.wire.rehearsing import NO_ACCOUNT, SANDBOX, SERVED
from batchling_client.wire.routes import ROUTES
from batchling_worker.sandbox import environment

URL = "http://127.0.0.1:8099"
REAL = {
    "OPENAI_API_KEY": "sk-CANARY",
    "ANTHROPIC_AUTH_TOKEN": "CANARY",
    "OPENROUTER_API_KEY": "CANARY",
    "BATCHLING_PROVIDERS__GROQ__API_KEY": "gsk-CANARY",
    "GOOGLE_API_KEY": "CANARY",
    "MY_OWN_SETTING": "kept",
}


def test_every_key_is_replaced_and_none_is_left() -> None:
    told = environment.variables(URL, (), REAL)
    program = {**REAL, **told}
    assert "CANARY" not in str(program)
    assert program["MY_OWN_SETTING"] == "kept"
    assert told[SANDBOX] == URL
    for route in ROUTES:
        if route.provider != "bedrock":
            assert told[route.variables[route.api_key_header]] == NO_ACCOUNT
    assert told["AWS_BEARER_TOKEN_BEDROCK"] == NO_ACCOUNT


def test_official_sdks_go_to_the_sandbox_by_the_environment_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "GROQ_API_KEY", "ANTHROPIC_API_KEY", "GEMINI_API_KEY", "TOGETHER_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.variables(URL).items():
        monkeypatch.setenv(name, value)
    clients: dict[str, Any] = {
        "openai": openai.OpenAI(),
        "groq": groq.Groq(),
        "anthropic": anthropic.Anthropic(),
        "together": together.Together(),
    }
    for name, client in clients.items():
        assert str(client.base_url).startswith(f"{URL}/{name}"), name
        assert client.api_key == NO_ACCOUNT
    assert str(openai.AzureOpenAI(api_version="2024-10-21").base_url).startswith(f"{URL}/azure/openai")
    assert "GOOGLE_GEMINI_BASE_URL" in inspect.getsource(genai._base_url)


def test_providers_that_are_not_served_are_not_pointed_at() -> None:
    told = environment.variables(URL, ["groq"])
    assert told[SERVED] == "groq"
    assert "GROQ_BASE_URL" in told
    assert "OPENAI_BASE_URL" not in told
    assert told["OPENAI_API_KEY"] == NO_ACCOUNT
