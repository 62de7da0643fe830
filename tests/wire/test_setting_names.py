"""A variable that nobody reads is reported with the name that was meant; errors of libraries are reworded."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from pydantic import BaseModel

from batchling_client import settings as client_settings
from batchling_client.errors import WrongSettings
from batchling_client.settings import ClientSettings
from batchling_client.wire.deployment import setting_names
from batchling_client.wire.deployment.provider_settings import EndpointSettings
from batchling_client.wire.deployment.setting_names import OF_A_PROVIDER, SET_BY_BATCHLING, SETTINGS, unread
from batchling_worker import settings as worker_settings
from batchling_worker.settings import ProviderSettings, WorkerSettings

from ..cli.command import clean_environment


def fields(*models: type[BaseModel]) -> set[str]:
    return {name.upper() for model in models for name in model.model_fields}


def test_every_setting_is_listed() -> None:
    assert fields(ClientSettings, WorkerSettings) <= set(SETTINGS)
    assert fields(EndpointSettings, ProviderSettings) <= set(OF_A_PROVIDER)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("BATCHLING_REDISURL", "BATCHLING_REDIS_URL"),
        ("BATCHLING_REDIS_URI", "BATCHLING_REDIS_URL"),
        ("BATCHLING__REDIS_URL", "BATCHLING_REDIS_URL"),
        ("BATCHING_REDIS_URL", "BATCHLING_REDIS_URL"),
        ("BATCHLING_LEASE_SECOND", "BATCHLING_LEASE_SECONDS"),
        ("BATCHLING_PROVIDERS__GROQ__APIKEY", "BATCHLING_PROVIDERS__GROQ__API_KEY"),
        ("BATCHLING_PROVIDERS_GROQ_API_KEY", "BATCHLING_PROVIDERS__GROQ__API_KEY"),
        ("BATCHLING_PROVIDER__OPENAI__BASE_URL", "BATCHLING_PROVIDERS__OPENAI__BASE_URL"),
        ("BATCHLING_OPENAI_BASE_URL", "BATCHLING_PROVIDERS__OPENAI__BASE_URL"),
        ("BATCHLING_PROVIDERS__ACME__BASEURL", "BATCHLING_PROVIDERS__ACME__BASE_URL"),
        ("BATCHLING_CACHE_PATH", None),
        ("BATCHLING_PROVIDERS__GROQ__COLOUR", None),
    ],
)
def test_what_was_meant_is_named(name: str, meant: str | None) -> None:
    [found] = unread({name: "sk-CANARY"})

    assert (found.name, found.meant) == (name, meant)
    assert str(found).startswith(f"Nothing reads {name}: ")
    assert "CANARY" not in str(found)


def test_what_is_read_is_not_named() -> None:
    read = [f"BATCHLING_{name}" for name in (*SETTINGS, *SET_BY_BATCHLING)]
    read += [f"BATCHLING_PROVIDERS__ANY__{name}" for name in OF_A_PROVIDER]
    read += ["batchling_redis_url", "BATCHLING_PROVIDERS__Groq__Base_Url", "BATCHLING_PROVIDERS__GROQ"]
    read += ["BATCHLING_PROVIDERS__AZURE__MODELS__GPT", "BATCH_SIZE", "BATCHINGS", "PATH"]

    assert unread(dict.fromkeys(read, "x")) == []
    assert unread({"BATCHLING_REDISURL": ""}) == []


def test_hundreds_of_them_are_no_flood() -> None:
    assert len(unread({f"BATCHLING_NO_{number}": "x" for number in range(500)})) == setting_names._MOST


WRONG = [
    ({"BATCHLING_LEASE_SECONDS": "soon"}, "BATCHLING_LEASE_SECONDS must be a number."),
    ({"BATCHLING_LEASE_SECONDS": "0"}, "BATCHLING_LEASE_SECONDS must be more than 0."),
    ({"BATCHLING_MAX_ATTEMPTS": "0"}, "BATCHLING_MAX_ATTEMPTS must be 1 or more."),
    ({"BATCHLING_MAX_ATTEMPTS": "1.5"}, "BATCHLING_MAX_ATTEMPTS must be a whole number."),
    ({"BATCHLING_MAX_ATTEMPTS": "9" * 5000}, "BATCHLING_MAX_ATTEMPTS must be a smaller number."),
    ({"BATCHLING_FSYNC_INTENT": "perhaps"}, "BATCHLING_FSYNC_INTENT must be true or false."),
    ({"BATCHLING_PROVIDERS": "{"}, "BATCHLING_PROVIDERS must be JSON."),
    (
        {"BATCHLING_PROVIDERS": "[1]"},
        "BATCHLING_PROVIDERS must be pairs of names and values.",
    ),
    (
        {"BATCHLING_PROVIDERS__GROQ": "sk-CANARY"},
        "BATCHLING_PROVIDERS__GROQ must be a JSON object, or settings of their own such as BASE_URL.",
    ),
    (
        {"BATCHLING_PROVIDERS__GROQ__APIKEY": "sk-CANARY"},
        "BATCHLING_PROVIDERS__GROQ has no setting APIKEY: did you mean API_KEY?",
    ),
    (
        {"BATCHLING_PROVIDERS__ACME__ENDPOINTS": "[sk-CANARY"},
        "BATCHLING_PROVIDERS__ACME__ENDPOINTS begins like JSON, but is not valid JSON.",
    ),
    (
        {"BATCHLING_PROVIDERS": json.dumps({"groq": {"max_rows": {"CANARY": 1}}})},
        "BATCHLING_PROVIDERS__GROQ__MAX_ROWS must be a whole number.",
    ),
]


@pytest.mark.parametrize(("around", "expected"), WRONG, ids=lambda one: str(one)[:40])
def test_a_wrong_value_is_told_in_plain_words(around: dict[str, str], expected: str) -> None:
    with pytest.raises(worker_settings.WrongSetting) as wrong:
        worker_settings.load(around)

    assert str(wrong.value) == expected


def test_callers_read_the_same_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BATCHLING_PROVIDERS__GROQ__MAX_ROWS", "many")

    with pytest.raises(
        WrongSettings, match=r"^BATCHLING_PROVIDERS__GROQ__MAX_ROWS must be a whole number\.$"
    ):
        client_settings.load()


def test_a_worker_names_them_when_it_starts() -> None:
    started = subprocess.run(
        [sys.executable, "-c", "import batchling_worker.celery"],
        env={**clean_environment(), "BATCHLING_REDIS_URL": "redis://127.0.0.1:1", "BATCHLING_LEASE": "5"},
        capture_output=True,
        text=True,
    )

    assert started.returncode == 0, started.stderr
    assert started.stderr == "Nothing reads BATCHLING_LEASE: did you mean BATCHLING_LEASE_SECONDS?\n"
