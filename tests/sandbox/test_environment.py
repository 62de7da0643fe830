"""The environment of a rehearsal points SDKs at the sandbox and holds no real key."""

import inspect
from pathlib import Path
from typing import Any

import anthropic
import groq
import openai
import pytest
import together
from google import genai

from batchling_client.wire.deployment.rehearsing import NO_ACCOUNT, SANDBOX, SERVED
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


def test_aws_signs_for_an_account_that_is_not_there_only_where_there_is_no_other(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(environment, "_AMAZON", tmp_path / "none")
    files = {name: str(tmp_path / name) for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE")}
    alone = environment.variables(URL, (), files)
    assert (alone["AWS_ACCESS_KEY_ID"], alone["AWS_SECRET_ACCESS_KEY"]) == (NO_ACCOUNT, NO_ACCOUNT)
    assert alone["AWS_ENDPOINT_URL_BEDROCK_RUNTIME"] == f"{URL}/bedrock"
    assert "AWS_BEARER_TOKEN_BEDROCK" not in alone
    own = environment.variables(URL, (), {**files, "AWS_PROFILE": "own"})
    (tmp_path / "AWS_CONFIG_FILE").touch()
    for told in (own, environment.variables(URL, (), files)):
        assert "AWS_ACCESS_KEY_ID" not in told


def test_a_token_for_bedrock_is_replaced_and_its_calls_keep_the_host_that_takes_it() -> None:
    told = environment.variables(URL, (), {"AWS_BEARER_TOKEN_BEDROCK": "CANARY"})
    assert told["AWS_BEARER_TOKEN_BEDROCK"] == NO_ACCOUNT
    # AWS' own SDK sends a token over TLS only.
    assert not [name for name in told if name.startswith("AWS_ENDPOINT_URL")]
    assert "AWS_ACCESS_KEY_ID" not in told


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
