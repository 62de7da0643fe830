"""What a worker reads from its environment, and what it must not."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import pytest
from pydantic import ValidationError

from batchling_client import settings as client_settings
from batchling_client.wire.deployment.provider_settings import EndpointSettings
from batchling_worker.errors import PermanentError
from batchling_worker.providers import Providers
from batchling_worker.settings import ProviderSettings, WorkerSettings

ROOT: Final = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def nobodys_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("BATCHLING_HOME", "BATCHLING_PROVIDERS", "BATCHLING_REDIS_URL"):
        monkeypatch.delenv(name, raising=False)


def test_a_provider_is_named_in_any_case(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BATCHLING_PROVIDERS", '{"OpenAI": {"base_url": "http://x"}}')
    monkeypatch.setenv("BATCHLING_PROVIDERS__Groq__Base_Url", "http://g/groq")

    providers = WorkerSettings().providers
    assert {name: said.base_url for name, said in providers.items()} == {
        "openai": "http://x",
        "groq": "http://g/groq",
    }


def test_only_our_own_variables_reach_a_provider(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("API_KEY", "somebody else's")
    monkeypatch.setenv("BASE_URL", "http://elsewhere")
    monkeypatch.setenv("BATCHLING_PROVIDERS__GROQ__BASE_URL", "http://g")
    monkeypatch.setenv("BATCHLING_PROVIDERS__OPENAI__API_KEY", "sk-CANARY")

    providers = WorkerSettings().providers
    assert providers["groq"].api_key is None
    assert providers["openai"].base_url is None
    assert "CANARY" not in repr(providers)


def test_workers_and_callers_read_an_endpoint_of_ones_own_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BATCHLING_PROVIDERS__ACME__BASE_URL", "https://llm.acme.example/")
    monkeypatch.setenv("BATCHLING_PROVIDERS__ACME__ENDPOINTS", "/v1/chat/completions,/v1/rerank")
    monkeypatch.setenv("BATCHLING_PROVIDERS__ACME__WINDOWS", "1h,24h")
    monkeypatch.setenv("BATCHLING_PROVIDERS__ACME__MAX_BYTES", "5000")
    monkeypatch.setenv("BATCHLING_PROVIDERS__ACME__API_KEY", "sk-CANARY")

    workers, callers = WorkerSettings().providers, client_settings.load().providers
    assert callers["acme"].base_url == "https://llm.acme.example/v1"
    assert callers["acme"].model_dump() == workers["acme"].model_dump(
        include=set(EndpointSettings.model_fields)
    )
    facts = Providers(workers).load("acme").facts
    assert (facts.base_url, facts.windows, facts.max_bytes) == (
        "https://llm.acme.example/v1",
        ("1h", "24h"),
        5000,
    )
    with pytest.raises(PermanentError, match="No provider is called 'acme'"):
        Providers({}).load("acme")


def test_a_provider_is_left_alone_as_long_as_it_asks_unless_settings_say_otherwise() -> None:
    assert Providers({}).least_look_s("azure") == 60.0
    assert Providers({}).least_look_s("openai") == 0.0
    said = {
        "azure": ProviderSettings(poll_interval_seconds=0),
        "openai": ProviderSettings(poll_interval_seconds=5),
    }
    assert Providers(said).least_look_s("azure") == 0.0
    assert Providers(said).least_look_s("openai") == 5.0


def test_a_home_below_the_users_own_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BATCHLING_HOME", "~/batches")

    assert WorkerSettings().home == Path.home() / "batches"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("BATCHLING_LEASE_SECONDS", "0"),
        ("BATCHLING_MAX_ATTEMPTS", "0"),
        ("BATCHLING_POLL_INTERVAL_SECONDS", "soon"),
        ("BATCHLING_PROVIDERS__GROQ__APIKEY", "misspelt"),
    ],
)
def test_a_setting_that_means_nothing_is_refused(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)

    with pytest.raises(ValidationError):
        WorkerSettings()


def test_a_misspelt_setting_does_not_show_its_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BATCHLING_PROVIDERS__GROQ__APIKEY", "gsk-CANARY")

    with pytest.raises(ValidationError) as refusal:
        WorkerSettings()
    assert "providers.groq.apikey" in str(refusal.value)
    assert "CANARY" not in str(refusal.value)


OFFERED: Final = re.findall(
    r"^#?(BATCHLING_\w+)=", (ROOT / ".env.example").read_text(encoding="utf-8"), re.MULTILINE
)


@pytest.mark.parametrize("name", OFFERED)
def test_an_empty_value_counts_as_unset(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    workers, callers = WorkerSettings(), client_settings.load()

    monkeypatch.setenv(name, "")

    assert workers == WorkerSettings()
    assert callers == client_settings.load()
